"""Hash the whole cache again and again in the background, and repair what is wrong.

A round goes through all objects at a bounded rate. Where it is stands in the index, so a restart
goes on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic

import anyio
from anyio import CapacityLimiter, to_thread
from anyio.abc import TaskGroup

from snapd.actions.repair import Repairer
from snapd.disk.cache import Cache
from snapd.disk.index import ScrubState
from snapd.disk.repairs import Blob
from snapd.disk.scanning import Scan, Step
from snapd.model.care import ScrubPhase, ScrubView
from snapd.model.errors import SnapsyncError
from snapd.model.settings import MIB, ScrubSettings
from snapd.model.units import format_size
from snapd.runtime.observer import Observer

logger = logging.getLogger(__name__)

STEPS_A_SECOND = 4
STEP_BYTES_MIN = 64 * 1024
STEP_BYTES_MAX = 16 * MIB
NOTE_SECONDS = 5.0
"""How often the position is written down."""
AGAIN_SECONDS = 60.0
"""After a failure, and while something waits for its repair."""
LOOK_AT_CLOCK_SECONDS = 3600.0
"""The clock may jump, so no sleep is longer."""


class Scrub:
    """The scrub of one cache. Its tasks end with the task group, before the cache is closed."""

    def __init__(
        self,
        cache: Cache,
        repairer: Repairer,
        settings: ScrubSettings,
        task_group: TaskGroup,
        *,
        observer: Observer,
        now: Callable[[], float],
    ) -> None:
        self._cache = cache
        self._repairer = repairer
        self._settings = settings
        self._task_group = task_group
        self._observer = observer
        self._now = now
        self._limiter = CapacityLimiter(1)
        self._changed = anyio.Event()
        self._state = ScrubState()
        self._scan: Scan | None = None
        self._objects = self._bytes = self._damaged = self._repaired = 0

    def apply(self, settings: ScrubSettings) -> None:
        """Take over another rate or interval at once."""
        self._settings = settings
        self._changed.set()

    async def view(self) -> ScrubView:
        """Show how it stands."""
        waiting = await to_thread.run_sync(self._cache.repairs.pending)
        phase: ScrubPhase = "running" if self._scan is not None else "waiting"
        return ScrubView(
            phase=phase if self._settings.bytes_per_second else "off",
            progress=self._scan.progress if self._scan is not None else 0.0,
            bytes_per_second=self._settings.bytes_per_second,
            round_began_at=self._state.began_at,
            round_ended_at=self._state.ended_at,
            objects=self._objects,
            size_bytes=self._bytes,
            damaged=self._damaged,
            repaired=self._repaired,
            waiting_for_repair=len(waiting),
        )

    def begin(self) -> None:
        """Begin to scrub, and to repair what is still to be repaired."""
        self._task_group.start_soon(self._keep_scrubbing)
        self._task_group.start_soon(self._keep_repairing)

    async def _keep_scrubbing(self) -> None:
        """Run rounds for ever, each when it is due."""
        while True:
            try:
                self._state = await to_thread.run_sync(self._cache.index.scrub_state)
                wait_seconds = self._due_in_seconds()
                if wait_seconds <= 0:
                    await self._run_round()
                    continue
            except SnapsyncError as error:
                logger.warning("the scrub has to wait: %s", error.message)
                wait_seconds = AGAIN_SECONDS
            await self._rest(wait_seconds)

    async def _keep_repairing(self) -> None:
        """Try again what could not be repaired when it was found, for ever."""
        while True:
            try:
                self._repaired += await self._repairer.repair()
            except SnapsyncError as error:
                logger.warning("can't repair the cache: %s", error.message)
            await anyio.sleep(AGAIN_SECONDS)

    async def _rest(self, seconds: float) -> None:
        """Sleep, but not beyond a change of the settings."""
        with anyio.move_on_after(min(seconds, LOOK_AT_CLOCK_SECONDS)):
            await self._changed.wait()
        self._changed = anyio.Event()

    def _due_in_seconds(self) -> float:
        """Tell how long to wait; a beginning in the future is of a clock that jumped."""
        if not self._settings.bytes_per_second:
            return LOOK_AT_CLOCK_SECONDS
        state, now = self._state, self._now()
        if state.position or state.began_at > now:
            return 0.0
        return state.began_at + self._settings.interval_seconds - now

    async def _run_round(self) -> None:
        """Go on with the round that was interrupted, or run a new one, to its end."""
        if not self._state.position:
            self._state = ScrubState("", self._now(), self._state.ended_at)
            await to_thread.run_sync(self._cache.index.record_scrub, self._state)
        before = (self._objects, self._bytes, self._damaged)
        self._scan = Scan(
            self._cache.blobs,
            self._cache.records,
            position=self._state.position,
            began_at=self._state.began_at,
        )
        try:
            if not await self._go_through(self._scan):
                return
        finally:
            self._scan.close()
            self._scan = None
        self._state = ScrubState("", self._state.began_at, self._now())
        await to_thread.run_sync(self._cache.index.record_scrub, self._state)
        self._observer.on_scrub_round(self._state.ended_at)
        logger.info(
            "scrubbed the cache: %d objects, %s, %d damaged",
            self._objects - before[0],
            format_size(self._bytes - before[1]),
            self._damaged - before[2],
        )

    async def _go_through(self, scan: Scan) -> bool:
        """Take step after step at the rate of the moment; False if that became 0."""
        noted = monotonic()
        while rate := self._settings.bytes_per_second:
            started = monotonic()
            budget_bytes = max(STEP_BYTES_MIN, min(STEP_BYTES_MAX, rate // STEPS_A_SECOND))
            step = await to_thread.run_sync(
                scan.step, budget_bytes, self._now(), limiter=self._limiter
            )
            await self._account(step, scan)
            if step.done:
                return True
            if monotonic() - noted >= NOTE_SECONDS:
                await self._note(scan)
                noted = monotonic()
            await self._rest(step.cost_bytes / rate - (monotonic() - started))
        await self._note(scan)
        return False

    async def _note(self, scan: Scan) -> None:
        """Write down how far the round is."""
        self._state = self._state._replace(position=scan.position)
        await to_thread.run_sync(self._cache.index.record_scrub, self._state)

    async def _account(self, step: Step, scan: Scan) -> None:
        self._objects += step.objects
        self._bytes += step.size_bytes
        self._observer.on_scrubbed(step.objects, step.size_bytes, scan.progress)
        if step.suspects:
            await self._judge(step.suspects)

    async def _judge(self, suspects: list[Blob]) -> None:
        """Hash suspects once more; what is wrong is repaired at once."""
        pending_before = set(await to_thread.run_sync(self._cache.repairs.pending))
        for blob in suspects:
            await to_thread.run_sync(self._cache.trust.prove, *blob)
        found = set(await to_thread.run_sync(self._cache.repairs.pending)) - pending_before
        if not found:
            return
        self._damaged += len(found)
        self._observer.on_scrub_damage(len(found))
        repaired = await self._repairer.repair()
        self._repaired += repaired
        logger.warning("the scrub found %d damaged objects; %d are repaired", len(found), repaired)
