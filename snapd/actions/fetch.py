"""Bring missing objects from a store into the cache: one flight an object, bounded, verified."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import anyio
from anyio import to_thread

from snapd.disk.blobs import Blobs, BlobWriter, LargeBlobWriter
from snapd.model.errors import DigestMismatch, KeyMissing, ObjectMissing, SnapsyncError
from snapd.model.ids import Digest
from snapd.model.layout import object_key
from snapd.model.plan import ObjectRef
from snapd.model.settings import TransferSettings
from snapd.remote.base import ByteRange, Get, GetOutcome, RemoteStore
from snapd.runtime.flight import Flight
from snapd.runtime.limits import BURST_SECONDS, Budget, Rate, Reservation, Urgency
from snapd.runtime.observer import Observer

VERIFICATION_TRIES = 2
"""Wrong bytes are fetched this often before the store's copy counts as damaged."""

LARGE_OBJECTS_IN_FLIGHT = 8
"""Large objects fetched at the same time on a node."""

RANGES_WANTED = 16
"""Parallel ranges that large objects share: each gets fewer, the more of them there are.

Of one object only the first is hashed as it comes; of the others the bytes are read back.
"""

RANGES_PER_OBJECT = range(2, 9)
"""How few and how many it may get: two, so that one goes on while the next is asked for."""


RATED_BYTES_MIN = 64 * 1024
"""The shortest range that a limited rate leads to: shorter ones are mostly overhead."""


