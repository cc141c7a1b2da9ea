"""One pull as its callers see it: shared, watched, waited for."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import TypeAlias

import anyio

from snapd.actions.gather import Gathering
from snapd.model.errors import DaemonStopping, JobCancelled, JobNotFound, SnapsyncError
from snapd.model.ids import SnapshotId
from snapd.model.jobs import UNDER_WAY, JobState, JobView, Priority, PullRequest, Step
from snapd.model.plan import PullPlan
from snapd.model.progress import seconds_left
from snapd.runtime.flight import Flight
from snapd.runtime.log import current_job_id
from snapd.runtime.observer import Observer

PullKey: TypeAlias = tuple[SnapshotId, str]

SPEED_WINDOW_SECONDS = 5.0
STEPS_MAX = 64
"""The last so many are kept: a job that waits for space goes through some again and again."""
URGENCIES: dict[Priority, int] = {"blocking": 0, "prefetch": 1}


class Job:
    """One pull, shared by everybody who asked for the same ID from the same store."""

    def __init__(
        self,
        request: PullRequest,
        *,
        now: Callable[[], float],
        position: Callable[[Job], int],
        on_end: Callable[[Job], None],
        job_id: str = "",
    ) -> None:
        self.job_id = job_id or secrets.token_hex(6)
        self.request = request
        self.flight: Flight[PullKey] = Flight(
            [(request.snapshot_id, request.store)], on_end=lambda _flight: self._end(on_end)
        )
        self.crowded = False
        self.waits_for_space = request.wait_for_space
        self._position = position
        self._now = now
        self._state: JobState = "queued"
        self._priority: Priority = request.priority
        self._created_at = now()
        self.steps = deque([Step("queued", self._created_at)], maxlen=STEPS_MAX)
        self._started_at: float | None = None
        self._ended_at: float | None = None
        self._plan: PullPlan | None = None
        self._gathering: Gathering | None = None
        self._tree = ""
        self._speed = Speed()
        self.retries = 0
        """How often a request that this job made was asked again."""

    def urgency(self) -> int:
        """Tell how urgent the job is; it becomes more so when a blocking caller attaches."""
        return URGENCIES[self._priority]

    def join_in(self, request: PullRequest) -> None:
        """Take note of what another caller asks for: haste, and patience if space is short."""
        if URGENCIES[request.priority] < URGENCIES[self._priority]:
            self._priority = request.priority
        self.waits_for_space = self.waits_for_space or request.wait_for_space

    @property
    def error(self) -> SnapsyncError | None:
        """What ended the job, if it did not end well."""
        return next(iter(self.flight.failures.values()), None)

    @property
    def under_way(self) -> bool:
        """Tell whether it works, so that it should get further all the time."""
        return self._state in UNDER_WAY

    @property
    def waits_for_space_now(self) -> bool:
        """Tell whether it holds no place because the cache has no room for it."""
        return self._state == "waiting_for_space"

    def view(self) -> JobView:
        """Show the job as it stands now."""
        plan, gathering = self._plan, self._gathering
        bytes_fetched = gathering.bytes_done if gathering else 0
        rate = self._speed.per_second(bytes_fetched)
        error = self.error
        view = JobView(
            job_id=self.job_id,
            snapshot_id=self.request.snapshot_id,
            store=self.request.store,
            state=self._state,
            priority=self._priority,
            queue_position=self._position(self) if self._state == "queued" else 0,
            waiters=self.flight.waiters,
            bytes_fetched=bytes_fetched,
            objects_fetched=gathering.objects_done if gathering else 0,
            bytes_per_second=rate,
            retries=self.retries,
            created_at=self._created_at,
            started_at=self._started_at,
            ended_at=self._ended_at,
            tree=self._tree,
            error=error.to_json() if error else None,
        )
        if plan is None:
            return view
        eta_seconds = seconds_left(plan.bytes_to_fetch, bytes_fetched, rate)
        return view.with_changes(
            objects_total=plan.objects_total,
            objects_cached=plan.objects_cached,
            bytes_total=plan.bytes_total,
            bytes_cached=plan.bytes_cached,
            eta_seconds=eta_seconds if self._state == "fetching" else None,
        )

    @asynccontextmanager
    async def attached(self) -> AsyncIterator[Job]:
        """Wait for the job as long as the block lasts; it ends with its last waiter."""
        ticket = self.flight.join()
        try:
            yield self
        finally:
            ticket.leave()

    async def wait(self) -> JobView:
        """Return the final view; raises the error that ended the job."""
        await self.flight.ended.wait()
        if (error := self.error) is not None:
            raise error
        return self.view()

    async def changes(self, interval_seconds: float) -> AsyncIterator[JobView]:
        """Show the job at once, at most every `interval_seconds`, and when it has ended.

        A slow reader misses views in between, never the last one; nothing is buffered for it.
        """
        while not self.flight.ended.is_set():
            yield self.view()
            with anyio.move_on_after(interval_seconds):
                await self.flight.ended.wait()
        yield self.view()

    def enter(self, state: JobState) -> None:
        """Take note of the step that begins."""
        self._state = state
        if self.steps[-1].state != state:
            self.steps.append(Step(state, self._now()))
        if self._started_at is None and state != "queued":
            self._started_at = self._now()

    def planned(self, plan: PullPlan, gathering: Gathering | None) -> None:
        """Take note of what is to be done and of who does it."""
        self._plan = plan
        self._gathering = gathering

    def finished(self, tree: str) -> None:
        """Take note of the tree that is there now."""
        self._tree = tree

    def _end(self, on_end: Callable[[Job], None]) -> None:
        self._ended_at = self._now()
        error = self.error
        if error is None:
            self._state = "done"
        else:
            stopped = isinstance(error, JobCancelled | DaemonStopping)
            self._state = "cancelled" if stopped else "failed"
        on_end(self)


class Speed:
    """Bytes a second over the last seconds, from what a growing count was at a few moments."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque([(clock(), 0)], maxlen=16)

    def per_second(self, count: int) -> float:
        """Take note of the count now, and tell how fast it grew.

        Who asks seldom is told of all the time since the last question, however long that is.
        """
        moment, samples = self._clock(), self._samples
        if moment - samples[-1][0] >= SPEED_WINDOW_SECONDS / 16:
            samples.append((moment, count))
        while len(samples) > 1 and moment - samples[1][0] >= SPEED_WINDOW_SECONDS:
            samples.popleft()
        since, earlier = samples[0]
        return max(0.0, (count - earlier) / (moment - since)) if moment > since else 0.0


class RetriesOfJobs(Observer):
    """Counts with each job how often its requests were asked again."""

    def __init__(self, find: Callable[[str], Job]) -> None:
        self._find = find

    def on_retry(self, operation: str, reason: str) -> None:
        """See `Observer`."""
        del operation, reason
        if job_id := current_job_id():
            with suppress(JobNotFound):
                self._find(job_id).retries += 1
