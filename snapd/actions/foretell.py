"""Tell what a pull would do before it is asked for."""

from __future__ import annotations

from anyio import to_thread

from snapd.actions.pull import Workshop, bytes_on_disk, manifest_for, plan_for
from snapd.actions.sweep import largest
from snapd.model.ids import SnapshotId
from snapd.model.jobs import SnapshotView
from snapd.model.space import PlanView
from snapd.remote.base import RemoteStore


def complete_view(found: SnapshotView, store: str) -> PlanView:
    """Say that a snapshot is complete: there is nothing to do."""
    return PlanView(
        snapshot_id=found.snapshot_id,
        store=store,
        complete=True,
        objects_total=found.objects,
        objects_cached=found.objects,
        bytes_total=found.size_bytes,
        bytes_cached=found.size_bytes,
    )


async def foretell(snapshot_id: SnapshotId, store: RemoteStore, workshop: Workshop) -> PlanView:
    """Read the manifest and plan as a pull does; nothing is fetched, evicted or reserved."""
    manifest = await manifest_for(workshop, snapshot_id, store)
    plan = await to_thread.run_sync(plan_for, workshop, manifest)
    required_bytes = bytes_on_disk(plan, manifest)
    shortage, decision = await workshop.admission.foresee(required_bytes)
    return PlanView(
        snapshot_id=snapshot_id,
        store=str(store.uri),
        complete=False,
        objects_total=plan.objects_total,
        objects_cached=plan.objects_cached,
        bytes_total=plan.bytes_total,
        bytes_cached=plan.bytes_cached,
        required_bytes=required_bytes,
        available_bytes=max(0, shortage.left_bytes),
        freed_bytes=decision.freed_bytes,
        fits=decision.satisfied,
        evict=decision.evict if decision.satisfied else (),
        kept=largest(decision.kept),
    )
