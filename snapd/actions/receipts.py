"""Say in a receipt what a pull proved; blocking."""

from __future__ import annotations

import os

from snapd import __version__
from snapd.actions.gather import Gathering
from snapd.disk.cache import Cache
from snapd.model.ids import SnapshotId
from snapd.model.manifest import Manifest
from snapd.model.plan import PullPlan
from snapd.model.receipts import Receipt, Share, Span


def receipt_of_pull(
    manifest: Manifest, plan: PullPlan, gathering: Gathering, *, store: str, now: float
) -> Receipt:
    """Make the receipt of a pull that has brought everything of its plan."""
    return _receipt(
        manifest,
        store=store,
        pulled_at=now,
        verified=Share(gathering.objects_done, gathering.bytes_done),
        cached=Share(plan.objects_cached, plan.bytes_cached),
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
    receipt = _receipt(
        Manifest.parse(text, expected_id=snapshot_id),
        store=view.store,
        pulled_at=view.completed_at,
        verified=Share(0, 0),
        cached=Share(view.objects, view.size_bytes),
    )
    cache.receipts.save(receipt)
    return receipt


def _receipt(
    manifest: Manifest, *, store: str, pulled_at: float, verified: Share, cached: Share
) -> Receipt:
    return Receipt(
        snapshot_id=manifest.id,
        store=store,
        pulled_at=pulled_at,
        version=__version__,
        host=os.uname().nodename,
        files=manifest.file_count,
        directories=manifest.directory_count,
        size_bytes=manifest.total_bytes,
        verified=verified,
        cached=cached,
        cached_when=Span(None, None, cached.objects),
    )
