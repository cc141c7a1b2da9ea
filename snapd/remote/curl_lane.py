"""One transfer thread: a libcurl multi handle driven by epoll, fed through a wake-up descriptor.

A lane takes parts of batches, runs their requests side by side up to the limit of their channel,
fairly among the parts, and tells all parts that ended in one round with a single call.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import pycurl

from snapd.model.errors import InternalError, Interrupted, SnapsyncError
from snapd.model.settings import TransferSettings
from snapd.remote.curl_range_slot import RangeSlot
from snapd.remote.curl_slot import Slot
from snapd.remote.curl_small_slot import SmallSlot
from snapd.remote.exchanges import Method, Origin, Reply, Request
from snapd.remote.signing import Signers

EPOLL_EVENTS_MAX = 4096
"""More than a lane ever has sockets, so that one round takes all that is ready."""

_TO_EPOLL = {
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}


_NOT_YET = Reply()
"""Stands for replies that are still to come, and is never changed."""

Kind: TypeAlias = tuple[str, bool, str]
"""What a slot can't change any more: its method (or its use), signing, and the CA."""


class Channel:
    """What one lane may do for one store: so many of its requests at the same time.

    Any thread may set `in_flight_max`; `active` is the lane's own.
    """

    __slots__ = ("active", "in_flight_max")

    def __init__(self, in_flight_max: int) -> None:
        self.in_flight_max = in_flight_max
        self.active = 0


class Part:
    """The share of a batch that one lane runs; `replies` is whole once it has been reported.

    `waited_seconds` sums up over its requests how long each took once it was connected. Lanes do
    not call `on_end`: who is told that parts have ended does.
    """

    __slots__ = (
        "active",
        "cancelled",
        "channel",
        "next_index",
        "on_end",
        "origin",
        "replies",
        "requests",
        "waited_seconds",
    )

    def __init__(
        self,
        requests: Sequence[Request],
        origin: Origin,
        channel: Channel,
        on_end: Callable[[Part], None],
    ) -> None:
        self.requests = requests
        self.origin = origin
        self.channel = channel
        self.on_end = on_end
        self.waited_seconds = 0.0
        self.replies = [_NOT_YET] * len(requests)
        self.next_index = 0
        self.active = 0
        self.cancelled = False

    @property
    def waiting(self) -> bool:
        """Tell whether a request of it has not begun."""
        return self.next_index < len(self.requests)

    def give_up(self, error: SnapsyncError) -> None:
        """Let every request that has not begun end with this error."""
        for index in range(self.next_index, len(self.requests)):
            self.replies[index] = Reply(error=error)
        self.next_index = len(self.requests)


