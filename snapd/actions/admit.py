"""Who may write how much into the cache: a pull is let in, makes room, waits, or is refused.

What a pull will take is known before its first object is fetched, and reserved until it ends. The
cache is counted now and then; in between, what has been written since is added up. Only a pull
that does not surely fit costs a count of its own, and evictions are decided by that count.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from snapd.actions.sweep import Survey, Sweeper, largest
from snapd.disk.cache import Cache
from snapd.disk.usage import Usage
from snapd.model.errors import CacheFull, DaemonStopping, SnapsyncError
from snapd.model.eviction import Decision
from snapd.model.ids import SnapshotId
from snapd.model.settings import CacheSettings
from snapd.model.space import SweepReport, SweepRequest
from snapd.model.units import format_size
from snapd.runtime.observer import EvictionCause, RefusalReason

logger = logging.getLogger(__name__)

EVICTION_TRIES = 3
"""Something decided upon may get a holder meanwhile; then it is decided anew, so many times."""

SPACE_POLL_SECONDS = 10.0
"""Holders outside of the daemon go without telling; who waits for room looks this often."""


@dataclass(eq=False, slots=True)
class Claim:
    """The room that one running pull has been promised."""

    required_bytes: int
    arrived: Callable[[], int]
    """Tells how much of it is on the disk by now, at least."""
    counted_bytes: int = 0
    complete: bool = False

    def settle(self) -> None:
        """Take note that all of it is on the disk."""
        self.complete = True

    @property
    def written_bytes(self) -> int:
        """How much of it is on the disk."""
        arrived = self.required_bytes if self.complete else self.arrived()
        return max(0, min(arrived, self.required_bytes))

    @property
    def outstanding_bytes(self) -> int:
        """How much of it will still be written."""
        return self.required_bytes - self.written_bytes


class Shortage(NamedTuple):
    """What is lacking; `left_bytes` may be taken without evicting anything."""

    missing_bytes: int
    left_bytes: int
    limit: RefusalReason


class Admission:
    """The space of one cache as pulls see it. One decision at a time; nothing here blocks.

    What removes something runs in `task_group`, whose end is waited for before the cache is closed.
    """

    def __init__(self, cache: Cache, sweeper: Sweeper, task_group: TaskGroup) -> None:
        self._cache = cache
        self._sweeper = sweeper
        self._task_group = task_group
        self._counting = anyio.Lock()
        self._claims: set[Claim] = set()
        self._counted_bytes: int | None = None
        self._usage: Usage | None = None
        self._landed_bytes = 0
        self._room_of_disk = 0
        self._deciding = anyio.Lock()
        self._changed = anyio.Event()

    @property
    def settings(self) -> CacheSettings:
        """The limits in force."""
        return self._sweeper.settings

    def apply(self, settings: CacheSettings) -> None:
        """Take over other limits; what has been promised stays promised."""
        self._sweeper.settings = settings
        self.note_change()

    @property
    def used_bytes(self) -> int:
        """What the cache takes: the last count and what was written since; 0 before the first."""
        written = sum(each.written_bytes - each.counted_bytes for each in self._claims)
        return (self._counted_bytes or 0) + self._landed_bytes + max(0, written)

    @property
    def usage(self) -> Usage | None:
        """What the last count found, by part; None before the first."""
        return self._usage

    @property
    def reserved_bytes(self) -> int:
        """What running pulls will still write."""
        return sum(each.outstanding_bytes for each in self._claims)

    def note_change(self) -> None:
        """Wake whoever waits for room: there may be more of it now."""
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def wait_for_change(self) -> None:
        """Wait until there may be more room than there was."""
        with anyio.move_on_after(SPACE_POLL_SECONDS):
            await self._changed.wait()

    @asynccontextmanager
    async def room(self, required_bytes: int, arrived: Callable[[], int]) -> AsyncIterator[Claim]:
        """Reserve room for the length of the block, evicting exactly enough if need be.

        Raises `CacheFull` naming what is required, what could be had and the largest holders;
        nothing has been evicted then.
        """
        claim = Claim(required_bytes, arrived)
        async with self._deciding:
            await self._make_room(required_bytes)
            self._claims.add(claim)
        try:
            yield claim
        finally:
            self._claims.discard(claim)
            self._landed_bytes += max(0, claim.written_bytes - claim.counted_bytes)
            self.note_change()

    async def _make_room(self, required_bytes: int) -> None:
        shortage = await self._shortage(required_bytes, surely=True)
        for _ in range(EVICTION_TRIES):
            if shortage.missing_bytes <= 0:
                return
            survey = await self._count()
            shortage = await self._shortage(required_bytes)
            if shortage.missing_bytes <= 0:
                return
            decision = await self._decide(survey, shortage.missing_bytes)
            if not decision.satisfied:
                raise self._refuse(required_bytes, shortage, decision)
            swept = await to_thread.run_sync(self._sweeper.perform, decision, "admission")
            self._take_off(swept.freed_bytes)
            shortage = await self._shortage(required_bytes)
        if shortage.missing_bytes > 0:
            raise self._refuse(required_bytes, shortage, Decision(shortage.missing_bytes, 0))

    async def foresee(self, required_bytes: int) -> tuple[Shortage, Decision]:
        """Tell what a pull would meet that takes so much; changes nothing."""
        shortage = await self._shortage(required_bytes, surely=True)
        if shortage.missing_bytes <= 0:
            return shortage, Decision(0, 0)
        survey = await self._count()
        shortage = await self._shortage(required_bytes)
        return shortage, await self._decide(survey, max(0, shortage.missing_bytes))

    async def _decide(self, survey: Survey, needed_bytes: int) -> Decision:
        return await to_thread.run_sync(self._sweeper.decide, survey, needed_bytes)

    async def _shortage(self, required_bytes: int, *, surely: bool = False) -> Shortage:
        """Tell what is lacking by the last count; `surely` with none it is all that is required."""
        space = await to_thread.run_sync(self._cache.space)
        self._room_of_disk = space.total_bytes - self.settings.min_free_bytes
        on_disk = space.free_bytes - self.settings.min_free_bytes - self.reserved_bytes
        worst = Shortage(required_bytes - on_disk, on_disk, "disk")
        if self.settings.max_bytes:
            promised = sum(each.required_bytes - each.counted_bytes for each in self._claims)
            used_bytes = (self._counted_bytes or 0) + self._landed_bytes + promised
            left_bytes = self.settings.max_bytes - used_bytes
            if left_bytes < worst.left_bytes:
                worst = Shortage(required_bytes - left_bytes, left_bytes, "quota")
            if surely and self._counted_bytes is None:
                worst = worst._replace(missing_bytes=max(1, worst.missing_bytes))
        return worst

    async def _count(self) -> Survey:
        """Count the cache; what is written meanwhile is counted too much rather than too little."""
        async with self._counting:
            claims = {claim: claim.written_bytes for claim in self._claims}
            landed_bytes = self._landed_bytes
            survey = await to_thread.run_sync(self._sweeper.look)
            self._counted_bytes = survey.usage.total_bytes
            self._usage = survey.usage
            self._landed_bytes -= landed_bytes
            for claim, written_bytes in claims.items():
                claim.counted_bytes = written_bytes
            return survey

    def _take_off(self, freed_bytes: int) -> None:
        if self._counted_bytes is not None:
            self._counted_bytes = max(0, self._counted_bytes - freed_bytes)
        self.note_change()

    def _refuse(self, required_bytes: int, shortage: Shortage, decision: Decision) -> CacheFull:
        available_bytes = max(0, shortage.left_bytes + decision.freed_bytes)
        holders = largest(decision.kept)
        named = ", ".join(
            f"{each.snapshot_id[:12]} {format_size(each.size_bytes)} ({each.explain()})"
            for each in holders
        )
        return CacheFull(
            f"the snapshot needs {format_size(required_bytes)} more on disk and"
            f" {format_size(available_bytes)} can be had: {self._describe(shortage.limit)}"
            + (f"; the largest that stay: {named}" if named else ""),
            required_bytes=required_bytes,
            available_bytes=available_bytes,
            limit=shortage.limit,
            used_bytes=self.used_bytes,
            reserved_bytes=self.reserved_bytes,
            max_bytes=self.settings.max_bytes,
            hopeless=self._is_hopeless(required_bytes),
            holders=[each.to_json() for each in holders],
        )

    def _describe(self, limit: RefusalReason) -> str:
        promised = self.reserved_bytes
        others = f", {format_size(promised)} are promised to other pulls" if promised else ""
        if limit == "quota":
            return (
                f"max_bytes is {format_size(self.settings.max_bytes)} and"
                f" {format_size(self.used_bytes)} are used{others}"
            )
        kept_free = format_size(self.settings.min_free_bytes)
        return f"the disk of {self._cache.root} is to keep {kept_free} free{others}"

    def _is_hopeless(self, required_bytes: int) -> bool:
        """Tell whether so much would not even fit into an empty cache."""
        quota = self.settings.max_bytes
        return 0 < quota < required_bytes or required_bytes > self._room_of_disk

    async def sweep(self, request: SweepRequest) -> SweepReport:
        """Free what was asked for, or sweep down to the low watermark."""
        return await self._in_background(partial(self._sweep_now, request))

    async def _sweep_now(self, request: SweepRequest) -> SweepReport:
        async with self._deciding:
            survey = await self._count()
            due_bytes = await self._due(survey, at=self.settings.low_watermark)
            return await self._sweep(survey, request.free_bytes or due_bytes, "request", request)

    async def evict(self, snapshot_id: SnapshotId, *, given_out_too: bool = False) -> SweepReport:
        """Evict one snapshot. Raises `SnapshotNotFound`, `SnapshotInUse`."""
        work = partial(self._sweeper.evict, snapshot_id, given_out_too=given_out_too)
        return await self._in_background(partial(self._evict_now, work))

    async def _evict_now(self, work: Callable[[], SweepReport]) -> SweepReport:
        async with self._deciding:
            report = await to_thread.run_sync(work)
            self._take_off(report.freed_bytes)
        return report

    async def _in_background(self, work: Callable[[], Awaitable[SweepReport]]) -> SweepReport:
        """Do it even if the caller goes away: a thread at work can't be stopped in the middle."""
        reports: list[SweepReport] = []
        errors: list[SnapsyncError] = []
        ended = anyio.Event()

        async def run() -> None:
            try:
                reports.append(await work())
            except SnapsyncError as error:
                errors.append(error)
            finally:
                ended.set()

        self._task_group.start_soon(run)
        await ended.wait()
        for error in errors:
            raise error
        if not reports:
            raise DaemonStopping("the sweep was stopped")
        return reports[0]

    async def _sweep(
        self, survey: Survey, needed_bytes: int, cause: EvictionCause, request: SweepRequest
    ) -> SweepReport:
        report = await to_thread.run_sync(
            partial(
                self._sweeper.sweep,
                survey,
                needed_bytes,
                cause=cause,
                dryrun=request.dryrun,
                why=request.why,
            )
        )
        if not request.dryrun:
            self._take_off(report.freed_bytes)
        return report

    async def _due(self, survey: Survey, *, at: float) -> int:
        """Tell how much is to go if the cache is above `at`: down to the low watermark."""
        settings, used_bytes = self.settings, survey.usage.total_bytes
        space = await to_thread.run_sync(self._cache.space)
        due_bytes = settings.min_free_bytes - space.free_bytes
        if settings.max_bytes and used_bytes > at * settings.max_bytes:
            low_bytes = int(settings.low_watermark * settings.max_bytes)
            due_bytes = max(due_bytes, used_bytes - low_bytes)
        return max(0, due_bytes)

    def begin_sweeping(self) -> None:
        """Count and sweep at every interval, and when pulls fill the cache, from now on."""
        self._task_group.start_soon(self._keep_sweeping)

    async def _keep_sweeping(self) -> None:
        while True:
            satisfied = await self._sweep_as_due()
            with anyio.move_on_after(self.settings.sweep_interval_seconds):
                while not (satisfied and self._is_above_high()):
                    await self._changed.wait()

    def _is_above_high(self) -> bool:
        settings = self.settings
        return 0 < settings.max_bytes * settings.high_watermark < self.used_bytes

    async def _sweep_as_due(self) -> bool:
        """Sweep if it is time to; tells whether another sweep soon would make sense."""
        try:
            survey = await self._count()
            async with self._deciding:
                due_bytes = await self._due(survey, at=self.settings.high_watermark)
                report = await self._sweep(survey, due_bytes, "watermark", SweepRequest())
        except SnapsyncError as error:
            logger.warning("can't sweep the cache: %s", error.message)
            return False
        return report.satisfied
