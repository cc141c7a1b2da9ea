"""Reading and changing the documents of a registry, so that no update is ever lost.

Every write is conditional: a new document is put only if there is none (If-None-Match), a changed
one only over the very bytes that it was made from (If-Match). Who comes second reads again and
applies the change to what is there now. A document that is not understood is never written to.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import anyio
from anyio import to_thread

from snapd.model.errors import (
    ConditionFailed,
    ConditionsMissing,
    KeyMissing,
    RegistryBusy,
    RegistryDamaged,
    RegistryUnreadable,
    SnapsyncError,
    StoreFailing,
    StoreMissing,
)
from snapd.model.ids import digest_of
from snapd.model.registry import DOCUMENT_MAX_BYTES, REGISTRY_PREFIX
from snapd.remote.base import IF_ABSENT, Condition, RemoteStore
from snapd.runtime.retry import Backoff

PROBE_KEY = f"{REGISTRY_PREFIX}conditions"
_PROBE = "Writes to this registry are conditional, which is checked here: {}\n"
CONFLICTS = Backoff(base_seconds=0.05, max_seconds=2.0, attempts_max=100, deadline_seconds=120.0)
"""How long a change is tried while others write to the same document."""
_AWAY_FROM_BYTES = 64 * 1024
"""A document of this size or more is read in a thread, for the loop may be a daemon's."""


class Rendered(Protocol):
    """A document that can be stored, and tells whether a change is in it."""

    def render(self) -> bytes:
        """Render the document as it is stored."""
        ...

    def has_change(self, token: str) -> bool:
        """Tell whether the change of that token is in this document."""
        ...


DocumentT = TypeVar("DocumentT", bound=Rendered)
ReadT = TypeVar("ReadT")


@dataclass(frozen=True, slots=True)
class Found(Generic[ReadT]):
    """A document as it was read; `etag` is what it is compared by."""

    document: ReadT
    etag: str


class Pauses(NamedTuple):
    """Clock, dice and bed of a writer that others came before."""

    now: Callable[[], float] = time.monotonic
    random: Callable[[], float] = random.random
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep


