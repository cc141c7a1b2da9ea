"""Make space in the cache: look, decide, take trees away, then remove blobs nobody needs.

Whatever kills it between two steps, a kept snapshot lacks nothing: a tree goes in one step and
holds its own links until then, and a blob is removed only if nothing links to it. What such a
death leaves behind is found by the next opening of the cache or by the next sweep.
"""

from __future__ import annotations

import logging
import threading
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from snapd.disk.cache import Cache
from snapd.disk.clearing import Cleared, clear
from snapd.disk.usage import Accountant, Usage, take_census
from snapd.model.errors import SnapshotInUse, SnapshotNotFound
from snapd.model.eviction import Candidate, Census, Decision, Verdict, decide, links_in
from snapd.model.ids import SnapshotId
from snapd.model.jobs import SnapshotView
from snapd.model.leases import Lease, time_lease
from snapd.model.settings import CacheSettings
from snapd.model.space import SweepReport
from snapd.model.units import format_size
from snapd.runtime.observer import EvictionCause, Observer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Survey:
    """What the cache holds at one moment."""

    census: Census
    usage: Usage
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Swept:
    """What became of a decision."""

    evicted: tuple[Verdict, ...] = ()
    freed_bytes: int = 0
    cleared: Cleared = field(default_factory=Cleared)


