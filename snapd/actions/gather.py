"""One pull's way through its plan: join the flights that run, launch those that are missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import anyio
from anyio import to_thread

from snapd.actions.fetch import Fetcher
from snapd.model.errors import JobCancelled, ObjectLost, SnapsyncError
from snapd.model.ids import Digest
from snapd.model.plan import ObjectRef, PullPlan
from snapd.remote.base import RemoteStore
from snapd.runtime.flight import Flight, Flights, Ticket
from snapd.runtime.limits import Budget, Reservation, Urgency
from snapd.runtime.observer import ObjectSource


class BlobFlight(Flight[Digest]):
    """The running fetch of a batch of small objects, or of one large one."""

    def __init__(self, refs: Iterable[ObjectRef], store: RemoteStore, urgency: Urgency) -> None:
        self.refs = {ref.digest: ref for ref in refs}
        super().__init__(self.refs)
        self.store = store
        self.bytes_arrived = 0
        self._urgencies = [urgency]

    def urgency(self) -> int:
        """Tell how urgent it is: as urgent as the most urgent pull that waits for it."""
        return min(urgency() for urgency in self._urgencies)

    def hurry(self, urgency: Urgency) -> None:
        """Take another pull's urgency into account."""
        self._urgencies.append(urgency)

    def count(self, more_bytes: int) -> None:
        """Take note of bytes that arrived before the whole is there."""
        self.bytes_arrived += more_bytes


