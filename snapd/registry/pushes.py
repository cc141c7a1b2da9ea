"""The record of pushes in a store: adding to it, and reading it newest first.

Each push is a few small objects of its own that never change, so that any number of writers add to
it at once and nobody waits for anybody, on any store. Two who push to one location in the same
moment may both name the same predecessor.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from snapd.model.errors import RegistryUnreadable, SnapsyncError
from snapd.model.ids import SnapshotId
from snapd.model.pushes import (
    CLOCKS_APART_MAX_MS,
    LOCATIONS_PREFIX,
    Push,
    PushName,
    after_prefix,
    in_prefix,
    location_digest,
    next_push,
    of_prefix,
    parse_location,
    render_location,
)
from snapd.model.registry import REGISTRY_PREFIX
from snapd.registry.beginning import beginning
from snapd.registry.documents import Documents
from snapd.registry.side_by_side import side_by_side
from snapd.remote.base import Put

LOCATIONS_MAX = 10_000
"""So many locations of a store are told of."""


class Pushes:
    """The record of pushes in the store of these documents.

    Every call reads the store anew and raises the store's own errors.
    """

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._store = documents.store
        self._locations: dict[str, str] = {}

    async def add(
        self,
        location: str,
        snapshot_id: SnapshotId,
        *,
        now_ms: int,
        by: str,
        mark: str,
        parent_id: SnapshotId | None = None,
    ) -> Push | None:
        """Record a push; None if the newest one of the location is of the same snapshot.

        `mark` is letters and digits, at most 16, unlike any other push's.
        """
        newest = await self._newest(location, now_ms + CLOCKS_APART_MAX_MS)
        push = next_push(newest, location, snapshot_id, now_ms=now_ms, by=by, parent_id=parent_id)
        if push is None:
            return None
        if newest is None:
            key = f"{LOCATIONS_PREFIX}{location_digest(location)}"
            await self._put([key], render_location(location))
        # The one by its location comes last: what is found there is found everywhere.
        by_location, *others = PushName.of(push, mark).keys()
        await self._put(others, push.render())
        await self._put([by_location], push.render())
        return push

    async def to(self, location: str) -> AsyncGenerator[Push, None]:
        """Walk the pushes to a location, the newest first, without who did them."""
        prefix = in_prefix(location_digest(location))
        async with aclosing(self._names(prefix)) as names:
            async for name in names:
                yield name.push(location)

    async def of(self, snapshot_id: SnapshotId) -> AsyncGenerator[Push, None]:
        """Walk the pushes of a snapshot, the newest first, without who did them."""
        async with aclosing(self._located(of_prefix(snapshot_id))) as pushes:
            async for push in pushes:
                yield push

    async def after(self, parent_id: SnapshotId) -> AsyncGenerator[Push, None]:
        """Walk the pushes of what was made from a snapshot, the newest first."""
        async with aclosing(self._located(after_prefix(parent_id))) as pushes:
            async for push in pushes:
                yield push

    async def told_of(self, snapshot_id: SnapshotId, limit: int) -> tuple[list[Push], bool]:
        """Read the newest pushes of a snapshot whole; tell whether there are more.

        A document that can't be read is told without who did it.
        """
        prefix = of_prefix(snapshot_id)
        found, more = await beginning(self._names(prefix), limit)

        async def read(name: PushName) -> Push:
            key = f"{REGISTRY_PREFIX}{prefix}{name}"
            try:
                document = await self._documents.read(key, Push.parse)
            except RegistryUnreadable:
                document = None
            return document.document if document else name.push(await self._location(name))

        return await side_by_side([partial(read, name) for name in found]), more

    async def heads(self) -> tuple[list[Push], bool]:
        """Tell the newest push of each location; and whether there are more locations."""
        keys, more = await beginning(self._documents.keys(LOCATIONS_PREFIX), LOCATIONS_MAX)
        digests = [key.removeprefix(LOCATIONS_PREFIX) for key in keys]

        async def head(digest: str) -> Push | None:
            async with aclosing(self._names(in_prefix(digest))) as names:
                async for name in names:
                    return name.push(await self._location(name))
            return None

        found = await side_by_side([partial(head, digest) for digest in digests])
        return [push for push in found if push is not None], more

    async def _newest(self, location: str, until_ms: int) -> Push | None:
        async with aclosing(self.to(location)) as pushes:
            async for push in pushes:
                if push.at_ms <= until_ms:
                    return push
        return None

    async def _names(self, prefix: str) -> AsyncGenerator[PushName, None]:
        async with aclosing(self._documents.keys(prefix)) as keys:
            async for key in keys:
                # What else lies there is not ours.
                if (name := PushName.parse(key.rpartition("/")[2])) is not None:
                    yield name

    async def _located(self, prefix: str) -> AsyncGenerator[Push, None]:
        async with aclosing(self._names(prefix)) as names:
            async for name in names:
                yield name.push(await self._location(name))

    async def _location(self, name: PushName) -> str:
        """Tell the location of a push; if nobody can, its digest in the keys."""
        if (known := self._locations.get(name.location)) is not None:
            return known
        key = f"{REGISTRY_PREFIX}{LOCATIONS_PREFIX}{name.location}"
        try:
            found = await self._documents.read(key, parse_location)
        except RegistryUnreadable:
            found = None
        location = f"(unknown location {name.location})" if found is None else found.document
        if len(self._locations) < LOCATIONS_MAX:
            self._locations[name.location] = location
        return location

    async def _put(self, keys: list[str], data: bytes) -> None:
        puts = [Put(f"{REGISTRY_PREFIX}{key}", lambda: data, len(data)) for key in keys]
        for outcome in await self._store.put_batch(puts):
            if isinstance(outcome, SnapsyncError):
                raise outcome
