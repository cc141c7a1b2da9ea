"""An HTTP proxy in front of a real server that fails on request, for tests and scripts.

    with FaultProxy.running("http://127.0.0.1:8333") as proxy:
        proxy.plan(Fault("reset", path=r"/objects/", times=2))
        ...                                    # use proxy.url instead of the server's own
        assert len(proxy.seen) == 3

It hands the request on untouched (the `Host` header too, so signatures that were made for the
proxy's own address are valid), and runs on an event loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

Kind = Literal[
    "reset",  # the connection is reset instead of an answer
    "hang",  # the request is taken and never answered
    "answer",  # `status`, `code` and `headers` instead of asking the server
    "close",  # the connection is closed after `after_bytes` of the body
    "cut",  # the same by a reset
    "shorten",  # an honest answer with only the first `after_bytes` of the body
    "stall",  # nothing more comes after `after_bytes` of the body
    "trickle",  # `chunk_bytes` of the body every `seconds`
    "flip",  # one bit of the byte at `after_bytes` of the body is wrong
    "delay",  # the answer comes `seconds` late
    "lose_answer",  # the server did what was asked, but the answer is lost by a reset
]
PIECE_BYTES = 64 * 1024


@dataclass
class Fault:
    """What to do to the next `times` requests whose method and target match; None: to all.

    With `lacking` it is done only to those without that header.
    """

    kind: Kind
    path: str = ""
    method: str = ""
    times: int | None = 1
    skip: int = 0
    after_bytes: int = 0
    seconds: float = 0.0
    chunk_bytes: int = 1
    status: int = 503
    code: str = "SlowDown"
    message: str = "planned fault"
    lacking: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def takes(self, method: str, target: str, headers: dict[str, str]) -> bool:
        """Tell whether this request is meant, and count it."""
        if self.lacking and self.lacking in headers:
            return False
        if not (re.search(self.path, target) and re.search(self.method, method)):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is None:
            return True
        self.times -= 1
        return self.times >= 0


class Seen(NamedTuple):
    """One request that arrived, and the fault it met."""

    method: str
    target: str
    fault: str
    headers: dict[str, str]


class Head(NamedTuple):
    """The first line and the headers of a message, and its bytes."""

    raw: bytes
    first: list[str]
    headers: dict[str, str]


class Gone(Exception):
    """The connection ends here; with `reset` it ends rudely."""

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__("connection ends")
        self.reset = reset


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class FaultProxy:
    """A running proxy. `seen` lists all requests; `began` is set when a fault begins to act."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (str(parts.hostname), int(parts.port or 80))
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._started = threading.Event()
        self._writers: list[asyncio.StreamWriter] = []
        self.seen: list[Seen] = []
        self.began = threading.Event()
        self.connections = 0
        self.connections_open = 0
        self.url = ""

    @classmethod
    @contextlib.contextmanager
    def running(cls, upstream: str, tls: ssl.SSLContext | None = None) -> Iterator[FaultProxy]:
        """Run a proxy in front of `upstream` in a thread of its own; with `tls` it speaks https."""
        proxy = cls(upstream)
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        scheme = "https" if tls else "http"
        proxy.url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        serving = proxy._serve(listener, tls)
        thread = threading.Thread(target=asyncio.run, args=(serving,), daemon=True)
        thread.start()
        proxy._started.wait()
        try:
            yield proxy
        finally:
            proxy._loop.call_soon_threadsafe(proxy._stop.set)
            thread.join()

    def plan(self, *faults: Fault) -> None:
        """Replace the plan; the first fault that matches a request and is not used up acts."""
        with self._lock:
            self._faults = list(faults)
            self.began.clear()

    def count(self, method: str = "", path: str = "") -> int:
        """Count the requests seen so far whose method and target match."""
        return sum(
            1 for one in self.seen if re.search(method, one.method) and re.search(path, one.target)
        )

    def _fault_for(self, head: Head) -> Fault | None:
        method, target = head.first[0], head.first[1]
        with self._lock:
            takers = (each for each in self._faults if each.takes(method, target, head.headers))
            fault = next(takers, None)
        self.seen.append(Seen(method, target, fault.kind if fault else "", head.headers))
        if fault:
            self.began.set()
        return fault

    async def _serve(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        tasks: set[asyncio.Task[None]] = set()

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await self._connection((reader, writer))
            finally:
                tasks.discard(task)

        server = await asyncio.start_server(
            accepted, sock=listener, ssl=tls, ssl_shutdown_timeout=0.1 if tls else None
        )
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in self._writers:
            _close(writer, reset=True)
        closed = (writer.wait_closed() for writer in self._writers)
        await asyncio.gather(*closed, return_exceptions=True)

    async def _connection(self, client: Streams) -> None:
        self.connections += 1
        self.connections_open += 1
        upstream: Streams | None = None
        reset = False
        self._writers.append(client[1])
        try:
            upstream = await asyncio.open_connection(*self._upstream)
            self._writers.append(upstream[1])
            while True:
                await self._exchange(client, upstream)
        except Gone as gone:
            reset = gone.reset
        except (OSError, asyncio.IncompleteReadError):
            reset = True
        except asyncio.CancelledError:
            reset = True
        finally:
            self.connections_open -= 1
            _close(client[1], reset=reset)
            if upstream:
                _close(upstream[1], reset=True)

    async def _exchange(self, client: Streams, upstream: Streams) -> None:
        head = await _read_head(client[0])
        fault = self._fault_for(head)
        if fault and fault.kind == "reset":
            raise Gone(reset=True)
        if fault and fault.kind == "hang":
            await _until_gone(client[0])
        if fault and fault.kind == "answer":
            await _drain_body(client, head)
            await _answer(client[1], fault, head)
            return
        upstream[1].write(head.raw)
        answer = await _send_body(client, upstream, head)
        await _give_back(client, upstream, (head, answer), fault)


async def _read_head(reader: asyncio.StreamReader) -> Head:
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as exc:
        raise Gone from exc
    lines = raw.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines[1:] if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Head(raw, lines[0].split(" ", 2), headers)


async def _send_body(client: Streams, upstream: Streams, head: Head) -> Head:
    if head.headers.get("expect", "").lower() == "100-continue":
        interim = await _read_head(upstream[0])
        if interim.first[1] != "100":
            return interim
        client[1].write(interim.raw)
    async for piece in _body(client[0], head):
        upstream[1].write(piece)
        await upstream[1].drain()
    answer = await _read_head(upstream[0])
    while answer.first[1] == "100":
        answer = await _read_head(upstream[0])
    return answer


async def _drain_body(client: Streams, head: Head) -> None:
    if head.headers.get("expect", "").lower() == "100-continue":
        client[1].write(b"HTTP/1.1 100 Continue\r\n\r\n")
    async for _ in _body(client[0], head):
        pass


async def _body(reader: asyncio.StreamReader, head: Head) -> AsyncIterator[bytes]:
    if head.headers.get("transfer-encoding", "").lower() == "chunked":
        size = -1
        while size != 0:
            line = await reader.readline()
            size = int(line.split(b";")[0], 16)
            yield line + await reader.readexactly(size + 2)
        return
    left = int(head.headers.get("content-length", "0"))
    while left > 0:
        piece = await reader.read(min(left, PIECE_BYTES))
        if not piece:
            raise Gone(reset=True)
        left -= len(piece)
        yield piece


async def _answer(writer: asyncio.StreamWriter, fault: Fault, head: Head) -> None:
    body = b"" if head.first[0] == "HEAD" or not fault.code else _error_body(fault)
    headers = {"Content-Type": "application/xml", "Content-Length": str(len(body)), **fault.headers}
    lines = [
        f"HTTP/1.1 {fault.status} Fault",
        *(f"{name}: {text}" for name, text in headers.items()),
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
    await writer.drain()


def _error_body(fault: Fault) -> bytes:
    text = f"<Error><Code>{fault.code}</Code><Message>{fault.message}</Message></Error>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()


async def _give_back(
    client: Streams, upstream: Streams, heads: tuple[Head, Head], fault: Fault | None
) -> None:
    request, answer = heads
    kind = fault.kind if fault else ""
    if kind == "lose_answer":
        raise Gone(reset=True)
    if fault and kind == "delay":
        await asyncio.sleep(fault.seconds)
    bodiless = request.first[0] == "HEAD" or answer.first[1] in ("204", "304")
    raw = answer.raw
    if fault and kind == "shorten":
        raw = re.sub(rb"(?i)(content-length: *)\d+", rb"\g<1>%d" % fault.after_bytes, raw)
    client[1].write(raw)
    if not bodiless:
        await _give_body(client, _body(upstream[0], answer), fault)
    await client[1].drain()
    if request.headers.get("expect") and answer.first[1] >= "300":
        raise Gone


async def _give_body(client: Streams, pieces: AsyncIterator[bytes], fault: Fault | None) -> None:
    position = 0
    async for piece in pieces:
        start, position = position, position + len(piece)
        if fault is None or fault.kind == "delay":
            client[1].write(piece)
        elif fault.kind == "trickle":
            await _trickle(client[1], piece, fault)
        elif fault.kind == "flip":
            client[1].write(_flipped(piece, fault.after_bytes - start))
        else:
            client[1].write(piece[: max(0, fault.after_bytes - start)])
            if position >= fault.after_bytes:
                await _end_early(client, fault.kind)
                return
        await client[1].drain()


async def _end_early(client: Streams, kind: Kind) -> None:
    await client[1].drain()
    if kind == "stall":
        await _until_gone(client[0])
    if kind == "shorten":
        raise Gone
    raise Gone(reset=kind == "cut")


async def _trickle(writer: asyncio.StreamWriter, piece: bytes, fault: Fault) -> None:
    for start in range(0, len(piece), fault.chunk_bytes):
        writer.write(piece[start : start + fault.chunk_bytes])
        await writer.drain()
        await asyncio.sleep(fault.seconds)


def _flipped(piece: bytes, index: int) -> bytes:
    if not 0 <= index < len(piece):
        return piece
    return piece[:index] + bytes([piece[index] ^ 1]) + piece[index + 1 :]


async def _until_gone(reader: asyncio.StreamReader) -> None:
    while await reader.read(PIECE_BYTES):
        pass
    raise Gone


def _close(writer: asyncio.StreamWriter, *, reset: bool = False) -> None:
    if reset:
        # Linger of zero seconds turns the close into a reset, and drops what was not sent.
        # One of TLS that is closed already has forgotten its socket.
        with contextlib.suppress(OSError, AttributeError):
            raw = writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    writer.close()