@dataclass(slots=True)
class Crowd:
    """The large objects that are being fetched."""

    objects: int = 0

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Count one more for the length of the block."""
        self.objects += 1
        try:
            yield
        finally:
            self.objects -= 1

    @property
    def ranges_each(self) -> int:
        """How many parallel ranges each of them should have now."""
        share = RANGES_WANTED // max(1, self.objects)
        return min(max(share, RANGES_PER_OBJECT[0]), RANGES_PER_OBJECT[-1])


@dataclass(frozen=True, slots=True)
class Fetcher:
    """What every fetch needs: where bytes go, what may be in flight, who watches."""

    blobs: Blobs
    budget: Budget
    settings: TransferSettings
    observer: Observer
    requests: Rate
    bytes: Rate
    crowd: Crowd = field(default_factory=Crowd)

    @classmethod
    def of(cls, blobs: Blobs, settings: TransferSettings, observer: Observer) -> Fetcher:
        """Make one with the bounds that the settings name, which then fit each other."""
        budget = Budget(objects=settings.objects_in_flight, size_bytes=settings.bytes_in_flight)
        requests, size_bytes = Rate(settings.requests_per_second), Rate(settings.bytes_per_second)
        return cls(blobs, budget, within_rates(settings), observer, requests, size_bytes)

    async def admit(self, *, objects: int, size_bytes: int, urgency: Urgency) -> Reservation:
        """Wait until so much may be asked for, and take a place in the budget for it.

        Cancelled while waiting, nothing is held.
        """
        reservation = await self.budget.acquire(
            objects=objects, size_bytes=size_bytes, urgency=urgency
        )
        try:
            await self.requests.take(objects)
            await self.bytes.take(size_bytes)
        except BaseException:
            reservation.release()
            raise
        return reservation

    async def fetch_small(
        self, store: RemoteStore, refs: Sequence[ObjectRef], flight: Flight[Digest]
    ) -> None:
        """Fetch a batch of small objects; failures go to the flight, by digest.

        Whatever happens, no temporary file stays. Wrong bytes are in the quarantine, and are asked
        for once more before they count.
        """
        left = list(refs)
        for attempt in range(VERIFICATION_TRIES):
            failed = await self._fetch_batch(store, left)
            wrong = [ref for ref, error in failed if isinstance(error, DigestMismatch)]
            for _ in wrong:
                self.observer.on_verification_failure()
            last = attempt == VERIFICATION_TRIES - 1
            for ref, error in failed:
                if last or not isinstance(error, DigestMismatch):
                    flight.failures[ref.digest] = as_object_error(error, ref, store)
            left = wrong
            if not left:
                return

    async def _fetch_batch(
        self, store: RemoteStore, refs: Sequence[ObjectRef]
    ) -> list[tuple[ObjectRef, SnapsyncError]]:
        writers = [self.blobs.writer(ref, source=str(store.uri)) for ref in refs]
        gets = [
            Get(object_key(ref.digest), writer, None, ref.size_bytes, writer)
            for ref, writer in zip(refs, writers, strict=True)
        ]
        outcomes: list[GetOutcome] = []
        try:
            outcomes = await store.get_batch(gets)
        finally:
            unfinished = [
                writer
                for index, writer in enumerate(writers)
                if not outcomes or isinstance(outcomes[index], SnapsyncError)
            ]
            await _discard(unfinished)
        failed = []
        arrived = []
        for ref, outcome in zip(refs, outcomes, strict=True):
            if isinstance(outcome, SnapsyncError):
                failed.append((ref, outcome))
            elif outcome.facts is not None:
                arrived.append((ref, outcome.facts))
        if self.blobs.note_verified(arrived):
            await to_thread.run_sync(self.blobs.write_notes)
        return failed

    async def fetch_large(
        self,
        store: RemoteStore,
        ref: ObjectRef,
        urgency: Urgency,
        on_bytes: Callable[[int], None],
    ) -> None:
        """Fetch one large object by parallel ranges.

        `on_bytes` is told how many more bytes have arrived (a negative number takes back what a
        failed try had counted), from whichever thread they arrive in, by one at a time. Raises
        `ObjectMissing`, `DigestMismatch` or the store's error; the object is then not in the cache,
        and no temporary file stays.
        """
        for tries_left in reversed(range(VERIFICATION_TRIES)):
            size_bytes = await self._size_of(store, ref)
            try:
                await self._fetch_large_once(store, ref, size_bytes, urgency, on_bytes)
            except DigestMismatch:
                self.observer.on_verification_failure()
                on_bytes(-size_bytes)
                if not tries_left:
                    raise
            else:
                return

    async def _fetch_large_once(
        self,
        store: RemoteStore,
        ref: ObjectRef,
        size_bytes: int,
        urgency: Urgency,
        on_bytes: Callable[[int], None],
    ) -> None:
        writer = self.blobs.large_writer(ref, size_bytes, on_bytes, source=str(store.uri))
        try:
            await self._fetch_ranges(store, ref, writer, size_bytes, urgency)
            await to_thread.run_sync(writer.finish)
        finally:
            await _discard([writer])

    async def _size_of(self, store: RemoteStore, ref: ObjectRef) -> int:
        """Ask the store: the manifest's size column may be the length of a link's text."""
        (outcome,) = await store.head_batch([object_key(ref.digest)])
        if outcome is None:
            raise as_object_error(KeyMissing("absent"), ref, store)
        if isinstance(outcome, SnapsyncError):
            raise outcome
        return outcome.size_bytes

    async def _fetch_ranges(
        self,
        store: RemoteStore,
        ref: ObjectRef,
        writer: LargeBlobWriter,
        size_bytes: int,
        urgency: Urgency,
    ) -> None:
        """Fetch all ranges, a few lanes side by side, each range with a place in the budget.

        There are as many lanes as the crowd allows, which may change with every range.
        """
        parts = iter(_ranges(size_bytes, self.settings.range_bytes))
        failures: list[SnapsyncError] = []
        running = 0

        def start_lanes() -> None:
            nonlocal running
            while running < self.crowd.ranges_each:
                running += 1
                lanes.start_soon(run_lane)

        async def run_lane() -> None:
            nonlocal running
            for part in parts:
                sink = writer.part(part.offset, part.length)
                get = Get(object_key(ref.digest), sink, part, part.length)
                reservation = await self.admit(objects=1, size_bytes=part.length, urgency=urgency)
                try:
                    (outcome,) = await store.get_batch([get])
                finally:
                    reservation.release()
                if isinstance(outcome, SnapsyncError):
                    failures.append(as_object_error(outcome, ref, store))
                    lanes.cancel_scope.cancel()
                    return
                if running > self.crowd.ranges_each:
                    running -= 1
                    return
                start_lanes()

        with self.crowd.joined():
            async with anyio.create_task_group() as lanes:
                start_lanes()
        if failures:
            raise failures[0]


def within_rates(settings: TransferSettings) -> TransferSettings:
    """Make batches and ranges so small that a rate is kept within a fraction of a second."""
    changes: dict[str, int] = {}
    if settings.requests_per_second:
        each = max(1, int(settings.requests_per_second * BURST_SECONDS))
        changes["batch_objects"] = min(settings.batch_objects, each)
    if settings.bytes_per_second:
        each = max(RATED_BYTES_MIN, int(settings.bytes_per_second * BURST_SECONDS))
        changes["batch_bytes"] = min(settings.batch_bytes, each)
        changes["range_bytes"] = min(settings.range_bytes, each)
    return replace(settings, **changes)


def _ranges(size_bytes: int, step_bytes: int) -> Iterable[ByteRange]:
    for offset in range(0, size_bytes, step_bytes):
        yield ByteRange(offset, min(step_bytes, size_bytes - offset))


def as_object_error(error: SnapsyncError, ref: ObjectRef, store: RemoteStore) -> SnapsyncError:
    """Say an absent key in the words of a snapshot: which object, of which path."""
    if not isinstance(error, KeyMissing):
        return error
    return ObjectMissing(
        f"{store.uri} lacks object {ref.digest} of {ref.path}",
        object=ref.digest,
        path=ref.path,
        store=str(store.uri),
    )


async def _discard(writers: Sequence[BlobWriter | LargeBlobWriter]) -> None:
    """Give up writers for good, also while being cancelled."""
    if not writers:
        return

    def discard_all() -> None:
        for writer in writers:
            writer.discard()

    with anyio.CancelScope(shield=True):
        await to_thread.run_sync(discard_all)
