"""One libcurl easy handle for ranges of large objects: pieces are gathered before they are passed.

libcurl hands over no more than 16 KiB at a time, 65,000 pieces a gibibyte. A buffered writer's own
`write` takes them without a Python frame for each.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pycurl

from snapd.model.settings import TransferSettings
from snapd.remote.curl_slot import Slot
from snapd.remote.exchanges import Method, Origin, Reply, Request, status_of

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_GATHERED_BYTES = 256 * 1024
"""More would not stay in the cache of a processor until it is written and hashed."""


class RangeSlot(Slot):
    """A handle for GETs of a range into a sink.

    `refuse` is told the handle of a transfer whose rest is of no use; until it is ended, what comes
    is thrown away.
    """

    __slots__ = ("_gathering", "_refuse", "_seen_at", "_seen_bytes")

    def __init__(
        self, method: Method, settings: TransferSettings, refuse: Callable[[Any], None]
    ) -> None:
        self._refuse = refuse
        self._gathering = io.BufferedWriter(_Passing(self._pass_on), _GATHERED_BYTES)
        super().__init__(method, settings)

    def _call_back(self) -> None:
        self.handle.setopt(pycurl.HEADERFUNCTION, self._head.append)
        self.handle.setopt(pycurl.WRITEFUNCTION, self._gathering.write, use_memoryview=True)

    def begin(self, request: Request, origin: Origin) -> Exception | None:
        """Prepare the handle for a request; an error of its sink is returned instead."""
        self._seen_bytes = 0
        self._seen_at = 0.0
        return super().begin(request, origin)

    def _pass_on(self, data: memoryview) -> None:
        if self._error is not None or self._cut_off or self.cancelled:
            return
        if self._status == 0:
            self._status = status_of(self._head)
            self._error = self._misfit()
        if self._error is None:
            self._pass_good(data)
        if self._error is not None or self._cut_off:
            self._refuse(self.handle)

    def _pass_good(self, data: memoryview) -> None:
        if self._status >= 300:
            self._keep(data)
            return
        assert self._request.sink is not None
        try:
            self._request.sink.write(data)
        except Exception as exc:  # noqa: BLE001  # whatever a sink raises is its item's outcome
            self._error = exc
        else:
            self._received += len(data)

    def silent_seconds(self, now: float) -> float:
        """Tell for how long a body that has begun has not gone on, as seen at each look."""
        come_bytes = self.handle.getinfo(pycurl.SIZE_DOWNLOAD_T)
        if come_bytes != self._seen_bytes:
            self._seen_bytes = come_bytes
            self._seen_at = now
        return now - self._seen_at if self._seen_at else 0.0

    def end(self, curl_code: int, curl_message: str) -> Reply | None:
        """Pass on the rest, finish the sink if all arrived, and say what came of the request."""
        self._gathering.flush()
        return super().end(curl_code, curl_message)

    def release(self) -> None:
        """Let go of the request: its sink, and what was gathered for it."""
        self.cancelled = True
        self._gathering.flush()
        super().release()

    def close(self) -> None:
        """Free the handle, which must not be in a multi handle any more."""
        super().close()
        self._gathering.close()


class _Passing(io.RawIOBase):
    """The far side of the buffer. It takes everything, because libcurl prints what is raised."""

    def __init__(self, pass_on: Callable[[memoryview], None]) -> None:
        self._pass_on = pass_on

    def writable(self) -> bool:
        """Say that this is written to."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Take what was gathered."""
        with memoryview(data) as view:
            self._pass_on(view)
            return len(view)
