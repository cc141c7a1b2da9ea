"""Ranges on their way into sinks: gathered, checked, refused, given up."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace

import anyio
import anyio.to_thread
import pycurl
import pytest

from snapd.model.errors import ConnectionLost, StoreFailing
from snapd.model.settings import MIB, TransferSettings
from snapd.remote.base import ByteRange
from snapd.remote.curl_slot import ERROR_BODY_BYTES_MAX
from snapd.remote.exchanges import Origin, Reply, Request
from snapd.remote.lanes import open_lanes
from snapd.remote.transport import CurlTransport, open_transport
from tests.contract.sinks import RecordingSink

SETTINGS = TransferSettings(transfer_threads=1)
HASTY = replace(SETTINGS, stall_timeout_seconds=0.5)
BODY = os.urandom(MIB)


class Server:
    """Says the same on every connection, for each request, and counts those that hung up."""

    def __init__(self, stack: ExitStack) -> None:
        self._listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.origin = Origin(f"http://127.0.0.1:{self._listener.getsockname()[1]}", "")
        self.said = b""
        self.asked = threading.Semaphore(0)
        self.hung_up = threading.Semaphore(0)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while connection.recv(4096):
                self.asked.release()
                connection.sendall(self.said)
        self.hung_up.release()


def answer(body: bytes, *, offset: int = 0, status: str = "206 Partial Content") -> bytes:
    where = f"Content-Range: bytes {offset}-{offset + len(body) - 1}/*\r\n"
    return f"HTTP/1.1 {status}\r\n{where}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def server() -> Iterator[Server]:
    with ExitStack() as stack:
        yield Server(stack)


@pytest.fixture
async def transport() -> AsyncIterator[CurlTransport]:
    async with open_lanes(SETTINGS) as lanes, open_transport(SETTINGS, lanes) as transport:
        yield transport


async def ask(
    transport: CurlTransport, server: Server, sink: RecordingSink, *, offset: int = 0
) -> Reply:
    request = Request("GET", "/x", sink=sink, byte_range=ByteRange(offset, len(BODY)))
    with anyio.fail_after(60):
        (reply,) = await transport.run([request], server.origin)
    return reply


async def test_pieces_are_passed_on_together(transport: CurlTransport, server: Server) -> None:
    server.said = answer(BODY, offset=7)
    sink = RecordingSink()
    reply = await ask(transport, server, sink, offset=7)
    assert reply.ok
    assert reply.size_bytes == len(BODY)
    assert sink.body == BODY
    assert sink.finished
    assert sink.calls.count("write") <= 5


@pytest.mark.parametrize("body", [BODY, BODY[:1000]])
async def test_another_range_than_asked_for_does_not_meet_the_sink(
    body: bytes, transport: CurlTransport, server: Server
) -> None:
    server.said = answer(body, offset=7)
    sink = RecordingSink()
    reply = await ask(transport, server, sink)
    assert isinstance(reply.error, StoreFailing)
    assert sink.calls == ["start"]


@pytest.mark.parametrize("ranged", [True, False])
async def test_an_error_that_does_not_end_is_cut_off(
    ranged: bool, transport: CurlTransport, server: Server
) -> None:
    server.said = b"HTTP/1.1 403 No\r\nContent-Length: 1000000000\r\n\r\n" + BODY
    wanted = ByteRange(0, 10) if ranged else None
    request = Request("GET", "/x", sink=RecordingSink(), byte_range=wanted)
    with anyio.fail_after(60):
        (reply,) = await transport.run([request], server.origin)
    assert (reply.status, reply.curl_code, reply.error) == (403, 0, None)
    assert reply.body == BODY[:ERROR_BODY_BYTES_MAX]


async def test_odd_headers_and_trailers_fail_nobody(
    transport: CurlTransport, server: Server
) -> None:
    begin, body = answer(BODY).split(b"\r\n\r\n", 1)
    begin = begin.replace(b"Content-Length: %d" % len(BODY), b"Transfer-Encoding: chunked")
    chunk = b"%x\r\n%b\r\n0\r\n" % (len(body), body)
    odd = b"HTTP/x: y\r\n"
    server.said = begin + b"\r\n" + odd + b"\r\n" + chunk + odd + b"\r\n"
    sink = RecordingSink()
    assert (await ask(transport, server, sink)).ok
    assert sink.body == BODY


@pytest.mark.parametrize("body", [BODY, BODY[:1000]])
async def test_a_sink_that_fails_ends_its_transfer_and_no_other(
    body: bytes, transport: CurlTransport, server: Server
) -> None:
    server.said = answer(body)
    error = ConnectionLost("no")
    sink = RecordingSink(fails_in="write", error=error)
    reply = await ask(transport, server, sink)
    assert reply.error is error
    assert not reply.ok
    assert sink.calls == ["start", "write"]
    again = RecordingSink()
    assert (await ask(transport, server, again)).ok
    assert again.body == body


async def test_what_is_refused_is_hung_up_on(transport: CurlTransport, server: Server) -> None:
    # The rest never comes, so nothing but the refusal can end it.
    server.said = answer(BODY)[: MIB // 2]
    sink = RecordingSink(fails_in="write", error=ConnectionLost("no"))
    reply = await ask(transport, server, sink)
    assert reply.curl_code == pycurl.E_WRITE_ERROR
    assert await anyio.to_thread.run_sync(lambda: server.hung_up.acquire(timeout=60))


async def test_the_body_of_an_error_is_kept_in_part(
    transport: CurlTransport, server: Server
) -> None:
    server.said = answer(BODY, status="503 Slow Down")
    sink = RecordingSink()
    reply = await ask(transport, server, sink)
    assert reply.status == 503
    assert 0 < len(reply.body) <= 16 * 1024
    assert BODY.startswith(reply.body)
    assert sink.calls == ["start"]


@pytest.mark.parametrize("come_bytes", [1000, MIB // 2])
async def test_a_body_that_stands_still_is_given_up(come_bytes: int, server: Server) -> None:
    server.said = answer(BODY)[:come_bytes]
    sink = RecordingSink()
    async with open_lanes(HASTY) as lanes, open_transport(HASTY, lanes) as transport:
        reply = await ask(transport, server, sink)
    assert reply.curl_code == pycurl.E_OPERATION_TIMEDOUT
    assert not sink.finished


async def test_nothing_is_passed_on_after_a_cancel(
    transport: CurlTransport, server: Server
) -> None:
    server.said = answer(BODY)[: MIB // 8]
    sink = RecordingSink()
    async with anyio.create_task_group() as group:
        group.start_soon(ask, transport, server, sink)
        assert await anyio.to_thread.run_sync(lambda: server.asked.acquire(timeout=60))
        group.cancel_scope.cancel()
    assert sink.calls == ["start"]
    server.said = answer(BODY)
    again = RecordingSink()
    assert (await ask(transport, server, again)).ok
    assert again.body == BODY
