"""All pulls of a node: one job an ID and store, so many at a time, the urgent first."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
from anyio import to_thread

from snapd.actions.admit import Admission
from snapd.actions.fetch import LARGE_OBJECTS_IN_FLIGHT, Fetcher
from snapd.actions.foretell import complete_view, foretell
from snapd.actions.jobs import Job, PullKey
from snapd.actions.pull import Workshop, bring
from snapd.actions.sweep import Sweeper
from snapd.disk.cache import Cache
from snapd.model.errors import CacheFull, DaemonStopping, JobNotFound, QueueFull, SnapsyncError
from snapd.model.ids import SnapshotId
from snapd.model.jobs import JobView, PullRequest, SnapshotView
from snapd.model.plan import PullPlan
from snapd.model.settings import Settings
from snapd.model.space import PlanView
from snapd.model.units import format_size
from snapd.remote.stores import Stores
from snapd.runtime.background import background_tasks
from snapd.runtime.flight import Flights, Ticket
from snapd.runtime.limits import Budget
from snapd.runtime.log import job_context
from snapd.runtime.observer import Observer

logger = logging.getLogger(__name__)

LOCK_POLL_SECONDS = 0.2


class Pulls:
    """All pulls of a node: running, queued and the recent ones that ended."""

    def __init__(self, settings: Settings, workshop: Workshop, flights: Flights[PullKey]) -> None:
        self._workshop = workshop
        self._flights = flights
        self._running: dict[PullKey, Job] = {}
        self._ended: deque[Job] = deque(maxlen=settings.daemon.jobs_remembered)
        self._places = Budget(objects=settings.daemon.pulls_running_max)
        self._running_max = settings.daemon.pulls_running_max
        self._queued_max = settings.daemon.pulls_queued_max
        self._held: set[Ticket[PullKey]] = set()
        self._ordered: set[str] = set()
        self._fulfilled: list[str] = []
        self._stopping = False
        self._ended_one = anyio.Event()

    async def start(self, request: PullRequest, *, detached: bool = False, job_id: str = "") -> Job:
        """Attach to the running pull of the same ID and store, or begin one, by the name `job_id`.

        The caller then enters `Job.attached()`. With `detached` the node itself waits for it, so
        that it goes on when every caller has left, and after a restart too. Raises
        `StoreNotAllowed`, `QueueFull`, `DaemonStopping`.
        """
        try:
            uri = self._workshop.stores.check(request.store)
            if self._stopping:
                raise DaemonStopping("the daemon is stopping and takes no new pulls")
            job = await self._attach(replace(request, store=str(uri)), job_id)
        except SnapsyncError as refusal:
            self._workshop.observer.on_pull_refused(refusal.code)
            raise
        job.join_in(request)
        if detached:
            self._held.add(job.flight.join())
            await self._order(job)
        return job

    async def _attach(self, request: PullRequest, job_id: str) -> Job:
        key = (request.snapshot_id, request.store)
        job = self._running.get(key)
        while job is not None and job.flight.cancelled:
            await job.flight.ended.wait()
            job = self._running.get(key)
        return job if job is not None else self._begin(request, job_id)

    async def resume(self) -> None:
        """Begin the detached pulls again that a former daemon did not bring to an end."""
        orders = self._workshop.cache.orders
        for job_id, request in (await to_thread.run_sync(orders.all)).items():
            try:
                job = await self.start(request, detached=True, job_id=job_id)
            except SnapsyncError as error:
                with job_context(job_id):
                    logger.warning(
                        "the pull of %s is given up: %s", request.snapshot_id, error.message
                    )
                await to_thread.run_sync(orders.forget, job_id)
                continue
            logger.info("resuming the pull of %s", request.snapshot_id, extra={"job_id": job_id})
            if job.job_id != job_id:
                await to_thread.run_sync(orders.forget, job_id)

    async def _order(self, job: Job) -> None:
        """Write down that the node wants this pull; without that it ends with this daemon."""
        orders = self._workshop.cache.orders
        try:
            await to_thread.run_sync(orders.keep, job.job_id, job.request)
            if job.flight.ended.is_set():
                await to_thread.run_sync(orders.forget, job.job_id)
            else:
                self._ordered.add(job.job_id)
        except SnapsyncError as error:
            with job_context(job.job_id):
                logger.warning("a detached pull will not outlive the daemon: %s", error.message)

    def _begin(self, request: PullRequest, job_id: str) -> Job:
        if self.running_count >= self._running_max and self.queued_count >= self._queued_max:
            raise QueueFull(f"{self._places.waiting} pulls are waiting already")
        job = Job(
            request,
            now=self._workshop.now,
            position=self._position,
            on_end=self._job_ended,
            job_id=job_id,
        )
        if self._running:
            for other in (job, *self._running.values()):
                other.crowded = True
        self._running[(request.snapshot_id, request.store)] = job
        self._flights.launch(job.flight, lambda: self._run(job))
        return job

    def get(self, job_id: str) -> Job:
        """Find a job that runs, waits or ended lately; raises `JobNotFound`."""
        for job in (*self._running.values(), *self._ended):
            if job.job_id == job_id:
                return job
        raise JobNotFound(f"no job {job_id!r}")

    def jobs(self) -> list[JobView]:
        """List the running and the waiting jobs, then the ended ones, newest first."""
        return [job.view() for job in (*self._running.values(), *reversed(self._ended))]

    def under_way(self) -> list[JobView]:
        """List the jobs that work."""
        return [job.view() for job in self._running.values() if job.under_way]

    @property
    def waiting_count(self) -> int:
        """How many jobs wait for space, holding no place."""
        return sum(job.waits_for_space_now for job in self._running.values())

    @property
    def running_count(self) -> int:
        """How many jobs have a place now."""
        return self._places.objects_in_flight

    @property
    def queued_count(self) -> int:
        """How many jobs wait for a place."""
        return self._places.waiting

    @property
    def transfers(self) -> Budget:
        """What is in flight, over all jobs."""
        return self._workshop.fetcher.budget

    @property
    def workshop(self) -> Workshop:
        """What pulls share, for whatever else fetches."""
        return self._workshop

    @property
    def admission(self) -> Admission:
        """Who may write how much, and what is swept."""
        return self._workshop.admission

    def _position(self, job: Job) -> int:
        """Tell the job's place in the queue, from 1; 0 if it does not wait."""
        return self._places.position(job.urgency)

    def resize(self, *, running_max: int, queued_max: int) -> None:
        """Change how many pulls may run and wait."""
        self._places.resize(objects=running_max)
        self._running_max = running_max
        self._queued_max = queued_max

    def cancel(self, job_id: str) -> Job:
        """End a job for everybody who waits for it; a job that has ended stays as it is."""
        job = self.get(job_id)
        job.flight.cancel()
        return job

    def _job_ended(self, job: Job) -> None:
        del self._running[(job.request.snapshot_id, job.request.store)]
        self._ended.append(job)
        if job.job_id in self._ordered and not isinstance(job.error, DaemonStopping):
            self._fulfilled.append(job.job_id)
        self._ordered.discard(job.job_id)
        self._held = {ticket for ticket in self._held if ticket.flight is not job.flight}
        self._ended_one.set()
        view = job.view()
        seconds = (view.ended_at or 0.0) - view.created_at
        self._workshop.observer.on_pull_ended(view, list(job.steps))
        if isinstance(job.error, CacheFull):
            self._workshop.observer.on_pull_refused(job.error.details["limit"])
        with job_context(job.job_id):
            _log_end(view, seconds)

    async def keep_settling(self) -> None:
        """Write down, after each pull, how its blobs look with their new links, for ever.

        Orders that are fulfilled are struck.
        """
        while True:
            await self._ended_one.wait()
            self._ended_one = anyio.Event()
            fulfilled, self._fulfilled = self._fulfilled, []
            try:
                await to_thread.run_sync(self._strike, fulfilled)
                await to_thread.run_sync(self._workshop.cache.trust.settle_all)
            except SnapsyncError as error:
                logger.warning("can't renew records: %s", error.message)

    def _strike(self, job_ids: Sequence[str]) -> None:
        for job_id in job_ids:
            self._workshop.cache.orders.forget(job_id)

    async def drain(self, grace_seconds: float) -> None:
        """Take no new pulls, let the running ones end within the time, then cancel the rest.

        Those fail with `DaemonStopping`, which tells their callers to ask the next daemon.
        """
        self._stopping = True
        with anyio.move_on_after(grace_seconds):
            for job in list(self._running.values()):
                await job.flight.ended.wait()
        for job in list(self._running.values()):
            job.flight.cancel(
                DaemonStopping(
                    "the daemon stopped before the pull ended",
                    hint="Run the same command again: what is verified is kept and not repeated.",
                )
            )
        for job in list(self._running.values()):
            await job.flight.ended.wait()

    async def _run(self, job: Job) -> None:
        with job_context(job.job_id):
            if await self._already_complete(job):
                return
            while not await self._try(job):
                job.enter("waiting_for_space")
                await self._workshop.admission.wait_for_change()

    async def _try(self, job: Job) -> bool:
        """Pull; False if there is no room now and the job waits for it, holding no place."""
        snapshot_id = job.request.snapshot_id
        async with self._places.hold(urgency=job.urgency), self._alone(snapshot_id):
            if await self._already_complete(job):
                return True
            async with self._workshop.stores.use(job.request.store) as store:
                try:
                    await bring(job, store, self._workshop)
                except CacheFull as refusal:
                    if not job.waits_for_space or refusal.details["hopeless"]:
                        raise
                    return False
        return True

    async def _already_complete(self, job: Job) -> bool:
        """Answer from the cache alone: a complete snapshot needs no store."""
        found = await to_thread.run_sync(self._give_out, job.request.snapshot_id)
        if found is None:
            return False
        job.planned(PullPlan.complete(objects=found.objects, size_bytes=found.size_bytes), None)
        job.finished(found.tree)
        self._workshop.observer.on_objects("cache", found.objects, found.size_bytes)
        return True

    def _give_out(self, snapshot_id: SnapshotId) -> SnapshotView | None:
        """Find a complete snapshot and note that it is used, so that it is not evicted meanwhile.

        Blocking.
        """
        cache = self._workshop.cache
        with cache.giving_lock():
            found = cache.complete(snapshot_id)
            if found is not None:
                cache.index.touch(snapshot_id, self._workshop.now())
        return found

    async def foretell(self, request: PullRequest) -> PlanView:
        """Tell what a pull would fetch and evict; changes nothing.

        Raises what a pull would raise before its plan is made, but never `CacheFull`.
        """
        uri = self._workshop.stores.check(request.store)
        cache = self._workshop.cache
        found = await to_thread.run_sync(cache.complete, request.snapshot_id)
        if found is not None:
            return complete_view(found, str(uri))
        async with self._workshop.stores.use(str(uri)) as store:
            return await foretell(request.snapshot_id, store, self._workshop)

    @asynccontextmanager
    async def _alone(self, snapshot_id: SnapshotId) -> AsyncIterator[None]:
        """Keep other processes on this cache from pulling the same snapshot meanwhile."""
        lock = self._workshop.cache.snapshot_lock(snapshot_id)
        while not await to_thread.run_sync(lock.try_acquire):  # noqa: ASYNC110 - flock has no event
            await anyio.sleep(LOCK_POLL_SECONDS)
        try:
            yield
        finally:
            lock.release()


