"""One look at a node: what it holds and does now, for the page and for `snapctl top`.

Whoever is on the host may read it, so it says nothing that needs protection: of a lease its kind
and no command line, of a store its name and no key.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from snapd.model.care import ScrubView
from snapd.model.jobs import JobView, SnapshotView
from snapd.model.leases import Lease, LeaseKind

JOBS_MAX = 50
SNAPSHOTS_MAX = 200
FAILURES_MAX = 20
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")
_QUERY = re.compile(r"(?i)([?&](?:x-amz-[a-z-]+|signature|token|key|password)=)[^&\s'\"]+")


def without_secrets(text: str) -> str:
    """`https://me:word@host/?X-Amz-Signature=1f` -> `https://host/?X-Amz-Signature=...`."""
    return _QUERY.sub(r"\1...", _CREDENTIALS.sub("", text))


@dataclass(frozen=True, slots=True)
class Hold:
    """How many leases of a kind hold a snapshot; `until` is when the last one ends by itself."""

    kind: LeaseKind
    count: int
    until: float | None = None


@dataclass(frozen=True, slots=True)
class HeldSnapshot:
    """A complete snapshot of the cache, and what keeps it there."""

    snapshot_id: str
    store: str
    files: int
    size_bytes: int
    completed_at: float
    used_at: float
    holds: tuple[Hold, ...] = ()


@dataclass(frozen=True, slots=True)
class RunningPull:
    """A pull that runs or waits. `bytes_done` counts what was there already, too."""

    job_id: str
    snapshot_id: str
    store: str
    state: str
    queue_position: int
    bytes_done: int
    bytes_total: int
    objects_done: int
    objects_total: int
    bytes_per_second: float
    eta_seconds: float | None
    retries: int
    waiters: int
    created_at: float


@dataclass(frozen=True, slots=True)
class FailedPull:
    """A pull that failed lately, and what to do about it."""

    job_id: str
    snapshot_id: str
    store: str
    ended_at: float
    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class RateSeries:
    """Bytes fetched per second, one value an interval, the latest last."""

    interval_seconds: float
    bytes_per_second: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything at one moment; lists are cut at `*_MAX`, counts are whole. Sizes in bytes."""

    version: str
    host: str
    state: str
    now: float
    uptime_seconds: float
    pulls_running: int
    pulls_queued: int
    pulls: tuple[RunningPull, ...]
    rates: RateSeries
    snapshots_total: int
    snapshots: tuple[HeldSnapshot, ...]
    failures: tuple[FailedPull, ...]
    cache_bytes: int
    cache_bytes_max: int
    reserved_bytes: int
    disk_free_bytes: int
    disk_total_bytes: int
    stores: tuple[str, ...]
    scrub: ScrubView | None = None

    def to_json(self) -> dict[str, Any]:
        """Render for the wire."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Overview:
        """Read what `to_json` wrote; keys of a newer daemon are ignored."""
        known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        known["pulls"] = tuple(_read(RunningPull, each) for each in document["pulls"])
        known["failures"] = tuple(_read(FailedPull, each) for each in document["failures"])
        known["snapshots"] = tuple(_held(each) for each in document["snapshots"])
        rates = document["rates"]
        known["rates"] = RateSeries(rates["interval_seconds"], tuple(rates["bytes_per_second"]))
        scrub = document.get("scrub")
        known["scrub"] = None if scrub is None else _read(ScrubView, scrub)
        known["stores"] = tuple(document["stores"])
        return cls(**known)


def _read(kind: Any, document: dict[str, Any]) -> Any:
    return kind(**{name: document[name] for name in kind.__dataclass_fields__ if name in document})


def _held(document: dict[str, Any]) -> HeldSnapshot:
    holds = tuple(_read(Hold, each) for each in document.get("holds", ()))
    held: HeldSnapshot = _read(HeldSnapshot, document | {"holds": holds})
    return held


def running_pulls(views: Iterable[JobView]) -> tuple[RunningPull, ...]:
    """Choose the pulls that have not ended, the oldest first."""
    active = sorted((view for view in views if not view.ended), key=lambda view: view.created_at)
    return tuple(
        RunningPull(
            view.job_id,
            view.snapshot_id,
            without_secrets(view.store),
            view.state,
            view.queue_position,
            view.bytes_cached + view.bytes_fetched,
            view.bytes_total,
            view.objects_cached + view.objects_fetched,
            view.objects_total,
            view.bytes_per_second,
            view.eta_seconds,
            view.retries,
            view.waiters,
            view.created_at,
        )
        for view in active[:JOBS_MAX]
    )


def failed_pulls(views: Iterable[JobView]) -> tuple[FailedPull, ...]:
    """Choose the pulls that failed, the latest first."""
    failed = [view for view in views if view.state == "failed" and view.error is not None]
    failed.sort(key=lambda view: view.ended_at or 0.0, reverse=True)
    return tuple(
        FailedPull(
            view.job_id,
            view.snapshot_id,
            without_secrets(view.store),
            view.ended_at or 0.0,
            str((view.error or {}).get("code", "")),
            without_secrets(str((view.error or {}).get("message", ""))),
            without_secrets(str((view.error or {}).get("hint", ""))),
        )
        for view in failed[:FAILURES_MAX]
    )


def held_snapshots(
    views: Iterable[SnapshotView], leases: Iterable[Lease]
) -> tuple[HeldSnapshot, ...]:
    """Put snapshots, the last used first, and what holds them together."""
    by_snapshot: dict[str, list[Lease]] = {}
    for lease in leases:
        by_snapshot.setdefault(lease.snapshot_id, []).append(lease)
    chosen = sorted(views, key=lambda view: view.used_at, reverse=True)[:SNAPSHOTS_MAX]
    return tuple(
        HeldSnapshot(
            view.snapshot_id,
            without_secrets(view.store),
            view.files,
            view.size_bytes,
            view.completed_at,
            view.used_at,
            _holds(by_snapshot.get(view.snapshot_id, [])),
        )
        for view in chosen
    )


def _holds(leases: Iterable[Lease]) -> tuple[Hold, ...]:
    counts: Counter[LeaseKind] = Counter()
    until: dict[LeaseKind, float] = {}
    for lease in leases:
        counts[lease.kind] += 1
        if lease.until is not None:
            until[lease.kind] = max(lease.until, until.get(lease.kind, 0.0))
    return tuple(Hold(kind, count, until.get(kind)) for kind, count in sorted(counts.items()))
