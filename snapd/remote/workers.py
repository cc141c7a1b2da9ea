"""Worker processes that fetch small objects: each a lane with an interpreter of its own.

One interpreter can run one thread of Python at a time, and that is what bounds small objects. A
worker that dies fails the requests it had, which are then asked again elsewhere, and is replaced.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
from anyio import to_thread

from snapd.model.errors import ConnectionLost, Interrupted
from snapd.model.settings import TransferSettings
from snapd.remote.curl_lane import Channel, Part
from snapd.remote.exchanges import Reply, Request
from snapd.remote.worker_frames import Frames, frame, reply_of, values_of
from snapd.runtime.background import background_tasks

logger = logging.getLogger(__name__)

StartWorker = Callable[[socket.socket], "subprocess.Popen[bytes]"]
"""Starts a process that serves the other end of a socket; see `worker_lane.serve`."""

WORKERS_MAX = 8
"""More would only wait for the network, or for the process that hands out the work."""

THREADS_MAX = 12
STOP_SECONDS = 10.0
SHORT_LIFE_SECONDS = 5.0
SHORT_LIVES_MAX = 3
"""After so many workers in a row that died young, the node goes on without."""

BEAT_SECONDS = 10.0
SILENT_BEATS_MAX = 3
"""A worker that answers nothing for so many beats is killed: it was stopped, or hangs."""
READY_SECONDS = 120.0
"""A worker that is not ready by then never will be, not on the slowest disk either."""


def count_of(settings: TransferSettings) -> int:
    """Tell how many workers the settings mean: with `auto` as many as there are processors.

    A single processor is better off with threads, which need no messages.
    """
    if settings.workers != "auto":
        return settings.workers
    processors = len(os.sched_getaffinity(0))
    return min(processors, WORKERS_MAX) if processors > 1 else 0


def threads_of(settings: TransferSettings) -> int:
    """Tell how many threads the settings mean: with `auto` two, and more on many processors.

    A thread of large objects spends its time in system calls and in the hash, without the lock of
    the interpreter, so they add up.
    """
    if settings.transfer_threads != "auto":
        return max(1, settings.transfer_threads)
    return min(THREADS_MAX, max(2, len(os.sched_getaffinity(0)) // 4))


class WorkerLane(asyncio.Protocol):
    """The near end of one worker process."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.ready = False
        self.gone = anyio.Event()
        self.started_at = time.monotonic()
        self._frames = Frames()
        self._parts: dict[int, Part] = {}
        self._numbers: dict[Part, int] = {}
        self._channels: dict[Channel, int] = {}
        self._next_number = 0
        self._silent_beats = 0
        self._pipe: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket's transport."""
        self._pipe = cast("asyncio.WriteTransport", transport)

    def submit(self, part: Part) -> None:
        """Send the requests of a part to the worker."""
        number = self._next_number = self._next_number + 1
        self._parts[number] = part
        self._numbers[part] = number
        self._send(
            (
                "part",
                number,
                self._channel(part.channel),
                part.channel.in_flight_max,
                values_of(part.origin),
                [(request.target, *_packed(request)) for request in part.requests],
            )
        )

    def cancel(self, part: Part) -> None:
        """Tell the worker to stop a part; it answers when no sink is called any more."""
        if part in self._numbers:
            self._send(("cancel", self._numbers[part]))

    def admit(self, channel: Channel, in_flight_max: int) -> None:
        """Tell the worker how many requests of a channel may run at the same time."""
        if channel.in_flight_max != in_flight_max:
            channel.in_flight_max = in_flight_max
            self._send(("admit", self._channel(channel), in_flight_max))

    def forget(self, channel: Channel) -> None:
        """Tell the worker that a channel is not used any more."""
        number = self._channels.pop(channel, None)
        if number is not None:
            self._send(("forget", number))

    def tell_log(self, log: dict[str, Any]) -> None:
        """Tell the worker how to log from now on."""
        self._send(("log", log))

    def beat(self) -> bool:
        """Ask for a sign of life; False if there was none for too long."""
        if self._silent_beats >= SILENT_BEATS_MAX:
            return False
        self._silent_beats += 1
        self._send(("ping",))
        return True

    def _channel(self, channel: Channel) -> int:
        if channel not in self._channels:
            self._next_number += 1
            self._channels[channel] = self._next_number
        return self._channels[channel]

    def _send(self, message: tuple[Any, ...]) -> None:
        if self._pipe is not None:
            self._pipe.write(frame(message))

    def data_received(self, data: bytes) -> None:
        """Take what the worker says."""
        self._silent_beats = 0
        for message in self._frames.feed(data):
            if message[0] in ("ready", "pong"):
                self.ready = True
                continue
            _, number, waited_seconds, answers = message
            # An answer that makes no sense closes the socket, which ends all parts, this one too.
            replies = list(map(reply_of, answers))
            part = self._parts.pop(number)
            del self._numbers[part]
            part.waited_seconds = waited_seconds
            part.replies = replies
            part.on_end(part)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what the worker had: it is gone, or told to go."""
        self.ready = False
        self._pipe = None
        parts, self._parts = list(self._parts.values()), {}
        self._numbers.clear()
        for part in parts:
            error = Interrupted("cancelled") if part.cancelled else _gone()
            part.replies = [Reply(error=error) for _ in part.requests]
            part.on_end(part)
        self.gone.set()

    def hang_up(self) -> None:
        """Close the socket, which ends the worker."""
        if self._pipe is not None:
            self._pipe.close()


def _packed(request: Request) -> tuple[str | int, ...]:
    assert request.small is not None
    return request.small.packed()


def _gone() -> ConnectionLost:
    return ConnectionLost(
        "a transfer process ended unasked",
        hint="It may have been killed for lack of memory; `[transfer] workers = 0` does without.",
    )


class Workers:
    """The worker processes of a node; one that dies is replaced, unless they die young."""

    def __init__(self, count: int, start: StartWorker) -> None:
        self.count = count
        self._start = start
        self._lanes: list[WorkerLane] = []
        self._log: dict[str, Any] | None = None
        self._wanted = anyio.Event()

    def warm_up(self) -> None:
        """Start the processes, unless they run."""
        self._wanted.set()

    def set_log(self, log: dict[str, Any]) -> None:
        """Have all processes log in another way, those too that are started later."""
        self._log = log
        for lane in self._lanes:
            lane.tell_log(log)

    def ready(self) -> Sequence[WorkerLane]:
        """Give those that take work now."""
        return [lane for lane in self._lanes if lane.ready]

    async def keep_one(self) -> None:
        """Keep one worker running, for ever or until too many in a row died young."""
        await self._wanted.wait()
        short_lives = 0
        while short_lives < SHORT_LIVES_MAX:
            try:
                lived_seconds = await self._live_once()
            except (OSError, RuntimeError) as error:
                # A bound on processes, say, or an interpreter that this user may not start.
                logger.warning("going on without a transfer process: %s", error)
                return
            short_lives = short_lives + 1 if lived_seconds < SHORT_LIFE_SECONDS else 0
            logger.warning("a transfer process ended unasked after %.1f s", lived_seconds)
        logger.error("transfer processes die at once; going on with one less")

    async def _live_once(self) -> float:
        """Run one worker to its end; cancelled, it is told to end, and killed if it does not."""
        near, far = socket.socketpair()
        with far:
            try:
                process = await to_thread.run_sync(self._start, far)
            except BaseException:
                near.close()
                raise
        lane = WorkerLane(process)
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: lane, sock=near)
            self._lanes.append(lane)
            if self._log is not None:
                lane.tell_log(self._log)
            await _watch(lane)
        finally:
            if lane in self._lanes:
                self._lanes.remove(lane)
            lane.hang_up()
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(_reap, process)
        return time.monotonic() - lane.started_at


async def _watch(lane: WorkerLane) -> None:
    """Wait for a worker's end; one that gives no sign of life is killed."""
    while not await _ended_within(BEAT_SECONDS, lane):
        age_seconds = time.monotonic() - lane.started_at
        is_well = lane.beat() if lane.ready else age_seconds <= READY_SECONDS
        if not is_well:
            what = "hangs" if lane.ready else "does not get ready"
            logger.warning("a transfer process %s and is killed", what)
            # One that waits for a disk dies only when the disk has answered.
            lane.ready = False
            lane.process.kill()
            await lane.gone.wait()


async def _ended_within(seconds: float, lane: WorkerLane) -> bool:
    with anyio.move_on_after(seconds):
        await lane.gone.wait()
    return lane.gone.is_set()


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Wait for a process's end, and kill it if that takes too long; never without a bound."""
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        logger.warning("process %d was killed and does not die: it waits for a disk", process.pid)


@asynccontextmanager
async def open_workers(
    settings: TransferSettings, start: StartWorker | None
) -> AsyncIterator[Workers | None]:
    """Have worker processes for the length of the block, if the settings want some.

    They are started by `Workers.warm_up`; leaving the block ends them.
    """
    count = count_of(settings) if start is not None else 0
    if start is None or not count:
        yield None
        return
    workers = Workers(count, start)
    async with background_tasks() as tasks:
        for _ in range(count):
            tasks.start_soon(workers.keep_one)
        yield workers
