"""From a store's URI and its settings to an open store, with the wrappers that belong around it."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from anyio import to_thread

from snapd.model.errors import InvalidConfig, InvalidStoreUri
from snapd.model.settings import StoreSettings, TransferSettings
from snapd.model.uris import StoreUri, parse_store_uri
from snapd.remote.base import RemoteStore
from snapd.remote.directory import DirectoryStore
from snapd.remote.identities import plain_identity
from snapd.remote.memory import MemoryStores
from snapd.remote.metered import Metered
from snapd.remote.retrying import Retrying
from snapd.runtime.observer import Observer
from snapd.runtime.retry import Backoff

if TYPE_CHECKING:
    # Late: libcurl is not loaded for a store that is a directory.
    from snapd.remote.lanes import Lanes

_ANY = (StoreUri("s3", "any", ""), StoreSettings("s3://any"))


def settings_for(uri: StoreUri, configured: Sequence[StoreSettings]) -> StoreSettings:
    """Choose the `[[store]]` section with the longest URI that covers `uri`, else defaults.

    `s3://data` covers `s3://data/team/x`, and `s3://data/team` is chosen before it. Raises
    `InvalidConfig` if two sections name the same store.
    """
    sections: dict[StoreUri, StoreSettings] = {}
    for section in configured:
        named = parse_store_uri(section.uri)
        if named in sections:
            raise InvalidConfig(f"two [[store]] sections name {named}")
        sections[named] = section
    covering = [named for named in sections if named.covers(uri)]
    if not covering:
        return StoreSettings(str(uri))
    return sections[max(covering, key=lambda named: len(named.path))]


@asynccontextmanager
async def open_store(
    uri: StoreUri,
    settings: StoreSettings,
    transfer: TransferSettings,
    observer: Observer,
    *,
    memories: MemoryStores | None = None,
    lanes: Lanes | None = None,
) -> AsyncIterator[RemoteStore]:
    """Open the backend that the scheme names, metered and retrying, for the length of the block.

    `lanes` are the node's, which its stores share; without them each has its own.

    `memories` holds the stores that `memory://` names; without it there are none. Raises
    `InvalidStoreUri` for a scheme that has no backend, and what opening the backend raises.
    """
    backoff = Backoff.of(transfer)
    async with _open_backend(uri, settings, transfer, observer, memories, lanes) as backend:
        yield Retrying(Metered(backend, observer), backoff, observer)


async def make_ready() -> None:
    """Load what opening any bucket needs, away from the loop."""
    await to_thread.run_sync(importlib.import_module, "snapd.remote.s3")


async def make_ready_for(configured: Sequence[StoreSettings]) -> None:
    """Load in advance what opening one of these buckets needs; none configured: any bucket."""
    await make_ready()
    from snapd.remote.credentials import load_chain

    named = [(parse_store_uri(each.uri), each) for each in configured]
    buckets = [pair for pair in named if pair[0].scheme in ("s3", "gs")]
    if any(plain_identity(*pair) is None for pair in buckets or [_ANY]):
        await to_thread.run_sync(load_chain)


@asynccontextmanager
async def _open_backend(
    uri: StoreUri,
    settings: StoreSettings,
    transfer: TransferSettings,
    observer: Observer,
    memories: MemoryStores | None,
    lanes: Lanes | None,
) -> AsyncIterator[RemoteStore]:
    if uri.scheme == "file":
        yield DirectoryStore(uri, transfer)
    elif uri.scheme == "memory" and memories is not None:
        yield memories.store(uri)
    elif uri.scheme in ("s3", "gs"):
        # Late: libcurl takes longer to load than most commands run.
        await make_ready()
        from snapd.remote.s3 import open_s3

        async with open_s3(uri, settings, transfer, observer, lanes) as store:
            yield store
    else:
        raise InvalidStoreUri(f"not a store that can be opened here: {uri}")
