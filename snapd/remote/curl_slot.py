"""One libcurl easy handle, set up once and used for one request after the other."""

from __future__ import annotations

import hashlib
import math
import time
from base64 import b64encode
from typing import Any

import pycurl

from snapd import __version__
from snapd.model.errors import SnapsyncError, StoreFailing
from snapd.model.settings import TransferSettings
from snapd.remote.exchanges import Method, Origin, Reply, Request, status_of

RECEIVE_BUFFER_BYTES = 512 * 1024
ERROR_BODY_BYTES_MAX = 16 * 1024
KEEPALIVE_IDLE_SECONDS = 30
TOO_MANY_REQUESTS = 429
UNAVAILABLE = 503
UNSIGNED_PAYLOAD = "x-amz-content-sha256: UNSIGNED-PAYLOAD"
"""Leaves a body to TLS, which nobody can alter unseen either: its SHA-256 costs more than all else.

Without TLS it is the signature that proves a body, and libcurl hashes it.
"""
STOP_TRANSFER = -1
"""What a callback returns to libcurl to end its transfer."""


def md5_line(body: bytes) -> str:
    """Make the header that says the MD5 of a body, against accidents on its way."""
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    return f"Content-MD5: {b64encode(digest).decode()}"


class Slot:
    """A handle for one method, which streams bodies.

    `begin` prepares a request, `end` turns what happened to a reply.
    Between them libcurl calls back; an error raised by the sink ends the transfer and is kept.
    `last_byte_at` is when the latest piece of the body arrived, zero before the first. `kind` says
    to its lane for which requests it may be used.
    """

    __slots__ = (
        "_cut_off",
        "_digest",
        "_error",
        "_head",
        "_headers",
        "_method",
        "_origin",
        "_overlong",
        "_pieces",
        "_ranged",
        "_received",
        "_request",
        "_status",
        "cancelled",
        "handle",
        "kind",
        "last_byte_at",
    )

    def __init__(self, method: Method, settings: TransferSettings) -> None:
        self._method: Method = method
        self._origin: Origin | None = None
        self._digest = ""
        self._headers: tuple[str, ...] = ()
        self._ranged = False
        self._head: list[bytes] = []
        self.cancelled = False
        self.kind: tuple[str, bool, str] = (method, False, "")
        self.handle: Any = pycurl.Curl()
        self._set_up(settings)
        self._call_back()

    def _set_up(self, settings: TransferSettings) -> None:
        stall_seconds = max(1, math.ceil(settings.stall_timeout_seconds))
        options = {
            pycurl.NOSIGNAL: 1,
            pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
            pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,
            pycurl.FOLLOWLOCATION: 0,
            pycurl.BUFFERSIZE: RECEIVE_BUFFER_BYTES,
            pycurl.UPLOAD_BUFFERSIZE: RECEIVE_BUFFER_BYTES,
            pycurl.CONNECTTIMEOUT_MS: max(1, round(settings.connect_timeout_seconds * 1000)),
            # Watches uploads and the wait for an answer; averages too slowly for the body of one.
            pycurl.LOW_SPEED_LIMIT: 1,
            pycurl.LOW_SPEED_TIME: stall_seconds,
            pycurl.TCP_KEEPALIVE: 1,
            pycurl.TCP_KEEPIDLE: KEEPALIVE_IDLE_SECONDS,
            pycurl.USERAGENT: f"snapsync/{__version__}",
        }
        if self._method == "HEAD":
            options[pycurl.NOBODY] = 1
        elif self._method != "GET":
            options[pycurl.CUSTOMREQUEST] = self._method
        for option, value in options.items():
            self.handle.setopt(option, value)

    def _call_back(self) -> None:
        # A list's own append takes header lines without a Python frame for each.
        self.handle.setopt(pycurl.HEADERFUNCTION, self._head.append)
        self.handle.setopt(pycurl.WRITEFUNCTION, self._on_body, use_memoryview=True)

    def begin(self, request: Request, origin: Origin) -> Exception | None:
        """Prepare the handle for a request; an error of its sink or source is returned instead."""
        self._request = request
        self._head.clear()
        self._pieces: list[bytes] = []
        self._received = 0
        self._status = 0
        self._overlong = False
        self._cut_off = False
        self.last_byte_at = 0.0
        self._error: Exception | None = None
        self.cancelled = False
        try:
            if request.sink is not None:
                request.sink.start()
            if request.body is not None:
                body = request.body()
                self.handle.setopt(pycurl.POSTFIELDS, body)
                self._digest = md5_line(body) if origin.sends_digests else ""
            self._address(request, origin)
        except Exception as exc:  # noqa: BLE001  # whatever a sink raises is its item's outcome
            return exc
        return None

    def _address(self, request: Request, origin: Origin) -> None:
        handle = self.handle
        handle.setopt(pycurl.URL, origin.base_url + request.target)
        if origin is not self._origin:
            self._identify(origin)
        if self._digest or origin is not self._origin or request.headers != self._headers:
            lines = self._header_lines(request, origin)
            # An empty list would leave those of the request before, and with them its token.
            if lines:
                handle.setopt(pycurl.HTTPHEADER, lines)
            else:
                handle.unsetopt(pycurl.HTTPHEADER)
            self._headers = request.headers
        self._origin = origin
        if request.byte_range is not None:
            first, length = request.byte_range.offset, request.byte_range.length
            handle.setopt(pycurl.RANGE, f"{first}-{first + length - 1}")
        elif self._ranged:
            handle.unsetopt(pycurl.RANGE)
        self._ranged = request.byte_range is not None

    def _identify(self, origin: Origin) -> None:
        if origin.access_key:
            self.handle.setopt(pycurl.AWS_SIGV4, f"aws:amz:{origin.region}:s3")
            self.handle.setopt(pycurl.USERNAME, origin.access_key)
            self.handle.setopt(pycurl.PASSWORD, origin.secret_key)
        if origin.ca_file:
            self.handle.setopt(pycurl.CAINFO, origin.ca_file)

    def _header_lines(self, request: Request, origin: Origin) -> list[str]:
        lines = list(request.headers)
        if origin.token and origin.access_key:
            lines.append(f"x-amz-security-token: {origin.token}")
        if self._method in ("PUT", "POST"):
            # An empty `Expect:` keeps libcurl from waiting for a 100 before each larger body.
            lines += ["Content-Type: application/octet-stream", "Expect:"]
        if self._method == "PUT" and origin.leaves_bodies_to_tls:
            lines.append(UNSIGNED_PAYLOAD)
        if self._digest:
            lines.append(self._digest)
        return lines

    def _on_body(self, data: memoryview) -> int | None:
        self.last_byte_at = time.monotonic()
        if self._status == 0:
            self._status = status_of(self._head)
            if self._request.sink is not None:
                self._error = self._misfit()
        if self.cancelled or self._error is not None:
            return STOP_TRANSFER
        if self._request.sink is None or self._status >= 300:
            return self._keep(data)
        try:
            self._request.sink.write(data)
        except Exception as exc:  # noqa: BLE001  # whatever a sink raises is its item's outcome
            self._error = exc
            return STOP_TRANSFER
        self._received += len(data)
        return None

    def _misfit(self) -> SnapsyncError | None:
        """Refuse an answer that is not the range asked for, before its bytes meet the sink."""
        wanted = self._request.byte_range
        if wanted is None or self._status >= 300:
            return None
        answer = Reply(head=self._head)
        told = answer.header("content-range")
        if self._status == 206 and told.startswith(f"bytes {wanted.offset}-"):
            return None
        length = answer.header("content-length")
        whole_fits = wanted.offset == 0 and length.isdigit() and int(length) <= wanted.length
        if self._status == 200 and whole_fits:
            return None
        return StoreFailing(
            f"asked for bytes from {wanted.offset}, the server answered {self._status}"
            f" with Content-Range {told!r}",
            hint="The server or a proxy in between does not keep to range requests.",
        )

    def _keep(self, data: memoryview) -> int | None:
        failed = self._status >= 300
        limit = ERROR_BODY_BYTES_MAX if failed else self._request.limit_bytes
        room = limit - self._received
        self._received += len(data)
        if room >= len(data):
            self._pieces.append(bytes(data))
            return None
        if failed:
            self._pieces.append(bytes(data[: max(0, room)]))
            self._cut_off = True
        else:
            self._overlong = True
        return STOP_TRANSFER

    def silent_seconds(self, now: float) -> float:
        """Tell for how long a body that has begun has not gone on."""
        return now - self.last_byte_at if self.last_byte_at else 0.0

    def waited_seconds(self) -> float:
        """Tell how long the last request took, what its connection took left out."""
        getinfo = self.handle.getinfo
        ended_at, connected_at = getinfo(pycurl.TOTAL_TIME), getinfo(pycurl.PRETRANSFER_TIME)
        return float(ended_at - connected_at)

    def end(self, curl_code: int, curl_message: str) -> Reply | None:
        """Finish the sink if the whole body arrived, and say what came of the request.

        None: this kind of slot can't tell, and the request is to be asked again by a `Slot`.
        """
        status = self._status or status_of(self._head)
        if self._cut_off:
            # The answer is as good as whole: an error that goes on and on says no more than this.
            curl_code, curl_message = 0, ""
        reply = Reply(
            status=status,
            body=b"".join(self._pieces),
            curl_code=curl_code,
            curl_message=curl_message,
            overlong=self._overlong,
            error=self._error,
        )
        request = self._request
        sent_at = self.handle.getinfo(pycurl.PRETRANSFER_TIME)
        answered_at = self.handle.getinfo(pycurl.STARTTRANSFER_TIME)
        reply.latency_seconds = max(0.0, answered_at - sent_at)
        if request.sink is None or not reply.ok:
            reply.head = self._head.copy()
            reply.retry_after_seconds = self._retry_after_seconds(status)
        elif not self.cancelled:
            reply.size_bytes = self._received
            try:
                request.sink.finish()
            except Exception as exc:  # noqa: BLE001  # whatever a sink raises is its item's outcome
                reply.error = exc
        self.release()
        return reply

    def _retry_after_seconds(self, status: int) -> int:
        if status not in (TOO_MANY_REQUESTS, UNAVAILABLE):
            return 0
        return int(self.handle.getinfo(pycurl.RETRY_AFTER))

    def release(self) -> None:
        """Let go of the request: its sink, its source and its body."""
        if self._request.body is not None:
            self.handle.setopt(pycurl.POSTFIELDS, b"")
        del self._request
        self._pieces = []

    def close(self) -> None:
        """Free the handle, which must not be in a multi handle any more."""
        self.handle.close()