class Lane:
    """A thread of its own. `submit`, `cancel` and `stop` may be called from any thread.

    `report` is called in the lane's thread with the parts that have ended.
    """

    def __init__(
        self,
        settings: TransferSettings,
        report: Callable[[list[Part]], None],
        name: str,
        *,
        lanes: int = 1,
    ) -> None:
        """Start the thread. `lanes` is how many share the connections that the settings allow."""
        self._settings = settings
        self._connections_max = -(-settings.connections_max // lanes)
        self._report = report
        self._inbox: deque[Part] = deque()
        self._cancelled: deque[Part] = deque()
        self._queue: deque[Part] = deque()
        self._active: dict[Any, tuple[Slot, Part, int]] = {}
        self._refused: set[Any] = set()
        self._spare: dict[Kind, list[Slot]] = {}
        self._spare_slots = 0
        self._ended: list[Part] = []
        self._signers = Signers(time.time)  # noqa: TID251 - a server compares it with its own
        self._next_look_at = 0.0
        self._stopping = False
        self._wake_descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._wake_descriptor, select.EPOLLIN)
        self._multi = self._new_multi()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, part: Part) -> None:
        """Run the requests of a part; it is reported when all of them have ended."""
        self._inbox.append(part)
        self._wake()

    def cancel(self, part: Part) -> None:
        """Stop a part: it is reported at once, and none of its sinks is called after that."""
        part.cancelled = True
        self._cancelled.append(part)
        self._wake()

    def admit(self, channel: Channel, in_flight_max: int) -> None:
        """Change how many requests of a channel may run at the same time."""
        channel.in_flight_max = in_flight_max
        self._wake()

    def forget(self, channel: Channel) -> None:
        """Let go of a channel that is not used any more: its connections stay for others."""

    def stop(self) -> None:
        """End the thread, blocking; what still runs is reported as interrupted."""
        self._stopping = True
        self._wake()
        self._thread.join()
        os.close(self._wake_descriptor)

    def _wake(self) -> None:
        os.eventfd_write(self._wake_descriptor, 1)

    def _new_multi(self) -> Any:
        self._due: float | None = None
        multi = pycurl.CurlMulti()
        multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        multi.setopt(pycurl.M_MAXCONNECTS, self._connections_max)
        multi.setopt(pycurl.M_MAX_TOTAL_CONNECTIONS, self._connections_max)
        return multi

    def _on_socket(self, event: int, descriptor: int, _multi: object, _data: object) -> None:
        # libcurl may have closed the descriptor already, or have got the same number again.
        try:
            if event == pycurl.POLL_REMOVE:
                self._epoll.unregister(descriptor)
                return
            try:
                self._epoll.register(descriptor, _TO_EPOLL[event])
            except FileExistsError:
                self._epoll.modify(descriptor, _TO_EPOLL[event])
        except OSError:
            return

    def _on_timer(self, timeout_ms: int) -> None:
        self._due = None if timeout_ms < 0 else time.monotonic() + timeout_ms / 1000

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._round()
            except Exception as exc:  # noqa: BLE001  # a defect must fail the calls, not hang them
                self._fail_all(exc)
            self._tell()
        self._give_up_all(Interrupted("the store was closed while bytes were moving"))
        self._tell()
        self._close_slots()
        self._multi.close()
        self._epoll.close()

    def _round(self) -> None:
        self._perform(self._epoll.poll(self._patience_seconds(), EPOLL_EVENTS_MAX))
        self._end_refused()
        self._collect()
        self._end_stalled()
        while self._inbox:
            self._accept(self._inbox.popleft())
        while self._cancelled:
            self._withdraw(self._cancelled.popleft())
        self._fill()

    def _patience_seconds(self) -> float:
        # Once a body has begun, libcurl's own timer for slow ones comes at least once a second.
        if self._due is None:
            return -1
        return max(0.0, self._due - time.monotonic())

    def _perform(self, events: list[tuple[int, int]]) -> None:
        for descriptor, mask in events:
            if descriptor == self._wake_descriptor:
                os.eventfd_read(descriptor)
                continue
            action = pycurl.CSELECT_IN if mask & select.EPOLLIN else 0
            action |= pycurl.CSELECT_OUT if mask & select.EPOLLOUT else 0
            action |= pycurl.CSELECT_ERR if mask & (select.EPOLLERR | select.EPOLLHUP) else 0
            self._multi.socket_action(descriptor, action)
        if self._due is not None and self._due <= time.monotonic():
            self._due = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def _end_refused(self) -> None:
        """End downloads whose sink, or whose own check, has no use for more."""
        while self._refused:
            self._end(self._refused.pop(), pycurl.E_WRITE_ERROR, "")

    def _collect(self) -> None:
        queued = 1
        while queued:
            queued, done, failed = self._multi.info_read()
            for handle in done:
                self._end(handle, 0, "")
            for handle, code, message in failed:
                self._end(handle, code, message)

    def _end(self, handle: Any, curl_code: int, curl_message: str) -> None:
        slot, part, index = self._active.pop(handle)
        part.active -= 1
        part.channel.active -= 1
        part.waited_seconds += slot.waited_seconds()
        try:
            self._multi.remove_handle(handle)
            slot.cancelled = part.cancelled
            reply = slot.end(curl_code, curl_message)
            self._refused.discard(handle)
            self._put_back(slot)
            if reply is None:
                self._begin(part, index, streamed=True)
            else:
                part.replies[index] = reply
        finally:
            self._end_if_done(part)

    def _end_stalled(self) -> None:
        """End downloads that got no byte for too long, though all that was ready has been read."""
        now = time.monotonic()
        if now < self._next_look_at:
            return
        patience = self._settings.stall_timeout_seconds
        self._next_look_at = now + patience / 8
        for handle, (slot, *_) in list(self._active.items()):
            if slot.silent_seconds(now) > patience:
                message = f"nothing for {patience:g} s in the middle of the body"
                self._end(handle, pycurl.E_OPERATION_TIMEDOUT, message)

    def _put_back(self, slot: Slot) -> None:
        if self._spare_slots < self._connections_max:
            self._spare.setdefault(slot.kind, []).append(slot)
            self._spare_slots += 1
        else:
            slot.close()

    def _take_slot(self, request: Request, origin: Origin, *, streamed: bool) -> Slot:
        word: str = request.method
        if request.small is not None and request.byte_range is None and not streamed:
            word = "small"
        elif request.sink is not None and request.byte_range is not None:
            word = "range"
        kind = (word, bool(origin.access_key), origin.ca_file)
        if spare := self._spare.get(kind):
            self._spare_slots -= 1
            return spare.pop()
        slot = self._new_slot(word, request.method)
        slot.kind = kind
        return slot

    def _new_slot(self, word: str, method: Method) -> Slot:
        if word == "small":
            return SmallSlot(self._settings, self._signers)
        if word == "range":
            return RangeSlot(method, self._settings, self._refused.add)
        return Slot(method, self._settings)

    def _end_if_done(self, part: Part) -> None:
        if not part.waiting and not part.active:
            self._ended.append(part)

    def _accept(self, part: Part) -> None:
        if part.requests and not part.cancelled:
            self._queue.append(part)
        else:
            part.give_up(Interrupted("cancelled"))
            self._ended.append(part)

    def _withdraw(self, part: Part) -> None:
        queued = part in self._queue
        if not queued and not part.active:
            # It has ended already, or still lies in the inbox, where it will be seen cancelled.
            return
        if queued:
            self._queue.remove(part)
        part.give_up(Interrupted("cancelled"))
        for handle in [key for key, running in self._active.items() if running[1] is part]:
            self._drop(handle, Interrupted("cancelled"))
        self._end_if_done(part)

    def _drop(self, handle: Any, error: SnapsyncError) -> None:
        slot, part, index = self._active.pop(handle)
        self._multi.remove_handle(handle)
        self._refused.discard(handle)
        slot.release()
        self._put_back(slot)
        part.replies[index] = Reply(error=error)
        part.active -= 1
        part.channel.active -= 1

    def _fill(self) -> None:
        """Begin what fits, one request of each waiting part after the other.

        A source may take its time, so a cancel that comes in between is heard first.
        """
        full = 0
        while full < len(self._queue) and not self._cancelled:
            part = self._queue[0]
            if part.channel.active >= part.channel.in_flight_max:
                self._queue.rotate(-1)
                full += 1
                continue
            full = 0
            # It stays in the queue meanwhile, where a defect finds it and ends it.
            self._begin(part, part.next_index)
            part.next_index += 1
            self._queue.popleft()
            if part.waiting:
                self._queue.append(part)
            else:
                self._end_if_done(part)

    def _begin(self, part: Part, index: int, *, streamed: bool = False) -> None:
        request = part.requests[index]
        slot = self._take_slot(request, part.origin, streamed=streamed)
        error = slot.begin(request, part.origin)
        if error is not None:
            slot.release()
            self._put_back(slot)
            part.replies[index] = Reply(error=error)
            return
        self._multi.add_handle(slot.handle)
        self._active[slot.handle] = (slot, part, index)
        part.active += 1
        part.channel.active += 1

    def _tell(self) -> None:
        if self._ended:
            ended, self._ended = self._ended, []
            self._report(ended)

    def _fail_all(self, exc: Exception) -> None:
        error = InternalError(f"a transfer thread failed: {type(exc).__name__}: {exc}")
        error.__cause__ = exc
        self._give_up_all(error)
        self._multi.close()
        self._multi = self._new_multi()

    def _give_up_all(self, error: SnapsyncError) -> None:
        parts = {id(part): part for part in (*self._inbox, *self._queue)}
        parts |= {id(running[1]): running[1] for running in self._active.values()}
        self._inbox.clear()
        self._queue.clear()
        for handle in list(self._active):
            self._drop(handle, error)
        for part in parts.values():
            part.give_up(error)
            self._end_if_done(part)

    def _close_slots(self) -> None:
        for slots in self._spare.values():
            for slot in slots:
                slot.close()
        self._spare.clear()
        self._spare_slots = 0