class Sweeper:
    """Makes space in one cache. Every call blocks; one sweep runs at a time."""

    def __init__(
        self,
        cache: Cache,
        settings: CacheSettings,
        *,
        observer: Observer,
        now: Callable[[], float],
    ) -> None:
        self.settings = settings
        self._cache = cache
        self._observer = observer
        self._now = now
        self._accountant = Accountant(cache.root)
        self._one_at_a_time = threading.Lock()
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Let what runs end soon; whatever it leaves is for the next sweep."""
        self._stopping.set()

    def look(self) -> Survey:
        """Count everything; a million blobs take seconds."""
        census = take_census(self._cache.root)
        usage = self._accountant.count(census)
        held = self._cache.leases.held()
        views = self._cache.index.snapshots()
        return Survey(census, usage, tuple(self._candidate(view, held) for view in views))

    def decide(self, survey: Survey, needed_bytes: int) -> Decision:
        """Choose what would have to go; changes nothing."""
        return decide(
            survey.candidates,
            needed_bytes=needed_bytes,
            census=survey.census,
            links_of=self._links_of,
            is_wanted=self._cache.reliance.is_wanted,
            orphans_before=self._now() - self.settings.orphan_seconds,
        )

    def perform(self, decision: Decision, cause: EvictionCause) -> Swept:
        """Evict what was decided, except what has got a holder since, and remove its blobs."""
        with self._one_at_a_time:
            evicted: list[Verdict] = []
            keys = set(decision.orphans)
            own_bytes = 0
            for verdict in decision.evict:
                if self._stopping.is_set():
                    break
                snapshot_id = SnapshotId(verdict.snapshot_id)
                held_bytes = self._accountant.own_bytes(snapshot_id)
                links = self._take_away(snapshot_id)
                if links is not None:
                    evicted.append(verdict)
                    keys.update(links)
                    own_bytes += held_bytes
            cleared = self._clear(keys)
        freed_bytes = cleared.freed_bytes + own_bytes
        if evicted:
            self._observer.on_evicted(cause, len(evicted), freed_bytes)
        return Swept(tuple(evicted), freed_bytes, cleared)

    def sweep(
        self,
        survey: Survey,
        needed_bytes: int,
        *,
        cause: EvictionCause,
        dryrun: bool = False,
        why: bool = False,
    ) -> SweepReport:
        """Decide, and unless it is a dry run do it; stale manifests go too."""
        decision = self.decide(survey, needed_bytes)
        swept = Swept(decision.evict, decision.freed_bytes)
        if not dryrun:
            swept = self.perform(decision, cause)
            self._remove_stale_manifests()
            _log(swept, decision, cause)
        return SweepReport(
            dryrun=dryrun,
            used_bytes=survey.usage.total_bytes,
            needed_bytes=needed_bytes,
            freed_bytes=swept.freed_bytes,
            evicted=swept.evicted,
            kept=decision.kept if why else (),
            orphan_bytes=decision.orphan_bytes,
            blobs_removed=swept.cleared.blobs,
            blobs_in_use=swept.cleared.in_use,
        )

    def evict(self, snapshot_id: SnapshotId, *, given_out_too: bool = False) -> SweepReport:
        """Evict one snapshot; with `given_out_too` even if its path was given out lately.

        Raises `SnapshotNotFound`, and `SnapshotInUse` naming who holds it.
        """
        view = self._cache.index.find(snapshot_id)
        if view is None or not self._cache.trees.has(snapshot_id):
            raise SnapshotNotFound(
                f"the cache has no snapshot {snapshot_id}",
                hint="`snapctl cache ls` lists what it has.",
                id=snapshot_id,
            )
        with self._one_at_a_time:
            own_bytes = self._accountant.own_bytes(snapshot_id)
            links = self._take_away(snapshot_id, given_out_too=given_out_too)
            if links is None:
                raise self._in_use(snapshot_id, given_out_too=given_out_too)
            cleared = self._clear(set(links))
        freed_bytes = cleared.freed_bytes + own_bytes
        self._observer.on_evicted("request", 1, freed_bytes)
        verdict = Verdict(
            snapshot_id, True, "requested", view.used_at, view.size_bytes, freed_bytes
        )
        return SweepReport(
            dryrun=False,
            used_bytes=0,
            needed_bytes=0,
            freed_bytes=freed_bytes,
            evicted=(verdict,),
            blobs_removed=cleared.blobs,
            blobs_in_use=cleared.in_use,
        )

    def _in_use(self, snapshot_id: SnapshotId, *, given_out_too: bool) -> SnapshotInUse:
        holders = self._holders_of(snapshot_id, given_out_too=given_out_too)
        holders = holders or ("a pull or another sweep works on it",)
        return SnapshotInUse(
            f"snapshot {snapshot_id} is held: {'; '.join(holders)}",
            id=snapshot_id,
            leases=list(holders),
        )

    def _candidate(
        self, view: SnapshotView, held: Mapping[SnapshotId, Sequence[Lease]]
    ) -> Candidate:
        snapshot_id = SnapshotId(view.snapshot_id)
        leases = (*held.get(snapshot_id, ()), *self._time_lease(view))
        return Candidate(
            snapshot_id=snapshot_id,
            used_at=view.used_at,
            size_bytes=view.size_bytes,
            leases=tuple(lease.describe() for lease in leases),
            own_bytes=self._accountant.own_bytes(snapshot_id),
        )

    def _time_lease(self, view: SnapshotView) -> tuple[Lease, ...]:
        seconds = self.settings.lease_seconds
        lease = time_lease(view, lease_seconds=seconds, now=self._now())
        return () if lease is None else (lease,)

    def _holders_of(
        self, snapshot_id: SnapshotId, *, given_out_too: bool = False
    ) -> tuple[str, ...]:
        view = self._cache.index.find(snapshot_id)
        given_out = () if view is None or given_out_too else self._time_lease(view)
        leases = (*self._cache.leases.holding(snapshot_id), *given_out)
        return tuple(lease.describe() for lease in leases)

    def _links_of(self, snapshot_id: SnapshotId) -> array[int]:
        text = self._cache.manifests.load(snapshot_id)
        return array("Q") if text is None else links_in(text)

    def _take_away(
        self, snapshot_id: SnapshotId, *, given_out_too: bool = False
    ) -> array[int] | None:
        """Take a snapshot out of the cache that nobody holds; None if it has to stay.

        Returns the keys of its blobs, which may be unlinked then. Tree, row, receipt, manifest: the
        order in which the opening of a cache can finish what a crash interrupted.
        """
        cache = self._cache
        lock = cache.snapshot_lock(snapshot_id)
        if not lock.try_acquire():
            return None
        try:
            text = cache.manifests.load(snapshot_id) or b""
            with cache.giving_lock():
                if self._holders_of(snapshot_id, given_out_too=given_out_too):
                    return None
                detached = cache.trees.detach(snapshot_id)
                cache.index.forget(snapshot_id)
            cache.receipts.remove(snapshot_id)
            cache.manifests.remove(snapshot_id)
        finally:
            lock.release()
        with cache.trust.losing_links(text):
            cache.trees.discard(detached)
        return links_in(text)

    def _clear(self, keys: set[int]) -> Cleared:
        cache, ordered = self._cache, array("Q", sorted(keys))
        return clear(cache.blobs, cache.reliance, ordered, stopping=self._stopping.is_set)

    def _remove_stale_manifests(self) -> None:
        """Forget manifests whose trees never came to be, or went while we were killed."""
        cache, before = self._cache, self._now() - self.settings.orphan_seconds
        for snapshot_id in list(cache.manifests.iterate()):
            if cache.trees.has(snapshot_id) or cache.manifests.saved_at(snapshot_id) >= before:
                continue
            lock = cache.snapshot_lock(snapshot_id)
            if not lock.try_acquire():
                continue
            try:
                if not cache.trees.has(snapshot_id):
                    cache.manifests.remove(snapshot_id)
            finally:
                lock.release()


def largest(kept: Sequence[Verdict], count: int = 5) -> tuple[Verdict, ...]:
    """Choose the largest snapshots among those that stay."""
    return tuple(sorted(kept, key=lambda each: -each.size_bytes)[:count])


def _log(swept: Swept, decision: Decision, cause: EvictionCause) -> None:
    for verdict in swept.evicted:
        logger.info("evicted snapshot %s (%s)", verdict.snapshot_id, cause)
    if swept.freed_bytes:
        logger.info(
            "swept the cache: %d snapshots, %d objects, %s came free",
            len(swept.evicted),
            swept.cleared.blobs,
            format_size(swept.freed_bytes),
        )
    if swept.freed_bytes < decision.needed_bytes:
        logger.warning(
            "the cache needs %s more than the sweep freed; `snapctl cache gc --dryrun --why` "
            "says who holds what",
            format_size(decision.needed_bytes - swept.freed_bytes),
        )
