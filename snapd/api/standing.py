"""How the daemon stands: the answers behind `/v1/status`, `/readyz` and `/metrics`."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import anyio
from anyio import to_thread

from snapd import __version__
from snapd.actions.admit import Admission
from snapd.model.leases import LeaseKind
from snapd.model.progress import Stalls, bytes_of, objects_of
from snapd.model.settings import Settings
from snapd.node import Node
from snapd.runtime.metrics import Metrics
from snapd.runtime.numbers import NodeNumbers

LAG_SAMPLES = 15


class Standing:
    """What there is to know of a daemon, from before its node is open until it is closed.

    The daemon sets `node` once that is open, `draining` when it takes no new pulls, `listen` to the
    address in use, and `settings` after a reload.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.node: Node | None = None
        self.draining = False
        self.listen = ""
        self._started = time.monotonic()
        self._stalls = Stalls()

    def unready_because(self) -> str:
        """Say why no pull would be accepted now, or nothing if one would."""
        if self.node is None:
            return "starting"
        return "draining" if self.draining else ""

    @property
    def uptime_seconds(self) -> float:
        """How long the daemon has been running."""
        return time.monotonic() - self._started

    async def numbers(self) -> NodeNumbers:
        """Take stock of everything; all zero as long as the node is not open."""
        numbers = await self.numbers_at_hand()
        if self.node is None:
            return numbers
        cache, scrub = self.node.cache, await self.node.scrub_view()
        self.metrics.set_follows(self.node.following.views())
        leases = Counter(lease.kind for lease in await self.node.leases())
        return replace(
            numbers,
            leases={kind: leases[kind] for kind in get_args(LeaseKind)},
            quarantined_objects=await to_thread.run_sync(cache.quarantine.count),
            scrub_progress=scrub.progress,
            scrub_began_at=scrub.round_began_at,
            scrub_ended_at=scrub.round_ended_at,
            scrub_interval_seconds=(
                self.settings.scrub.interval_seconds if scrub.phase != "off" else 0
            ),
            awaiting_repair=scrub.waiting_for_repair,
        )

    async def numbers_at_hand(self) -> NodeNumbers:
        """Take stock of what is found without a walk; all zero as long as the node is not open."""
        if self.node is None:
            return NodeNumbers()
        pulls, settings = self.node.pulls, self.settings
        snapshots = await self.node.snapshots()
        space = await to_thread.run_sync(self.node.cache.space)
        views = pulls.under_way()
        return NodeNumbers(
            pulls={
                "running": pulls.running_count,
                "queued": pulls.queued_count,
                "waiting_for_space": pulls.waiting_count,
            },
            pulls_limit={
                "running": settings.daemon.pulls_running_max,
                "queued": settings.daemon.pulls_queued_max,
            },
            running_bytes=bytes_of(views)._asdict(),
            running_objects=objects_of(views)._asdict(),
            stalled_seconds=self._stalls.longest_seconds(views, time.monotonic()),
            objects_in_flight=pulls.transfers.objects_in_flight,
            objects_in_flight_max=settings.transfer.objects_in_flight,
            bytes_in_flight=pulls.transfers.bytes_in_flight,
            bytes_in_flight_max=settings.transfer.bytes_in_flight,
            transfers_waiting=pulls.transfers.waiting,
            snapshots=len(snapshots),
            cache=_by_state(pulls.admission),
            cache_bytes_max=settings.cache.max_bytes,
            reserved_bytes=pulls.admission.reserved_bytes,
            disk_free_bytes=space.free_bytes,
            disk_free_bytes_min=settings.cache.min_free_bytes,
            disk_total_bytes=space.total_bytes,
        )

    async def status(self) -> dict[str, Any]:
        """Answer `GET /v1/status`."""
        numbers = await self.numbers_at_hand()
        directory = Path(self.settings.cache.directory)
        return {
            "version": __version__,
            "pid": os.getpid(),
            "state": self.unready_because() or "ready",
            "state_directory": str(directory),
            "trees_directory": str(directory / "trees"),
            "uptime_seconds": self.uptime_seconds,
            "jobs_running": numbers.pulls_running,
            "jobs_queued": numbers.pulls_queued,
            "snapshots": numbers.snapshots,
            "cache_bytes": numbers.cache_bytes,
            "cache_bytes_max": numbers.cache_bytes_max,
            "reserved_bytes": numbers.reserved_bytes,
            "disk_free_bytes": numbers.disk_free_bytes,
            "disk_total_bytes": numbers.disk_total_bytes,
            "stores": list(self.settings.daemon.stores),
            "listen": self.listen,
            "seal": self.node.cache.seal.to_json() if self.node else None,
        }

    async def keep_watching_the_loop(self) -> None:
        """Measure how late the event loop runs what is due, for ever."""
        recent: deque[float] = deque(maxlen=LAG_SAMPLES)
        while True:
            due = anyio.current_time() + 1.0
            await anyio.sleep_until(due)
            recent.append(max(0.0, anyio.current_time() - due))
            self.metrics.set_loop_lag(max(recent))


def _by_state(admission: Admission) -> dict[str, int]:
    """Split what the cache takes: the last count by its parts, and what is new since then."""
    usage, used_bytes = admission.usage, admission.used_bytes
    if usage is None:
        return {"new": used_bytes}
    since_bytes = used_bytes - usage.total_bytes
    return {
        "linked": usage.linked_bytes + min(0, since_bytes),
        "loose": usage.loose_bytes,
        "tree": usage.tree_bytes,
        "staging": usage.staging_bytes,
        "quarantine": usage.quarantine_bytes,
        "other": usage.other_bytes,
        "new": max(0, since_bytes),
    }
