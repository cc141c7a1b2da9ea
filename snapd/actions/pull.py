"""Bring a snapshot onto this node: manifest, plan, objects, tree."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
from anyio import from_thread, to_thread

from snapd.actions.admit import Admission
from snapd.actions.fetch import Fetcher
from snapd.actions.gather import Gathering
from snapd.actions.jobs import Job
from snapd.actions.read import read_manifest_text
from snapd.actions.receipts import receipt_of_pull
from snapd.disk.cache import Cache
from snapd.model.errors import DigestMismatch, KeyMissing, ObjectLost, SnapshotNotFound
from snapd.model.ids import Digest, SnapshotId
from snapd.model.manifest import Manifest
from snapd.model.plan import BLOCK_BYTES, PullPlan, plan_pull
from snapd.remote.base import RemoteStore
from snapd.remote.stores import Stores
from snapd.runtime.flight import Flights
from snapd.runtime.limits import Budget
from snapd.runtime.observer import Observer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all pulls of a node share."""

    cache: Cache
    stores: Stores
    fetcher: Fetcher
    blob_flights: Flights[Digest]
    large_lanes: Budget
    observer: Observer
    admission: Admission
    now: Callable[[], float]


async def bring(job: Job, store: RemoteStore, workshop: Workshop) -> None:
    """Pull one snapshot: manifest, plan, objects, tree.

    Afterwards the tree is complete in the cache and the job knows its path. After a failure or a
    cancellation whatever was verified stays in the cache, and the next pull fetches only the rest.
    Raises every error of a store, of the cache, `ManifestRefused`, `SnapshotNotFound`, `NoSpace`;
    `CacheFull` if there is no room for it, before the first object is fetched.
    """
    job.enter("reading_manifest")
    manifest = await manifest_for(workshop, job.request.snapshot_id, store)
    job.enter("planning")
    async with _relying_on(workshop.cache, manifest):
        try:
            tree = await _obtain(job, manifest, store, workshop)
        except ObjectLost as lost:
            logger.warning("%s; planning once more", lost.message)
            tree = await _obtain(job, manifest, store, workshop)
    job.finished(str(tree))


async def _obtain(job: Job, manifest: Manifest, store: RemoteStore, workshop: Workshop) -> Path:
    job.enter("planning")
    plan = await to_thread.run_sync(partial(plan_for, workshop, manifest, checked=True))
    gathering = Gathering(
        plan,
        store,
        workshop.fetcher,
        workshop.blob_flights,
        workshop.large_lanes,
        urgency=job.urgency,
        crowded=lambda: job.crowded,
    )
    job.planned(plan, gathering)
    required_bytes = bytes_on_disk(plan, manifest)
    async with workshop.admission.room(required_bytes, lambda: gathering.bytes_done) as claim:
        job.enter("fetching")
        await gathering.run()
        workshop.observer.on_objects("cache", plan.objects_cached, plan.bytes_cached)
        job.enter("publishing")
        tree = await to_thread.run_sync(
            _publish, workshop, manifest, plan, gathering, str(store.uri)
        )
        claim.settle()
    return tree


@asynccontextmanager
async def _relying_on(cache: Cache, manifest: Manifest) -> AsyncIterator[None]:
    """Keep every object of a snapshot that is here or comes, until the tree holds it."""
    objects = (await to_thread.run_sync(manifest.objects)).ordered
    await to_thread.run_sync(cache.reliance.begin, objects)
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(cache.reliance.end, objects)


def bytes_on_disk(plan: PullPlan, manifest: Manifest) -> int:
    """Tell how many blocks a pull will take at most: objects, directories, manifest.

    What the names in directories take is bounded by the length of the text that lists them.
    """
    blocks = manifest.directory_count + 2 * (len(manifest.text) // BLOCK_BYTES + 1)
    return plan.allocated_bytes + blocks * BLOCK_BYTES


def _publish(
    workshop: Workshop, manifest: Manifest, plan: PullPlan, gathering: Gathering, store: str
) -> Path:
    """Make the snapshot complete, with a receipt of what was proven; blocking."""
    now, host = workshop.now(), workshop.cache.receipts.host
    receipt = partial(receipt_of_pull, manifest, plan, gathering, store, host, now)
    return workshop.cache.publish(manifest, store=store, now=now, receipt=receipt)


async def manifest_for(workshop: Workshop, snapshot_id: SnapshotId, store: RemoteStore) -> Manifest:
    """Read and validate the manifest: the cache's copy if it is intact, else the store's.

    A store's copy whose bytes do not hash to the ID is asked for once more. Raises
    `SnapshotNotFound`, `DigestMismatch`, `ManifestRefused` or the store's error.
    """
    cached = await to_thread.run_sync(workshop.cache.manifests.load, snapshot_id)
    if cached is not None:
        try:
            return await _parse(cached, snapshot_id)
        except DigestMismatch:
            logger.warning("the cached manifest of %s is damaged; reading it anew", snapshot_id)
    try:
        try:
            return await _parse(await read_manifest_text(store, snapshot_id), snapshot_id)
        except DigestMismatch:
            workshop.observer.on_verification_failure()
            return await _parse(await read_manifest_text(store, snapshot_id), snapshot_id)
    except KeyMissing as error:
        raise SnapshotNotFound(
            f"{store.uri} has no snapshot {snapshot_id}", id=snapshot_id, store=str(store.uri)
        ) from error


def plan_for(workshop: Workshop, manifest: Manifest, *, checked: bool = False) -> PullPlan:
    """Look what the cache has, then decide; blocking.

    With `checked` objects that may have changed since they were verified are hashed again, and
    what is damaged goes to the quarantine.
    """
    objects = manifest.objects()
    if checked:
        held = workshop.cache.trust.check(manifest, objects, from_thread.check_cancelled)
    else:
        held = workshop.fetcher.blobs.survey(manifest, objects)
    threshold = workshop.fetcher.settings.large_object_bytes
    return plan_pull(manifest, objects, held, large_object_bytes=threshold)


async def _parse(raw: bytes, snapshot_id: SnapshotId) -> Manifest:
    """Parse in a worker thread: a million lines take more than a second."""
    return await to_thread.run_sync(lambda: Manifest.parse(raw, expected_id=snapshot_id))