def _log_end(view: JobView, seconds: float) -> None:
    if view.error is not None:
        logger.warning(
            "pull of %s from %s %s after %.1f s: %s",
            view.snapshot_id,
            view.store,
            view.state,
            seconds,
            view.error["message"],
        )
        return
    logger.info(
        "pull of %s from %s done in %.1f s: %d objects (%s) fetched, %d (%s) cached",
        view.snapshot_id,
        view.store,
        seconds,
        view.objects_fetched,
        format_size(view.bytes_fetched),
        view.objects_cached,
        format_size(view.bytes_cached),
    )


@asynccontextmanager
async def open_pulls(
    settings: Settings,
    cache: Cache,
    stores: Stores,
    observer: Observer,
    now: Callable[[], float],
) -> AsyncIterator[Pulls]:
    """Keep pulls for the length of the block; leaving it cancels those that still run."""
    transfer = settings.transfer
    fetcher = Fetcher.of(cache.blobs, transfer, observer)
    sweeper = Sweeper(cache, settings.cache, observer=observer, now=now)
    async with background_tasks() as task_group:
        workshop = Workshop(
            cache=cache,
            stores=stores,
            fetcher=fetcher,
            blob_flights=Flights(task_group),
            large_lanes=Budget(objects=LARGE_OBJECTS_IN_FLIGHT),
            observer=observer,
            admission=Admission(cache, sweeper, task_group),
            now=now,
        )
        pulls = Pulls(settings, workshop, Flights(task_group))
        task_group.start_soon(pulls.keep_settling)
        try:
            yield pulls
        finally:
            sweeper.stop()
