"""Where requests run: threads of this process, and worker processes for small objects.

All stores of a node share them. A lane is told by channel how much it may do for which store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import anyio
from anyio import to_thread

from snapd.model.settings import TransferSettings
from snapd.remote.curl_lane import Channel, Lane, Part
from snapd.remote.workers import StartWorker, Workers, open_workers, threads_of

STOP_SECONDS = 30.0


class AnyLane(Protocol):
    """What a thread and a worker process have in common. Only called on the event loop."""

    def submit(self, part: Part) -> None:
        """Run the requests of a part; its `on_end` is called on the loop when all have ended."""
        ...

    def cancel(self, part: Part) -> None:
        """Stop a part: it ends soon, and none of its sinks is called after that."""
        ...

    def admit(self, channel: Channel, in_flight_max: int) -> None:
        """Change how many requests of a channel may run at the same time."""
        ...

    def forget(self, channel: Channel) -> None:
        """Let go of a channel that is not used any more."""
        ...


class Lanes:
    """The lanes of a node; belongs to the event loop that it was made in."""

    def __init__(self, settings: TransferSettings, workers: Workers | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._workers = workers
        threads = threads_of(settings)
        sharing = threads + (workers.count if workers else 0)
        self._threads = [
            Lane(settings, self._report, f"transfer-{number}", lanes=sharing)
            for number in range(threads)
        ]

    def warm_up(self) -> None:
        """Start the worker processes, unless they run or there are to be none."""
        if self._workers:
            self._workers.warm_up()

    def set_log(self, log: dict[str, Any]) -> None:
        """Have worker processes log in another way from now on."""
        if self._workers:
            self._workers.set_log(log)

    def for_small(self) -> Sequence[AnyLane]:
        """Give the lanes for whole small objects: worker processes as far as there are some."""
        ready = self._workers.ready() if self._workers else ()
        return ready or self._threads

    def for_rest(self) -> Sequence[AnyLane]:
        """Give the lanes for everything else."""
        return self._threads

    async def close(self) -> None:
        """Stop the threads and wait for their end."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(STOP_SECONDS):
            for lane in self._threads:
                await to_thread.run_sync(lane.stop, abandon_on_cancel=True)

    def _report(self, parts: list[Part]) -> None:
        self._loop.call_soon_threadsafe(_deliver, parts)


def _deliver(parts: list[Part]) -> None:
    for part in parts:
        part.on_end(part)


@asynccontextmanager
async def open_lanes(
    settings: TransferSettings, start_worker: StartWorker | None = None
) -> AsyncIterator[Lanes]:
    """Run lanes for the length of the block; worker processes only if it is said how they start."""
    async with open_workers(settings, start_worker) as workers:
        lanes = Lanes(settings, workers)
        try:
            yield lanes
        finally:
            await lanes.close()
