"""A store's requests on their way through the lanes of the node, as many at once as pay.

The event loop is woken once a batch and lane; bodies meet their sinks in the lanes while they are
warm. Nothing here knows what a store is.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Literal, TypeAlias

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from snapd.model.pace import Pace, Window
from snapd.model.settings import TransferSettings
from snapd.remote.curl_lane import Channel, Part
from snapd.remote.curl_slot import TOO_MANY_REQUESTS, UNAVAILABLE
from snapd.remote.exchanges import Origin, Reply, Request
from snapd.remote.lanes import AnyLane, Lanes

CANCEL_SECONDS = 30.0
"""How long a cancelled call waits for a sink that is busy at the moment."""

PART_REQUESTS_MIN = 8
"""Fewer are not worth a message of their own to another lane."""

WINDOW_SECONDS = 0.1
WINDOW_SECONDS_MAX = 1.0
"""The pace is judged after so long if enough requests ended, or after this."""

TURNS_MIN = 4
"""So many requests for each that may be in flight are enough; of fewer the quick ones end first."""

TrafficKind: TypeAlias = Literal["small", "rest"]
"""Whole small objects; everything else: ranges, documents, uploads, questions."""

OnPace: TypeAlias = Callable[[TrafficKind, int], None]
"""Told of a new limit of requests in flight."""


class _Batch:
    """One call of `run`: its parts, and the event that the last of them sets."""

    def __init__(self, parts: int) -> None:
        self.parts_left = parts
        self.done = anyio.Event()


class Traffic:
    """The requests of one kind: how many are in flight, and how many may be."""

    def __init__(self, kind: TrafficKind, settings: TransferSettings, on_pace: OnPace) -> None:
        ceiling = min(settings.objects_in_flight, settings.connections_max)
        self._kind = kind
        self._pace = Pace(start=settings.objects_in_flight_start, ceiling=ceiling)
        self._on_pace = on_pace
        self._channels: dict[AnyLane, Channel] = {}
        self._loads: dict[AnyLane, int] = {}
        self._most_in_flight = 0
        self._fresh = True
        self.latency_seconds = 0.0
        """The shortest that was seen; zero before the first, or if nobody measures it."""
        self._begin_window()

    def begin(self, latency_seconds: float) -> None:
        """Before the first request: choose how many may be in flight by what an answer takes."""
        if self._fresh and latency_seconds:
            self._pace.begin(latency_seconds)
            self._on_pace(self._kind, self._pace.limit)
        self._fresh = False

    @property
    def in_flight(self) -> int:
        """How many requests have been handed out and have not ended."""
        return sum(self._loads.values())

    def split(
        self, requests: Sequence[Request], lanes: Sequence[AnyLane]
    ) -> list[tuple[AnyLane, Channel, Sequence[Request]]]:
        """Share requests among the lanes, the least busy first."""
        if not self.in_flight:
            # Nothing was asked for in between: that says nothing about the store.
            self._begin_window()
        self._settle_on(lanes)
        by_load = sorted(lanes, key=self._loads.__getitem__)
        share = max(PART_REQUESTS_MIN, math.ceil(len(requests) / len(lanes)))
        starts = range(0, len(requests), share)
        shares = []
        for lane, start in zip(by_load, starts, strict=False):
            own = requests[start : start + share]
            self._loads[lane] += len(own)
            shares.append((lane, self._channels[lane], own))
        self._most_in_flight = max(self._most_in_flight, self.in_flight)
        return shares

    def _settle_on(self, lanes: Sequence[AnyLane]) -> None:
        """Share the limit among the lanes that there are now; some may be new, others gone."""
        if self._channels.keys() == set(lanes):
            return
        for lane in self._channels.keys() - set(lanes):
            if not self._loads[lane]:
                del self._channels[lane], self._loads[lane]
        for lane in lanes:
            self._channels.setdefault(lane, Channel(0))
            self._loads.setdefault(lane, 0)
        self._share_out()

    def _share_out(self) -> None:
        for lane, channel in self._channels.items():
            lane.admit(channel, math.ceil(self._pace.limit / len(self._channels)))

    def ended(self, lane: AnyLane, part: Part) -> None:
        """Take note of a part that ended, and judge the pace now and then."""
        if lane in self._loads:
            self._loads[lane] -= len(part.requests)
        self._requests += len(part.requests)
        self._waited_seconds += part.waited_seconds
        for reply in part.replies:
            self._size_bytes += reply.size_bytes
            if reply.latency_seconds:
                shortest = self.latency_seconds or reply.latency_seconds
                self.latency_seconds = min(shortest, reply.latency_seconds)
            if reply.status in (TOO_MANY_REQUESTS, UNAVAILABLE):
                self._throttled += 1
        seconds = time.monotonic() - self._window_began_at
        if seconds < WINDOW_SECONDS:
            return
        enough = self._pace.limit * TURNS_MIN
        if self._requests >= enough or seconds >= WINDOW_SECONDS_MAX or self._throttled:
            self._judge(seconds)

    def _judge(self, seconds: float) -> None:
        before = self._pace.limit
        window = Window(
            seconds=seconds,
            requests=self._requests,
            size_bytes=self._size_bytes,
            latency_seconds=self._waited_seconds / self._requests,
            throttled=self._throttled,
            crowded=self._most_in_flight >= before,
        )
        if self._pace.judge(window) != before:
            self._on_pace(self._kind, self._pace.limit)
            self._share_out()
        self._begin_window()

    def close(self) -> None:
        """Let go of the channels."""
        for lane, channel in self._channels.items():
            lane.forget(channel)
        self._channels.clear()

    def _begin_window(self) -> None:
        self._window_began_at = time.monotonic()
        self._requests = self._size_bytes = self._throttled = 0
        self._waited_seconds = 0.0
        self._most_in_flight = self.in_flight


def _tell_nobody(_kind: TrafficKind, _limit: int) -> None:
    """Take no note."""


class CurlTransport:
    """Runs requests side by side, up to `objects_in_flight` of them over all calls.

    Made by `open_transport`; belongs to the event loop it was made in.
    """

    def __init__(self, settings: TransferSettings, lanes: Lanes, on_pace: OnPace) -> None:
        self._lanes = lanes
        self._small = Traffic("small", settings, on_pace)
        self._rest = Traffic("rest", settings, on_pace)

    async def run(self, requests: Sequence[Request], origin: Origin) -> list[Reply]:
        """Run requests side by side; replies are in their order and never raised.

        A cancelled call raises once its transfers are stopped and no sink of it is called any more.
        """
        await checkpoint_if_cancelled()
        if not requests:
            return []
        if all(request.small is not None and request.byte_range is None for request in requests):
            traffic, lanes = self._small, self._lanes.for_small()
            traffic.begin(self._rest.latency_seconds)
        else:
            traffic, lanes = self._rest, self._lanes.for_rest()
        parts: list[tuple[AnyLane, Part]] = []
        for lane, channel, own in traffic.split(requests, lanes):

            def ended(part: Part, lane: AnyLane = lane) -> None:
                traffic.ended(lane, part)
                batch.parts_left -= 1
                if not batch.parts_left:
                    batch.done.set()

            parts.append((lane, Part(own, origin, channel, ended)))
        batch = _Batch(len(parts))
        for lane, part in parts:
            lane.submit(part)
        try:
            await batch.done.wait()
        except BaseException:
            for lane, part in parts:
                lane.cancel(part)
            with anyio.CancelScope(shield=True), anyio.move_on_after(CANCEL_SECONDS):
                await batch.done.wait()
            raise
        if len(parts) == 1:
            return parts[0][1].replies
        return [reply for _, part in parts for reply in part.replies]

    def close(self) -> None:
        """Let go of the channels; nothing may be running any more."""
        self._small.close()
        self._rest.close()


@asynccontextmanager
async def open_transport(
    settings: TransferSettings, lanes: Lanes, on_pace: OnPace = _tell_nobody
) -> AsyncIterator[CurlTransport]:
    """Send requests through lanes for the length of the block."""
    transport = CurlTransport(settings, lanes, on_pace)
    try:
        yield transport
    finally:
        transport.close()
