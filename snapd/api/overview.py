"""`/v1/overview`: one look at the node, cheap however many look."""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import anyio
from aiohttp import web
from anyio import to_thread

from snapd import __version__
from snapd.api.standing import Standing
from snapd.model.jobs import JobView
from snapd.model.overview import (
    HeldSnapshot,
    Overview,
    RateSeries,
    failed_pulls,
    held_snapshots,
    running_pulls,
)

SAMPLE_SECONDS = 2.0
SAMPLES = 150
"""Five minutes, which is what the graph shows."""
FRESH_SECONDS = 0.4
"""An overview this young answers further requests."""
CACHE_FRESH_SECONDS = 3.0
"""What has to be looked up on the disk is looked up again after this time."""


class RateMeter:
    """How many bytes all pulls together fetched in each interval of the last minutes."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._rates: deque[float] = deque(maxlen=SAMPLES)

    def sample(self, views: Iterable[JobView], seconds: float) -> None:
        """Add what was fetched since the last sample, which was so many seconds ago."""
        now = {view.job_id: view.bytes_fetched for view in views}
        fetched = sum(max(0, size - self._seen.get(job, 0)) for job, size in now.items())
        self._rates.append(fetched / seconds)
        self._seen = now

    def series(self) -> RateSeries:
        """Give the rates, the latest last."""
        return RateSeries(SAMPLE_SECONDS, tuple(self._rates))


class Overviews:
    """Makes overviews of one daemon."""

    def __init__(self, standing: Standing, now: Callable[[], float]) -> None:
        self._standing = standing
        self._now = now
        self._meter = RateMeter()
        self._lock = anyio.Lock()
        self._latest: tuple[float, Overview] | None = None
        self._snapshots: tuple[HeldSnapshot, ...] = ()
        self._snapshots_total = 0
        self._snapshots_at = float("-inf")
        self._disk = (0, 0)

    async def overview(self) -> Overview:
        """Look at the node, or show what another request saw a moment ago."""
        async with self._lock:
            moment = time.monotonic()
            if self._latest is None or moment - self._latest[0] > FRESH_SECONDS:
                self._latest = (moment, await self._look(moment))
            return self._latest[1]

    async def keep_sampling(self) -> None:
        """Take a sample at every interval, for ever."""
        sampled_at = anyio.current_time()
        while True:
            await anyio.sleep(SAMPLE_SECONDS)
            now = anyio.current_time()
            self._meter.sample(self._views(), now - sampled_at)
            sampled_at = now

    def _views(self) -> Sequence[JobView]:
        node = self._standing.node
        return node.pulls.jobs() if node is not None else ()

    async def _look(self, moment: float) -> Overview:
        node, standing = self._standing.node, self._standing
        views = self._views()
        if node is not None and moment - self._snapshots_at > CACHE_FRESH_SECONDS:
            snapshots, leases = await node.snapshots(), await node.leases()
            space = await to_thread.run_sync(node.cache.space)
            self._snapshots = held_snapshots(snapshots, leases)
            self._snapshots_total = len(snapshots)
            self._disk = (space.free_bytes, space.total_bytes)
            self._snapshots_at = moment
        return Overview(
            version=__version__,
            host=socket.gethostname(),
            state=standing.unready_because() or "ready",
            now=self._now(),
            uptime_seconds=standing.uptime_seconds,
            pulls_running=node.pulls.running_count if node else 0,
            pulls_queued=node.pulls.queued_count if node else 0,
            pulls=running_pulls(views),
            rates=self._meter.series(),
            snapshots_total=self._snapshots_total,
            snapshots=self._snapshots,
            failures=failed_pulls(views),
            cache_bytes=node.pulls.admission.used_bytes if node else 0,
            cache_bytes_max=standing.settings.cache.max_bytes,
            reserved_bytes=node.pulls.admission.reserved_bytes if node else 0,
            disk_free_bytes=self._disk[0],
            disk_total_bytes=self._disk[1],
            stores=standing.settings.daemon.stores,
            scrub=await node.scrub_view() if node else None,
        )


def add_overview(app: web.Application, overviews: Overviews) -> None:
    """Add the route to an application, that of the control socket or the one on TCP."""

    async def overview(_request: web.Request) -> web.Response:
        """`GET /v1/overview`: what the node holds and does now."""
        return web.json_response((await overviews.overview()).to_json())

    app.router.add_get("/v1/overview", overview, allow_head=False)
