"""The composition root: cache, stores and pulls of one node, built from settings.

The daemon opens a node and serves it; `snapctl --standalone` opens the same in its own process.
"""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import anyio
from anyio import to_thread

from snapd.actions.diagnose import diagnose
from snapd.actions.following import Following
from snapd.actions.jobs import RetriesOfJobs
from snapd.actions.prove import prove
from snapd.actions.pulls import Pulls, open_pulls
from snapd.actions.receipts import ensure_receipt
from snapd.actions.repair import Repairer
from snapd.actions.scrub import Scrub
from snapd.disk.cache import Cache, open_cache
from snapd.model.care import Proof, ProofProgress, ScrubView
from snapd.model.checks import Check
from snapd.model.follow_checks import judge_follows
from snapd.model.ids import SnapshotId
from snapd.model.jobs import PullRequest, SnapshotView
from snapd.model.leases import Lease, LeaseRequest
from snapd.model.receipts import Receipt
from snapd.model.references import Reference, Resolved
from snapd.model.settings import Settings
from snapd.model.space import PlanView, SweepReport, SweepRequest
from snapd.model.uris import StoreUri
from snapd.registry.names import Registry
from snapd.remote.base import RemoteStore
from snapd.remote.examining import Examination, examine
from snapd.remote.lanes import Lanes, open_lanes
from snapd.remote.opening import make_ready_for, open_store, settings_for
from snapd.remote.stores import OpenStore, Stores, open_stores
from snapd.remote.workers import count_of, threads_of
from snapd.runtime.background import background_tasks
from snapd.runtime.observer import Observer, Observers
from snapd.worker import WorkerStart

GARBAGE_THRESHOLD = 10_000
"""A batch of small objects makes some thousand things that soon go by themselves."""


@dataclass(slots=True)
class Node:
    """What a node is made of; open as long as the block that `open_node` began."""

    settings: Settings
    cache: Cache
    stores: Stores
    pulls: Pulls
    repairer: Repairer
    scrub: Scrub
    lanes: Lanes
    following: Following
    now: Callable[[], float]

    async def snapshots(self) -> list[SnapshotView]:
        """List the complete snapshots of the cache, the last used first."""
        return await to_thread.run_sync(self.cache.snapshots)

    async def receipt(self, snapshot_id: SnapshotId) -> Receipt | None:
        """Find the receipt of a complete snapshot; None if the cache does not have it."""
        return await to_thread.run_sync(ensure_receipt, self.cache, snapshot_id)

    async def foretell(self, request: PullRequest) -> PlanView:
        """Tell what a pull would fetch and evict; changes nothing."""
        return await self.pulls.foretell(request)

    async def resolve(self, reference: Reference, store: str) -> Resolved:
        """Find the snapshot that a reference leads to in a store; see `Registry.resolve`."""
        async with self.stores.use(store) as opened:
            return await Registry(opened).resolve(reference)

    async def sweep(self, request: SweepRequest) -> SweepReport:
        """Free what was asked for, or sweep down to the low watermark."""
        return await self.pulls.admission.sweep(request)

    async def evict(self, snapshot_id: SnapshotId, *, given_out_too: bool) -> SweepReport:
        """Evict one snapshot; raises `SnapshotNotFound`, `SnapshotInUse`."""
        return await self.pulls.admission.evict(snapshot_id, given_out_too=given_out_too)

    async def diagnose(self) -> list[Check]:
        """Look at stores, credentials, clock, disk, limits and follows now."""

        async def look(uri: StoreUri) -> Examination:
            chosen = settings_for(uri, self.settings.stores)
            return await examine(uri, chosen, self.settings.transfer, self.lanes, now=self.now)

        found = await diagnose(self.settings, self.cache, look, self.now)
        return [*found, *judge_follows(self.following.views())]

    async def scrub_view(self) -> ScrubView:
        """Show how the scrub stands."""
        return await self.scrub.view()

    async def prove(
        self, snapshot_id: SnapshotId, on_progress: Callable[[ProofProgress], None]
    ) -> Proof:
        """Prove the tree of a snapshot now; see `actions.prove`."""
        return await prove(self.cache, self.repairer, snapshot_id, on_progress)

    async def leases(self) -> list[Lease]:
        """List who holds which snapshot now, by snapshot; whoever got a path lately holds too."""
        cache, lease_seconds = self.cache, self.settings.cache.lease_seconds
        return await to_thread.run_sync(
            lambda: cache.leases.listed(cache.index.snapshots(), lease_seconds=lease_seconds)
        )

    async def add_lease(self, request: LeaseRequest, *, pid: int, uid: int) -> Lease:
        """Hold a snapshot for somebody; see `Leases.add`."""
        add = partial(self.cache.leases.add, request, pid=pid, uid=uid)
        return await to_thread.run_sync(add)

    async def remove_lease(self, lease_id: str, *, by_uid: int | None = None) -> Lease:
        """End a lease before its time; see `Leases.remove`."""
        remove = partial(self.cache.leases.remove, lease_id, by_uid=by_uid)
        return await to_thread.run_sync(remove)

    async def warm_up(self) -> None:
        """Make ready in advance what the first pull would have to wait for."""
        self.lanes.warm_up()
        await make_ready_for(self.settings.stores)
        # What is loaded by now stays for good: the collector need not look at it again and again.
        gc.freeze()
        gc.set_threshold(GARBAGE_THRESHOLD)

    def apply(self, settings: Settings) -> None:
        """Take over what can change while running: allowed stores, limits of pulls and cache."""
        self.settings = settings
        self.stores.allow(settings.daemon.stores)
        self.pulls.admission.apply(settings.cache)
        self.scrub.apply(settings.scrub)
        self.following.apply(settings)
        self.lanes.set_log(asdict(settings.log))
        self.pulls.resize(
            running_max=settings.daemon.pulls_running_max,
            queued_max=settings.daemon.pulls_queued_max,
        )


