"""The stores that a node may read, opened when first used and shared from then on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
from anyio.abc import TaskGroup, TaskStatus

from snapd.model.errors import StoreNotAllowed
from snapd.model.uris import StoreUri, parse_store_uri
from snapd.remote.base import RemoteStore
from snapd.runtime.background import background_tasks

IDLE_STORES_MAX = 8
"""Stores kept open, with their connections, although nobody uses them at the moment."""

OpenStore = Callable[[StoreUri], AbstractAsyncContextManager[RemoteStore]]


class _Kept:
    """One open store and how many use it; its keeper task closes it when told to."""

    def __init__(self) -> None:
        self.store: RemoteStore | None = None
        self.users = 0
        self.opening = anyio.Lock()
        self.close = anyio.Event()


class Stores:
    """Opens stores on the allow-list, each once, and closes the longest idle beyond a few."""

    def __init__(
        self, open_store: OpenStore, allowed: Sequence[str], task_group: TaskGroup
    ) -> None:
        self._open_store = open_store
        self._task_group = task_group
        self._kept: dict[StoreUri, _Kept] = {}
        self._allowed: tuple[StoreUri, ...] = ()
        self._allow_all = False
        self.allow(allowed)

    @property
    def allowed(self) -> tuple[str, ...]:
        """The allow-list as configured."""
        return ("*",) if self._allow_all else tuple(map(str, self._allowed))

    def allow(self, allowed: Sequence[str]) -> None:
        """Replace the allow-list; a URI covers what lies below it, `*` covers everything."""
        self._allow_all = "*" in allowed
        self._allowed = tuple(parse_store_uri(text) for text in allowed if text != "*")

    def check(self, text: str) -> StoreUri:
        """Read a URI that a client named; raises `StoreNotAllowed` if it is not on the list."""
        uri = parse_store_uri(text)
        if self._allow_all or any(allowed.covers(uri) for allowed in self._allowed):
            return uri
        raise StoreNotAllowed(f"this daemon may not read {uri}", store=str(uri))

    @asynccontextmanager
    async def use(self, text: str) -> AsyncIterator[RemoteStore]:
        """Give an open store for the length of the block; raises what opening it raises."""
        uri = self.check(text)
        kept = self._kept.setdefault(uri, _Kept())
        kept.users += 1
        try:
            async with kept.opening:
                if kept.store is None:
                    kept.store = await self._task_group.start(self._keep, uri, kept)
            yield kept.store
        finally:
            kept.users -= 1
            if kept.store is None and not kept.users:
                self._kept.pop(uri, None)
            self._close_idle(uri)

    async def _keep(
        self, uri: StoreUri, kept: _Kept, *, task_status: TaskStatus[RemoteStore]
    ) -> None:
        """Own one store: entered and left in this task, whoever asked for it first."""
        async with self._open_store(uri) as store:
            task_status.started(store)
            await kept.close.wait()

    def _close_idle(self, latest: StoreUri) -> None:
        if latest in self._kept:
            self._kept[latest] = self._kept.pop(latest)
        idle = [uri for uri, kept in self._kept.items() if not kept.users]
        for uri in idle[: max(0, len(idle) - IDLE_STORES_MAX)]:
            self._kept.pop(uri).close.set()


@asynccontextmanager
async def open_stores(open_store: OpenStore, allowed: Sequence[str]) -> AsyncIterator[Stores]:
    """Keep stores for the length of the block; leaving it closes them all."""
    async with background_tasks() as task_group:
        stores = Stores(open_store, allowed, task_group)
        yield stores
