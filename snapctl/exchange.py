"""HTTP/1.1 as the daemon speaks it: one request and one answer over a connected socket.

The standard library's client reads headers as if they were mail and brings TLS along: importing it
takes as long as everything else that a short command does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

_RECEIVE_BYTES = 64 * 1024
_HEAD_MAX_BYTES = 64 * 1024


class NotHttpError(Exception):
    """What answers does not speak HTTP/1.1."""


class TruncatedError(ConnectionError):
    """The other end closed the connection in the middle of its answer, or without one."""


class Answer:
    """The daemon's answer, whose body is read as it comes.

    Everything that reads raises `TruncatedError`, `NotHttpError`, and `TimeoutError` as the socket
    has it; nothing can be read after that.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = bytearray()
        self._line = bytearray()
        self.status, self.reason = 100, ""
        headers: dict[str, str] = {}
        while self.status < 200:
            self.status, self.reason = self._read_status()
            headers = dict(self._read_headers())
        self._pieces = self._body(headers)

    def read(self, max_bytes: int | None = None) -> bytes:
        """Read the rest of the body, or as much of it as is wanted at most."""
        body = bytearray()
        for piece in self._pieces:
            body += piece
            if max_bytes is not None and len(body) >= max_bytes:
                break
        return bytes(body[:max_bytes])

    def readline(self) -> bytes:
        """Wait for the next line of the body, empty when it has ended; goes without `read`."""
        while (end := self._line.find(b"\n") + 1) == 0:
            piece = next(self._pieces, b"")
            if not piece:
                end = len(self._line)
                break
            self._line += piece
        line = bytes(self._line[:end])
        del self._line[:end]
        return line

    def _read_status(self) -> tuple[int, str]:
        version, _, rest = self._read_head_line().partition(" ")
        status, _, reason = rest.partition(" ")
        if not version.startswith("HTTP/1.") or not (status.isdecimal() and len(status) == 3):
            raise NotHttpError("its answer begins otherwise")
        return int(status), reason

    def _read_headers(self) -> Iterator[tuple[str, str]]:
        size_bytes = 0
        while line := self._read_head_line():
            name, _, value = line.partition(":")
            yield name.strip().lower(), value.strip()
            size_bytes += len(line)
            if size_bytes > _HEAD_MAX_BYTES:
                raise NotHttpError("its headers do not end")

    def _body(self, headers: dict[str, str]) -> Iterator[bytes]:
        """Yield the body piece by piece; never an empty one."""
        if self.status in (204, 304):
            return
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while size_bytes := _number(self._read_head_line().partition(";")[0], base=16):
                yield from self._read_exactly(size_bytes)
                if self._read_head_line():
                    raise NotHttpError("a chunk is longer than it says")
            list(self._read_headers())
        elif "content-length" in headers:
            yield from self._read_exactly(_number(headers["content-length"], base=10))
        else:
            while self._received or self._receive():
                yield self._take(len(self._received))

    def _read_exactly(self, size_bytes: int) -> Iterator[bytes]:
        while size_bytes:
            if not self._received and not self._receive():
                raise TruncatedError
            piece = self._take(size_bytes)
            size_bytes -= len(piece)
            yield piece

    def _read_head_line(self) -> str:
        while (end := self._received.find(b"\n")) < 0:
            if len(self._received) > _HEAD_MAX_BYTES:
                raise NotHttpError("a line does not end")
            if not self._receive():
                raise TruncatedError
        return self._take(end + 1).decode("latin-1").rstrip("\r\n")

    def _take(self, max_bytes: int) -> bytes:
        taken = bytes(self._received[:max_bytes])
        del self._received[:max_bytes]
        return taken

    def _receive(self) -> bool:
        """Wait for more bytes; False if there will be none."""
        more = self._connection.recv(_RECEIVE_BYTES)
        self._received += more
        return bool(more)


def _number(text: str, *, base: int) -> int:
    if not text.strip().isalnum():
        raise NotHttpError("a length is no number")
    try:
        return int(text, base)
    except ValueError:
        raise NotHttpError("a length is no number") from None


def exchange(connection: socket.socket, method: str, path: str, body: str | None) -> Answer:
    """Send a request, with a JSON document as its body if there is one, and wait for the answer."""
    payload = (body or "").encode()
    head = (
        f"{method} {path} HTTP/1.1\r\n"
        "Host: localhost\r\n"
        "Accept-Encoding: identity\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n"
    )
    connection.sendall(head.encode("ascii") + payload)
    return Answer(connection)
