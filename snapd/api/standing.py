"""How the daemon stands: the answers behind `/v1/status`, `/readyz` and `/metrics`."""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread

from snapd import __version__
from snapd.model.settings import Settings
from snapd.node import Node
from snapd.runtime.metrics import Metrics, NodeNumbers

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

    def unready_because(self) -> str:
        """Say why no pull would be accepted now, or nothing if one would."""
        if self.node is None:
            return "starting"
        return "draining" if self.draining else ""

    async def numbers(self) -> NodeNumbers:
        """Take stock; all zero as long as the node is not open."""
        if self.node is None:
            return NodeNumbers()
        pulls, settings = self.node.pulls, self.settings
        snapshots = await self.node.snapshots()
        space = await to_thread.run_sync(self.node.cache.space)
        return NodeNumbers(
            pulls_running=pulls.running_count,
            pulls_running_max=settings.daemon.pulls_running_max,
            pulls_queued=pulls.queued_count,
            pulls_queued_max=settings.daemon.pulls_queued_max,
            objects_in_flight=pulls.transfers.objects_in_flight,
            objects_in_flight_max=settings.transfer.objects_in_flight,
            bytes_in_flight=pulls.transfers.bytes_in_flight,
            bytes_in_flight_max=settings.transfer.bytes_in_flight,
            transfers_waiting=pulls.transfers.waiting,
            snapshots=len(snapshots),
            cache_bytes=pulls.admission.used_bytes,
            cache_bytes_max=settings.cache.max_bytes,
            reserved_bytes=pulls.admission.reserved_bytes,
            disk_free_bytes=space.free_bytes,
            disk_total_bytes=space.total_bytes,
        )

    async def status(self) -> dict[str, Any]:
        """Answer `GET /v1/status`."""
        numbers = await self.numbers()
        directory = Path(self.settings.cache.directory)
        return {
            "version": __version__,
            "pid": os.getpid(),
            "state": self.unready_because() or "ready",
            "state_directory": str(directory),
            "trees_directory": str(directory / "trees"),
            "uptime_seconds": time.monotonic() - self._started,
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