class Gathering:
    """Brings every object of one plan into the cache.

    The first failure ends it: what is verified stays, flights of its own that nobody else waits for
    are cancelled. `objects_done` and `bytes_done` count what has arrived, by whomever; the observer
    is told at once of what came with flights of its own and with those of other pulls.
    """

    def __init__(
        self,
        plan: PullPlan,
        store: RemoteStore,
        fetcher: Fetcher,
        flights: Flights[Digest],
        lanes: Budget,
        *,
        urgency: Urgency,
        crowded: Callable[[], bool],
    ) -> None:
        self._plan = plan
        self._store = store
        self._fetcher = fetcher
        self._flights = flights
        self._lanes = lanes
        self._urgency = urgency
        self._crowded = crowded
        self._tickets: dict[BlobFlight, Ticket[Digest]] = {}
        self._mine: set[BlobFlight] = set()
        self._wanted: dict[BlobFlight, list[ObjectRef]] = {}
        self._again: list[ObjectRef] = []
        self._other_mode: list[ObjectRef] = []
        self._failure: SnapsyncError | None = None
        self._launching = anyio.CancelScope()
        self._progressed = anyio.Event()
        self._objects_done = 0
        self._bytes_done = 0

    @property
    def objects_done(self) -> int:
        """How many objects of the plan have arrived."""
        return self._objects_done

    @property
    def bytes_done(self) -> int:
        """How many bytes of the plan have arrived, of unfinished large objects as well."""
        return self._bytes_done + sum(flight.bytes_arrived for flight in self._tickets)

    async def run(self) -> None:
        """Return when everything of the plan is in the cache under its modes.

        Raises the first failure. Cancelled or failed, no flight of this pull's own goes on.
        """
        settings = self._fetcher.settings
        small = self._plan.small_batches(settings.batch_objects, settings.batch_bytes)
        large = self._plan.large_objects()
        try:
            await self._pass(small, large)
            while self._again:
                again, self._again = self._again, []
                threshold = settings.large_object_bytes
                await self._pass(
                    ([ref] for ref in again if ref.size_bytes < threshold),
                    (ref for ref in again if ref.size_bytes >= threshold),
                )
        finally:
            for ticket in list(self._tickets.values()):
                ticket.leave()
            self._tickets.clear()
        await to_thread.run_sync(self._settle_modes)

    async def _pass(self, small: Iterable[list[ObjectRef]], large: Iterable[ObjectRef]) -> None:
        async with anyio.create_task_group() as launchers:
            self._launching = launchers.cancel_scope
            launchers.start_soon(self._launch_small, small)
            launchers.start_soon(self._launch_large, large)
        while self._tickets and self._failure is None:
            self._progressed = anyio.Event()
            await self._progressed.wait()
        if self._failure is not None:
            raise self._failure

    async def _launch_small(self, batches: Iterable[list[ObjectRef]]) -> None:
        for batch in batches:
            reservation = await self._fetcher.admit(
                objects=len(batch),
                size_bytes=sum(ref.size_bytes for ref in batch),
                urgency=self._urgency,
            )
            mine = [ref for ref in batch if not self._join_running(ref)]
            if mine:
                flight = BlobFlight(mine, self._store, self._urgency)
                self._mine.add(flight)
                self._board(flight, mine)
                work = partial(self._fly_small, flight, mine, reservation)
                self._flights.launch(flight, work)
            else:
                reservation.release()

    async def _launch_large(self, refs: Iterable[ObjectRef]) -> None:
        for ref in refs:
            lane = await self._lanes.acquire(urgency=self._urgency)
            if self._join_running(ref):
                lane.release()
            else:
                flight = BlobFlight([ref], self._store, self._urgency)
                self._mine.add(flight)
                self._board(flight, [ref])
                work = partial(self._fly_large, flight, ref, lane)
                self._flights.launch(flight, work)

    def _join_running(self, ref: ObjectRef) -> bool:
        flight = self._flights.running(ref.digest)
        if not isinstance(flight, BlobFlight):
            return False
        flight.hurry(self._urgency)
        self._board(flight, [ref])
        if flight.refs[ref.digest].mode != ref.mode:
            self._other_mode.append(ref)
        return True

    def _board(self, flight: BlobFlight, refs: list[ObjectRef]) -> None:
        self._wanted.setdefault(flight, []).extend(refs)
        if flight not in self._tickets:
            self._tickets[flight] = flight.join(partial(self._landed, flight))

    def _landed(self, flight: BlobFlight, _flight: Flight[Digest]) -> None:
        """Take note of a flight that ended; called on the event loop."""
        self._tickets.pop(flight, None)
        objects = size_bytes = 0
        for ref in self._wanted.pop(flight):
            error = flight.failures.get(ref.digest)
            if error is None:
                objects += 1
                size_bytes += ref.size_bytes
            elif flight.store is not self._store or isinstance(error, JobCancelled):
                self._again.append(ref)
            else:
                self._failure = self._failure or error
                self._launching.cancel()
        self._count(objects, size_bytes, mine=flight in self._mine)
        self._mine.discard(flight)
        self._progressed.set()

    def _count(self, objects: int, size_bytes: int, *, mine: bool) -> None:
        self._objects_done += objects
        self._bytes_done += size_bytes
        if objects:
            source: ObjectSource = "store" if mine else "shared"
            self._fetcher.observer.on_objects(source, objects, size_bytes)

    async def _fly_small(
        self, flight: BlobFlight, refs: list[ObjectRef], reservation: Reservation
    ) -> None:
        try:
            if self._crowded():
                refs = await to_thread.run_sync(self._still_missing, refs)
            if refs:
                await self._fetcher.fetch_small(self._store, refs, flight)
        finally:
            reservation.release()

    async def _fly_large(self, flight: BlobFlight, ref: ObjectRef, lane: Reservation) -> None:
        try:
            refs = [ref]
            if self._crowded():
                refs = await to_thread.run_sync(self._still_missing, refs)
            if refs:
                await self._fetcher.fetch_large(self._store, ref, flight.urgency, flight.count)
        finally:
            lane.release()

    def _still_missing(self, refs: list[ObjectRef]) -> list[ObjectRef]:
        """Look once more: between plan and flight another pull may have brought an object."""
        blobs = self._fetcher.blobs
        missing = [ref for ref, there in zip(refs, blobs.present(refs), strict=True) if not there]
        elsewhere = blobs.other_mode([ref.digest for ref in missing])
        self._other_mode += [ref for ref in missing if ref.digest in elsewhere]
        return [ref for ref in missing if ref.digest not in elsewhere]

    def _settle_modes(self) -> None:
        """Give objects that lie in the cache under another mode the modes that this plan wants."""
        blobs = self._fetcher.blobs
        for ref in self._refs_to_derive():
            if blobs.has(ref.digest, ref.mode):
                continue
            from_mode = blobs.any_mode(ref.digest)
            if from_mode is None:
                raise ObjectLost(f"the cache has lost object {ref.digest} ({ref.path})")
            blobs.derive(ref.digest, from_mode=from_mode, to_mode=ref.mode)

    def _refs_to_derive(self) -> Iterator[ObjectRef]:
        yield from self._plan.derived()
        yield from self._other_mode
