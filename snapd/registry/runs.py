"""The runs of one store: recording them, and finding them by ID and by the snapshots they name.

A record is put once and never changed. The links that lead to it from its snapshots are put before
it, so that no record is without them; one that leads to no such record means nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from functools import partial
from itertools import compress

from anyio import to_thread

from snapd.model.datasets import nearest
from snapd.model.errors import (
    ClockBehind,
    RegistryDamaged,
    RegistryUnreadable,
    RunExists,
    RunNotFound,
    SnapsyncError,
)
from snapd.model.ids import SnapshotId
from snapd.model.names import is_name, parse_name
from snapd.model.receipts import format_moment, parse_moment
from snapd.model.registry import CLOCK_BEHIND_MAX_SECONDS, REGISTRY_PREFIX
from snapd.model.runs import LinkKind, Run, render_link
from snapd.registry.beginning import beginning
from snapd.registry.names import LISTED_MAX, Registry
from snapd.registry.side_by_side import READ_AT_ONCE, side_by_side

_RUNS, _LINKS = "runs/", "links/"
_DAY_CHARACTERS = 8
"""Of an ID that sorts by time, so many name the day."""


def run_key(run_id: str) -> str:
    """`r7` -> `registry/runs/r7`."""
    return f"{REGISTRY_PREFIX}{_RUNS}{parse_name(run_id)}"


def link_key(kind: LinkKind, snapshot_id: SnapshotId, run_id: str) -> str:
    """Name the link from a snapshot to a run: `registry/links/ID/used-by/r7`."""
    return f"{REGISTRY_PREFIX}{_LINKS}{snapshot_id}/{kind}/{parse_name(run_id)}"


class Runs:
    """The records of runs in the store of a registry.

    Every call reads the store anew. See `Documents` for what it raises beside what is named.
    """

    def __init__(self, registry: Registry) -> None:
        self._documents = registry.documents
        self.store = registry.store

    async def run(self, run_id: str) -> Run:
        """Read a record; raises `RunNotFound` naming the nearest."""
        if (found := await self.find(run_id)) is None:
            raise await self._not_found(run_id)
        return found

    async def find(self, run_id: str) -> Run | None:
        """Read a record; None if there is none."""

        def parse(data: bytes) -> Run:
            run = Run.parse(data)
            if run.run_id != run_id:
                raise RegistryDamaged(f"its run_id is {run.run_id!r}")
            return run

        found = await self._documents.read(run_key(run_id), parse)
        return None if found is None else found.document

    async def record(self, run: Run) -> Run:
        """Record a run for good, and return the record that is there then.

        One that says the same is left as it is, whoever recorded it. Raises `RunExists` for one
        that says something else, `ClockBehind` for a run that ends after this clock's time,
        `InvalidName` for what is unfit and `RegistryFull` for what is too large; then nothing has
        been written.
        """
        run = await to_thread.run_sync(run.checked)
        if (existing := await self.find(run.run_id)) is not None:
            return self._same(existing, run)
        _check_clock(run)

        async def link(kind: LinkKind, snapshot_id: SnapshotId) -> None:
            key = link_key(kind, snapshot_id, run.run_id)
            # One that is there already is of an earlier try.
            await self._documents.create(key, render_link(kind, snapshot_id, run.run_id))

        links = [partial(link, *each) for each in run.links()]
        # The first write finds out whether there may be any.
        await side_by_side(links[:1])
        await side_by_side(links[1:])
        if await self._documents.create(run_key(run.run_id), run.render()):
            return run
        return self._same(await self.run(run.run_id), run)

    async def ids(self, prefix: str = "") -> AsyncGenerator[str, None]:
        """List the IDs that begin so in byte order, page by page; ours sort by time."""
        async with aclosing(self._documents.keys(f"{_RUNS}{prefix}")) as keys:
            async for key in keys:
                run_id = key.removeprefix(_RUNS)
                if is_name(run_id):
                    yield run_id

    async def using(self, snapshot_id: SnapshotId) -> AsyncGenerator[str, None]:
        """List the IDs of the runs that used a snapshot, in byte order, by its links alone.

        Each has been looked at: a link that leads to no record that names the snapshot is passed
        over. One to a record that can't be read is not; reading it tells why.
        """
        async with aclosing(self._found("used-by", snapshot_id)) as found:
            async for run_id in found:
                yield run_id

    async def making(self, snapshot_id: SnapshotId) -> AsyncGenerator[str, None]:
        """List the IDs of the runs that made a snapshot, as `using` does."""
        async with aclosing(self._found("made-by", snapshot_id)) as found:
            async for run_id in found:
                yield run_id

    async def linked(self, kind: LinkKind, snapshot_id: SnapshotId) -> AsyncGenerator[str, None]:
        """List the IDs that links from a snapshot lead to, in byte order; nothing else is read.

        What a link says only counts if the record says so too: see `Run.is_linked`.
        """
        prefix = f"{_LINKS}{snapshot_id}/{kind}/"
        async with aclosing(self._documents.keys(prefix)) as keys:
            async for key in keys:
                if is_name(run_id := key.removeprefix(prefix)):
                    yield run_id

    async def _found(self, kind: LinkKind, snapshot_id: SnapshotId) -> AsyncGenerator[str, None]:
        waiting: list[str] = []
        async with aclosing(self.linked(kind, snapshot_id)) as linked:
            async for run_id in linked:
                waiting.append(run_id)
                if len(waiting) == READ_AT_ONCE:
                    for good in await self._named(kind, snapshot_id, waiting):
                        yield good
                    waiting = []
        for good in await self._named(kind, snapshot_id, waiting):
            yield good

    async def _named(
        self, kind: LinkKind, snapshot_id: SnapshotId, run_ids: list[str]
    ) -> list[str]:
        """Choose the runs whose record names the snapshot, or can't be read."""

        async def is_good(run_id: str) -> bool:
            try:
                run = await self.find(run_id)
            except RegistryUnreadable:
                return True
            return run is not None and run.is_linked(kind, snapshot_id)

        good = await side_by_side([partial(is_good, run_id) for run_id in run_ids])
        return list(compress(run_ids, good))

    def _same(self, existing: Run, run: Run) -> Run:
        """Give the record that is there if it says the same; raises `RunExists` otherwise."""
        if different := run.differences(existing):
            raise RunExists(
                f"{self.store.uri} has a run {run.run_id} already, by {existing.by}, with other"
                f" {', '.join(different)}",
                run_id=run.run_id,
                differs=different,
            )
        return existing

    async def _not_found(self, run_id: str) -> RunNotFound:
        known: list[str] = []
        # Who may read a record may not be allowed to list them; then nothing is suggested.
        with suppress(SnapsyncError):
            for prefix in (run_id[:_DAY_CHARACTERS], ""):
                known = known or (await beginning(self.ids(prefix), LISTED_MAX))[0]
        near = await to_thread.run_sync(nearest, run_id, known)
        said = f" (did you mean {', '.join(near)}?)" if near else ""
        return RunNotFound(
            f"{self.store.uri} has no run {run_id!r}{said}",
            run_id=run_id,
            store=str(self.store.uri),
            nearest=list(near),
        )


def _check_clock(run: Run) -> None:
    """Refuse a run that has not ended, or not begun, by the clock that it is recorded by."""
    latest = max(map(parse_moment, filter(None, (run.started_at, run.ended_at))), default=0.0)
    if parse_moment(run.at) < latest - CLOCK_BEHIND_MAX_SECONDS:
        raise ClockBehind(
            f"this clock says {run.at}, and the run {run.run_id} says"
            f" {format_moment(latest)}, which is later",
            behind_seconds=round(latest - parse_moment(run.at), 1),
        )
