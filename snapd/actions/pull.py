"""Bring a snapshot onto this node: manifest, plan, objects, tree."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from anyio import to_thread

from snapd.actions.fetch import Fetcher
from snapd.actions.gather import Gathering
from snapd.actions.jobs import Job
from snapd.actions.receipts import receipt_of_pull
from snapd.disk.cache import Cache
from snapd.model.errors import DigestMismatch, KeyMissing, NoSpace, SnapshotNotFound
from snapd.model.ids import Digest, SnapshotId
from snapd.model.layout import manifest_key
from snapd.model.manifest import Manifest
from snapd.model.plan import PullPlan, plan_pull, refs
from snapd.model.units import format_size
from snapd.remote.base import RemoteStore
from snapd.remote.stores import Stores
from snapd.runtime.flight import Flights
from snapd.runtime.limits import Budget
from snapd.runtime.observer import Observer

logger = logging.getLogger(__name__)

MANIFEST_LIMIT_BYTES = 4 * 1024**3


@dataclass(frozen=True, slots=True)
class Workshop:
    """What all pulls of a node share."""

    cache: Cache
    stores: Stores
    fetcher: Fetcher
    blob_flights: Flights[Digest]
    large_lanes: Budget
    observer: Observer
    now: Callable[[], float]


async def bring(job: Job, store: RemoteStore, workshop: Workshop) -> None:
    """Pull one snapshot: manifest, plan, objects, tree.

    Afterwards the tree is complete in the cache and the job knows its path. After a failure or a
    cancellation whatever was verified stays in the cache, and the next pull fetches only the rest.
    Raises every error of a store, of the cache, `ManifestRefused`, `SnapshotNotFound`, `NoSpace`.
    """
    job.enter("reading_manifest")
    manifest = await _manifest(workshop, job.request.snapshot_id, store)
    job.enter("planning")
    plan = await to_thread.run_sync(_plan, workshop, manifest)
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
    await to_thread.run_sync(_check_space, workshop, plan)
    job.enter("fetching")
    await gathering.run()
    _observe(workshop.observer, plan, gathering)
    job.enter("publishing")
    tree = await to_thread.run_sync(_publish, workshop, manifest, plan, gathering, str(store.uri))
    job.finished(str(tree))


def _publish(
    workshop: Workshop, manifest: Manifest, plan: PullPlan, gathering: Gathering, store: str
) -> Path:
    """Make the snapshot complete, with a receipt of what was proven; blocking."""
    now = workshop.now()
    receipt = receipt_of_pull(manifest, plan, gathering, store=store, now=now)
    return workshop.cache.publish(manifest, store=store, now=now, receipt=receipt)


async def _manifest(workshop: Workshop, snapshot_id: SnapshotId, store: RemoteStore) -> Manifest:
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
            return await _parse(await _read_manifest(store, snapshot_id), snapshot_id)
        except DigestMismatch:
            workshop.observer.on_verification_failure()
            return await _parse(await _read_manifest(store, snapshot_id), snapshot_id)
    except KeyMissing as error:
        raise SnapshotNotFound(
            f"{store.uri} has no snapshot {snapshot_id}", id=snapshot_id, store=str(store.uri)
        ) from error


def _plan(workshop: Workshop, manifest: Manifest) -> PullPlan:
    """Look what the cache has, then decide; blocking."""
    wanted = manifest.distinct_objects()
    survey = workshop.fetcher.blobs.survey(refs(manifest, wanted), len(wanted))
    threshold = workshop.fetcher.settings.large_object_bytes
    return plan_pull(manifest, wanted, survey, large_object_bytes=threshold)


def _check_space(workshop: Workshop, plan: PullPlan) -> None:
    """Refuse before the first byte is fetched what can't fit on the disk."""
    free_bytes = workshop.cache.free_bytes()
    if plan.bytes_to_fetch > free_bytes:
        raise NoSpace(
            f"the snapshot needs {format_size(plan.bytes_to_fetch)} more and the cache's disk "
            f"has {format_size(free_bytes)} free ({workshop.cache.root})",
            required_bytes=plan.bytes_to_fetch,
            available_bytes=free_bytes,
        )


def _observe(observer: Observer, plan: PullPlan, gathering: Gathering) -> None:
    observer.on_objects("cache", plan.objects_cached, plan.bytes_cached)
    observer.on_objects("shared", gathering.objects_shared, gathering.bytes_shared)
    observer.on_objects(
        "store",
        gathering.objects_done - gathering.objects_shared,
        gathering.bytes_done - gathering.bytes_shared,
    )


async def _read_manifest(store: RemoteStore, snapshot_id: SnapshotId) -> bytes:
    document = await store.get(manifest_key(snapshot_id), limit_bytes=MANIFEST_LIMIT_BYTES)
    return document.data


async def _parse(raw: bytes, snapshot_id: SnapshotId) -> Manifest:
    """Parse in a worker thread: a million lines take more than a second."""
    return await to_thread.run_sync(lambda: Manifest.parse(raw, expected_id=snapshot_id))
