"""Say in a receipt what a pull proved; blocking."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import chain, islice

from snapd import __version__
from snapd.actions.gather import Gathering
from snapd.disk.cache import Cache
from snapd.disk.records import LOOKUP_BLOBS
from snapd.model.eviction import blob_key
from snapd.model.ids import SnapshotId
from snapd.model.manifest import Manifest
from snapd.model.plan import PullPlan
from snapd.model.receipts import Receipt, Share, Span


def receipt_of_pull(
    manifest: Manifest,
    plan: PullPlan,
    gathering: Gathering,
    store: str,
    host: str,
    now: float,
    wanted: Sequence[int],
    verified_at: Sequence[int],
) -> Receipt:
    """Make the receipt of a pull that has brought everything of its plan.

    `wanted` are the manifest's distinct objects, `verified_at` says when each was verified last.
    """
    arrived = bytearray(len(manifest))
    for index in chain(plan.small, plan.large, plan.derive):
        arrived[index] = 1
    cached_at = (at for index, at in zip(wanted, verified_at, strict=True) if not arrived[index])
    return _receipt(
        manifest,
        host=host,
        store=store,
        pulled_at=now,
        verified=Share(gathering.objects_done, gathering.bytes_done),
        cached=Share(plan.objects_cached, plan.bytes_cached),
        cached_when=_span(cached_at),
    )


def ensure_receipt(cache: Cache, snapshot_id: SnapshotId) -> Receipt | None:
    """Read the receipt of a complete snapshot; one that got lost is made anew.

    It then says that everything was in the cache already. None if the snapshot is not complete.
    """
    view = cache.complete(snapshot_id)
    if view is None:
        return None
    found = cache.receipts.load(snapshot_id)
    if found is not None:
        return found
    text = cache.manifests.load(snapshot_id)
    if text is None:
        return None
    manifest = Manifest.parse(text, expected_id=snapshot_id)
    receipt = _receipt(
        manifest,
        host=cache.receipts.host,
        store=view.store,
        pulled_at=view.completed_at,
        verified=Share(0, 0),
        cached=Share(view.objects, view.size_bytes),
        cached_when=_recorded(cache, manifest, view.objects),
    )
    cache.receipts.save(receipt)
    return receipt


def _recorded(cache: Cache, manifest: Manifest, objects: int) -> Span:
    """Look up when the objects of a snapshot were verified, as far as that is recorded."""
    known: dict[str, int] = {}
    entries = map(manifest.__getitem__, manifest.distinct_objects())
    while chunk := list(islice(entries, LOOKUP_BLOBS)):
        keys = [blob_key(entry.checksum, entry.mode) for entry in chunk]
        found = cache.records.find(keys)
        for key, entry in zip(keys, chunk, strict=True):
            if key in found:
                known[entry.checksum] = found[key][-1]
    return _span(known.values(), unknown=objects - len(known))


def _span(moments: Iterable[int], unknown: int = 0) -> Span:
    earliest, latest = math.inf, -math.inf
    for moment in moments:
        earliest, latest = min(earliest, moment), max(latest, moment)
    return Span(None, None, unknown) if latest < earliest else Span(earliest, latest, unknown)


def _receipt(
    manifest: Manifest,
    *,
    host: str,
    store: str,
    pulled_at: float,
    verified: Share,
    cached: Share,
    cached_when: Span,
) -> Receipt:
    return Receipt(
        snapshot_id=manifest.id,
        store=store,
        pulled_at=pulled_at,
        version=__version__,
        host=host,
        files=manifest.file_count,
        directories=manifest.directory_count,
        size_bytes=manifest.total_bytes,
        verified=verified,
        cached=cached,
        cached_when=cached_when,
    )
