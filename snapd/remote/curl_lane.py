"""One transfer thread: a libcurl multi handle driven by epoll, fed through a wake-up descriptor.

A lane takes parts of batches, runs their requests side by side up to its limit, fairly among the
parts, and tells all parts that ended in one round with a single call into the event loop.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pycurl

from snapd.model.errors import InternalError, Interrupted, SnapsyncError
from snapd.model.settings import TransferSettings
from snapd.remote.curl_slot import Slot
from snapd.remote.exchanges import Method, Origin, Reply, Request

EPOLL_EVENTS_MAX = 4096
"""More than a lane ever has sockets, so that one round takes all that is ready."""

_TO_EPOLL = {
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}


class Part:
    """The share of a batch that one lane runs; `replies` is whole once it has been reported."""

    __slots__ = ("active", "cancelled", "next_index", "origin", "replies", "requests")

    def __init__(self, requests: Sequence[Request], origin: Origin) -> None:
        self.requests = requests
        self.origin = origin
        self.replies: list[Reply] = [Reply() for _ in requests]
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
        in_flight_max: int,
        report: Callable[[list[Part]], None],
        name: str,
    ) -> None:
        self._settings = settings
        self._in_flight_max = in_flight_max
        self._report = report
        self._inbox: deque[Part] = deque()
        self._cancelled: deque[Part] = deque()
        self._queue: deque[Part] = deque()
        self._active: dict[Any, tuple[Slot, Part, int]] = {}
        self._spare: dict[Method, list[Slot]] = {}
        self._ended: list[Part] = []
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
        multi.setopt(pycurl.M_MAXCONNECTS, self._in_flight_max)
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
        self._collect()
        self._end_stalled()
        while self._inbox:
            self._accept(self._inbox.popleft())
        while self._cancelled:
            self._withdraw(self._cancelled.popleft())
        self._fill()

    def _patience_seconds(self) -> float:
        # While transfers run, libcurl's own timer for slow ones comes at least once a second.
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
        try:
            self._multi.remove_handle(handle)
            slot.cancelled = part.cancelled
            part.replies[index] = slot.end(curl_code, curl_message)
            self._put_back(part.requests[index].method, slot)
        finally:
            self._end_if_done(part)

    def _end_stalled(self) -> None:
        """End downloads that got no byte for too long, though all that was ready has been read."""
        now = time.monotonic()
        if now < self._next_look_at:
            return
        patience = self._settings.stall_timeout_seconds
        self._next_look_at = now + patience / 8
        for handle, (slot, _, _) in list(self._active.items()):
            if slot.last_byte_at and now - slot.last_byte_at > patience:
                message = f"nothing for {patience:g} s in the middle of the body"
                self._end(handle, pycurl.E_OPERATION_TIMEDOUT, message)

    def _put_back(self, method: Method, slot: Slot) -> None:
        spare = self._spare.setdefault(method, [])
        if len(spare) < self._in_flight_max:
            spare.append(slot)
        else:
            slot.close()

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
            self._drop(handle)
        self._end_if_done(part)

    def _drop(self, handle: Any) -> None:
        slot, part, index = self._active.pop(handle)
        self._multi.remove_handle(handle)
        slot.release()
        self._put_back(part.requests[index].method, slot)
        part.replies[index] = Reply(error=Interrupted("cancelled"))
        part.active -= 1

    def _fill(self) -> None:
        """Begin what fits, one request of each waiting part after the other.

        A source may take its time, so a cancel that comes in between is heard first.
        """
        while self._queue and not self._cancelled and len(self._active) < self._in_flight_max:
            part = self._queue[0]
            self._begin(part, part.next_index)
            part.next_index += 1
            self._queue.popleft()
            if part.waiting:
                self._queue.append(part)
            else:
                self._end_if_done(part)

    def _begin(self, part: Part, index: int) -> None:
        request = part.requests[index]
        spare = self._spare.get(request.method)
        slot = spare.pop() if spare else Slot(request.method, self._settings)
        error = slot.begin(request, part.origin)
        if error is not None:
            slot.release()
            self._put_back(request.method, slot)
            part.replies[index] = Reply(error=error)
            return
        self._multi.add_handle(slot.handle)
        self._active[slot.handle] = (slot, part, index)
        part.active += 1

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
            _, part, index = self._active[handle]
            self._drop(handle)
            part.replies[index] = Reply(error=error)
        for part in parts.values():
            part.give_up(error)
            self._end_if_done(part)

    def _close_slots(self) -> None:
        for slots in self._spare.values():
            for slot in slots:
                slot.close()
        self._spare.clear()