class Documents:
    """The documents below `registry/` of one open store.

    Raises, beside what is named, the store's own errors: `AccessDenied` for a writer without
    permission, `StoreMissing`, `StoreUnreachable`.
    """

    def __init__(
        self,
        store: RemoteStore,
        *,
        conflicts: Backoff = CONFLICTS,
        pauses: Pauses | None = None,
    ) -> None:
        self.store = store
        self._conflicts = conflicts
        self._pauses = pauses or Pauses()
        self._is_conditional = False

    async def read(self, key: str, parse: Callable[[bytes], ReadT]) -> Found[ReadT] | None:
        """Read a document; None if there is none.

        Raises `RegistryDamaged` or `RegistryTooNew` naming the key, and `StoreMissing` only for a
        bucket: a directory that does not exist yet has no documents.
        """
        where = f"{self.store.uri} {key}"
        try:
            found = await self.store.get(key, limit_bytes=DOCUMENT_MAX_BYTES)
        except KeyMissing:
            return None
        except StoreMissing:
            if self.store.uri.scheme != "file":
                raise
            return None
        except StoreFailing as error:
            if "limit_bytes" not in error.details:
                raise
            raise RegistryDamaged(f"{where}: it is larger than is ever written", key=key) from error
        try:
            if len(found.data) < _AWAY_FROM_BYTES:
                return Found(parse(found.data), found.etag)
            return Found(await to_thread.run_sync(parse, found.data), found.etag)
        except RegistryUnreadable as error:
            raise type(error)(f"{where}: {error.message}", hint=error.hint, key=key) from error

    async def etag(self, key: str) -> str | None:
        """Tell by what a document is compared, as cheaply as the store can; None: there is none.

        For who polls: as long as it is the same, so is the document.
        """
        if self.store.uri.scheme != "file":
            [info] = await self.store.head_batch([key])
            if isinstance(info, SnapsyncError):
                raise info
            if info is None or info.etag:
                return None if info is None else info.etag
        # A directory tells the tag only of what it reads, and some that speak S3 none at all.
        found = await self.read(key, bytes)
        return None if found is None else found.etag or digest_of(found.document)

    async def check_writes(self) -> None:
        """Raise, before much is done, what would keep documents from being written."""
        await self._check_conditions()

    async def create(self, key: str, data: bytes) -> bool:
        """Write a document that never changes; False if there is one, which is left as it is.

        Raises `ConditionsMissing` for a store that can't keep it from being overwritten.
        """
        await self._check_conditions()
        try:
            await self.store.put(key, data, IF_ABSENT)
        except ConditionFailed:
            return False
        return True

    async def change(
        self,
        key: str,
        parse: Callable[[bytes], DocumentT],
        apply: Callable[[DocumentT | None], Awaitable[DocumentT]],
        token: str,
    ) -> DocumentT:
        """Change a document, or make it, and return it as it is stored then.

        `apply` is given the document as it stands (None: there is none) and returns the new one, or
        the same object if nothing is to change, which is then not written; it is called again
        whenever somebody else wrote in between, and what it raises ends the change. `token` is in
        the new document (`has_change`), and in no other. Raises `RegistryBusy` when others kept
        writing for too long, `ConditionsMissing`, and what `read` raises.
        """
        await self._check_conditions()
        began = self._pauses.now()
        failures = 0
        while True:
            found = await self.read(key, parse)
            if failures and found is not None and found.document.has_change(token):
                # The write whose answer was lost has been done, and others have come since.
                return found.document
            changed = await apply(None if found is None else found.document)
            if found is not None and changed is found.document:
                return changed
            try:
                data = await to_thread.run_sync(changed.render)
                await self.store.put(key, data, _condition(found))
            except ConditionFailed as conflict:
                failures += 1
                await self._pause(key, failures, began, conflict)
            else:
                return changed

    async def keys(self, prefix: str) -> AsyncGenerator[str, None]:
        """Name what lies below a prefix of the registry, in byte order; nothing if nothing does."""
        try:
            async with aclosing(self.store.list(f"{REGISTRY_PREFIX}{prefix}")) as listing:
                async for info in listing:
                    yield info.key.removeprefix(REGISTRY_PREFIX)
        except StoreMissing:
            if self.store.uri.scheme != "file":
                raise

    async def _pause(
        self, key: str, failures: int, began: float, conflict: ConditionFailed
    ) -> None:
        delay = self._conflicts.delay_seconds(
            failures, retry_after_seconds=0.0, random=self._pauses.random
        )
        elapsed = self._pauses.now() - began
        if not self._conflicts.allows(failures, elapsed_seconds=elapsed, delay_seconds=delay):
            raise RegistryBusy(
                f"{self.store.uri} {key}: others wrote to it {failures} times meanwhile", key=key
            ) from conflict
        await self._pauses.sleep(delay)

    async def _check_conditions(self) -> None:
        """Find out, once, that the store keeps conditions, which some that speak S3 ignore."""
        if self._is_conditional:
            return
        refused = 0
        # The first one may find that the key is not there yet, and makes it. No two have the same
        # bytes: a repeated write that finds its own counts as done.
        for condition in (IF_ABSENT, IF_ABSENT, Condition("if_match", '"0"')):
            text = _PROBE.format(f"{self._pauses.random():.17f}")
            try:
                await self.store.put(PROBE_KEY, text.encode(), condition)
                refused = 0
            except ConditionFailed:
                refused += 1
        if refused < 2:
            raise ConditionsMissing(
                f"{self.store.uri} ignores conditions on writes: two who write at once would lose"
                " an update"
            )
        self._is_conditional = True


def _condition(found: Found[DocumentT] | None) -> Condition:
    return IF_ABSENT if found is None else Condition("if_match", found.etag)
