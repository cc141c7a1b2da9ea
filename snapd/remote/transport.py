"""Bytes through libcurl in a few threads, which the event loop hands whole batches.

The loop is woken once a batch and thread; bodies meet their sinks in the transfer threads while
they are warm. Nothing here knows what a store is.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
from anyio import to_thread
from anyio.lowlevel import checkpoint_if_cancelled

from snapd.model.settings import TransferSettings
from snapd.remote.curl_lane import Lane, Part
from snapd.remote.exchanges import Origin, Reply, Request

CANCEL_SECONDS = 30.0
"""How long a cancelled call waits for a sink that is busy at the moment."""
STOP_SECONDS = 30.0


class _Batch:
    """One call of `run`: its parts, and the event that the last of them sets."""

    def __init__(self, parts: list[Part]) -> None:
        self.parts_left = len(parts)
        self.done = anyio.Event()


class CurlTransport:
    """Runs requests side by side, up to `objects_in_flight` of them over all calls.

    Made by `open_transport`; belongs to the event loop it was made in.
    """

    def __init__(self, settings: TransferSettings) -> None:
        self._loop = asyncio.get_running_loop()
        self._running: dict[Part, tuple[_Batch, Lane]] = {}
        threads = max(1, settings.transfer_threads)
        in_flight_max = max(1, math.ceil(settings.objects_in_flight / threads))
        self._lanes = [
            Lane(settings, in_flight_max, self._report, f"transfer-{number}")
            for number in range(threads)
        ]
        self._loads = dict.fromkeys(self._lanes, 0)

    async def run(self, requests: Sequence[Request], origin: Origin) -> list[Reply]:
        """Run requests side by side; replies are in their order and never raised.

        A cancelled call raises once its transfers are stopped and no sink of it is called any more.
        """
        await checkpoint_if_cancelled()
        if not requests:
            return []
        parts = self._split(requests, origin)
        batch = _Batch([part for _, part in parts])
        for lane, part in parts:
            self._running[part] = (batch, lane)
            self._loads[lane] += len(part.requests)
            lane.submit(part)
        try:
            await batch.done.wait()
        except BaseException:
            for lane, part in parts:
                lane.cancel(part)
            with anyio.CancelScope(shield=True), anyio.move_on_after(CANCEL_SECONDS):
                await batch.done.wait()
            raise
        return [reply for _, part in parts for reply in part.replies]

    async def close(self) -> None:
        """Stop the threads and wait for their end."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(STOP_SECONDS):
            for lane in self._lanes:
                await to_thread.run_sync(lane.stop, abandon_on_cancel=True)

    def _split(self, requests: Sequence[Request], origin: Origin) -> list[tuple[Lane, Part]]:
        """Share requests among the lanes, the least busy first."""
        lanes = sorted(self._lanes, key=self._loads.__getitem__)
        share = math.ceil(len(requests) / len(lanes))
        starts = range(0, len(requests), share)
        return [
            (lane, Part(requests[start : start + share], origin))
            for lane, start in zip(lanes, starts, strict=False)
        ]

    def _report(self, parts: list[Part]) -> None:
        self._loop.call_soon_threadsafe(self._deliver, parts)

    def _deliver(self, parts: list[Part]) -> None:
        for part in parts:
            batch, lane = self._running.pop(part)
            self._loads[lane] -= len(part.requests)
            batch.parts_left -= 1
            if not batch.parts_left:
                batch.done.set()


@asynccontextmanager
async def open_transport(settings: TransferSettings) -> AsyncIterator[CurlTransport]:
    """Run the transfer threads for the length of the block."""
    transport = CurlTransport(settings)
    try:
        yield transport
    finally:
        await transport.close()
