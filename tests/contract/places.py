"""The places that the contract is checked at: every backend, and wrappers around them.

A place opens any number of handles to one and the same store, empty at first, and handles to a
store that does not exist.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from snapd.model.settings import TransferSettings
from snapd.model.uris import StoreUri
from snapd.remote.base import RemoteStore
from snapd.remote.directory import DirectoryStore
from snapd.remote.memory import MemoryStore
from snapd.remote.metered import Metered
from snapd.remote.retrying import Retrying
from snapd.runtime.observer import SilentObserver
from snapd.runtime.retry import Backoff

Opener = Callable[[], AbstractAsyncContextManager[RemoteStore]]

AT_ONCE = Backoff(base_seconds=0.0, max_seconds=0.0, attempts_max=4, deadline_seconds=60.0)


@dataclass(frozen=True)
class Place:
    """One store and how to open it; `open_missing` opens one whose bucket or root is absent."""

    open: Opener
    open_missing: Opener


def memory(_: pytest.FixtureRequest) -> Place:
    store = MemoryStore("memory://contract")
    return Place(_given(store), _given(MemoryStore("memory://missing", exists=False)))


def directory(request: pytest.FixtureRequest) -> Place:
    root: Path = request.getfixturevalue("tmp_path")
    return Place(_directory(root / "store +%ü"), _directory(root / "missing"))


def retrying(request: pytest.FixtureRequest) -> Place:
    return _wrapped(memory(request), lambda inner: Retrying(inner, AT_ONCE, SilentObserver()))


def metered(request: pytest.FixtureRequest) -> Place:
    return _wrapped(memory(request), lambda inner: Metered(inner, SilentObserver()))


def retrying_metered(request: pytest.FixtureRequest) -> Place:
    return _wrapped(metered(request), lambda inner: Retrying(inner, AT_ONCE, SilentObserver()))


PLACES: dict[str, Callable[[pytest.FixtureRequest], Place]] = {
    "memory": memory,
    "directory": directory,
    "retrying-memory": retrying,
    "metered-memory": metered,
    "retrying-metered-memory": retrying_metered,
}


def _given(store: RemoteStore) -> Opener:
    @asynccontextmanager
    async def opened() -> AsyncIterator[RemoteStore]:
        yield store

    return opened


def _directory(root: Path) -> Opener:
    @asynccontextmanager
    async def opened() -> AsyncIterator[RemoteStore]:
        yield DirectoryStore(StoreUri("file", "", str(root)), TransferSettings())

    return opened


def _wrapped(inner: Place, wrap: Callable[[RemoteStore], RemoteStore]) -> Place:
    def around(open_inner: Opener) -> Opener:
        @asynccontextmanager
        async def opened() -> AsyncIterator[RemoteStore]:
            async with open_inner() as store:
                yield wrap(store)

        return opened

    return Place(around(inner.open), around(inner.open_missing))