@asynccontextmanager
async def open_node(
    settings: Settings,
    *,
    cache_directory: Path,
    observer: Observer,
    now: Callable[[], float],
    opener: OpenStore | None = None,
) -> AsyncIterator[Node]:
    """Open a node on a state directory and close it again, pulls first, the cache last.

    `opener` opens stores; without it, as scheme and settings say.
    Raises `CacheUnusable` if the state directory can't be used.
    """

    def by_scheme(uri: StoreUri) -> AbstractAsyncContextManager[RemoteStore]:
        chosen = settings_for(uri, settings.stores)
        watching = Observers(observer, RetriesOfJobs(pulls.get))
        return open_store(uri, chosen, settings.transfer, watching, lanes=lanes)

    async with (
        _open_cache(settings, cache_directory, observer, now) as cache,
        open_lanes(settings.transfer, _worker_start(settings, cache)) as lanes,
        open_stores(opener or by_scheme, settings.daemon.stores) as stores,
        open_pulls(settings, cache, stores, observer, now) as pulls,
        background_tasks() as tasks,
    ):
        repairer = Repairer(pulls.workshop, lambda: stores.allowed)
        scrub = Scrub(cache, repairer, settings.scrub, tasks, observer=observer, now=now)
        following = Following(cache, pulls, stores, tasks, settings, now=now)
        yield Node(settings, cache, stores, pulls, repairer, scrub, lanes, following, now)


def _worker_start(settings: Settings, cache: Cache) -> WorkerStart:
    lanes = threads_of(settings.transfer) + count_of(settings.transfer)
    return WorkerStart(cache.press_terms, settings.transfer, settings.log, lanes)


@asynccontextmanager
async def _open_cache(
    settings: Settings, directory: Path, observer: Observer, now: Callable[[], float]
) -> AsyncIterator[Cache]:
    """Open the cache and close it in worker threads; both look at the disk."""
    opened = open_cache(
        directory,
        fsync=settings.cache.fsync,
        seal=settings.cache.seal,
        now=now,
        quarantine_max_bytes=settings.cache.quarantine_max_bytes,
        kubelet_directory=Path(settings.cache.kubelet_directory),
        node_name=settings.cache.node_name,
        on_rehash=observer.on_rehashed,
    )
    cache = await to_thread.run_sync(opened.__enter__)
    try:
        yield cache
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(opened.__exit__, None, None, None)
