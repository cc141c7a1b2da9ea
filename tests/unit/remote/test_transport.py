"""The transfer threads: many at once, fair, bounded, cancelled, closed."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import anyio.to_thread
import pycurl
import pytest

from snapd.model.errors import InternalError, Interrupted
from snapd.model.settings import TransferSettings
from snapd.remote import curl_lane
from snapd.remote import transport as transport_module
from snapd.remote.curl_lane import Channel, Part
from snapd.remote.exchanges import Origin, Reply, Request
from snapd.remote.lanes import open_lanes
from snapd.remote.transport import CurlTransport, Traffic, open_transport
from tests.contract.sinks import GatedSink, RecordingSink

SETTINGS = TransferSettings(objects_in_flight=600, objects_in_flight_start=600, transfer_threads=2)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class HeldServer:
    """Takes connections and answers none of them before it is told to."""

    def __init__(self, listener: socket.socket, stack: ExitStack) -> None:
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._listener = listener
        self._stack = stack
        self._held: list[socket.socket] = []

    def hold(self, count: int) -> None:
        """Wait for so many requests."""
        while len(self._held) < count:
            connection = self._stack.enter_context(self._listener.accept()[0])
            connection.settimeout(60)
            assert b"\r\n\r\n" in connection.recv(4096)
            self._held.append(connection)

    def answer(self, data: bytes = ANSWER) -> None:
        """Answer all that wait."""
        for connection in self._held:
            connection.sendall(data)

    def converse(self, count: int) -> list[str]:
        """Answer on the one held connection, request after request, and tell what was asked."""
        [connection] = self._held
        asked = []
        for _ in range(count):
            connection.sendall(ANSWER)
            asked.append(connection.recv(4096).split()[1].decode())
        return asked

    def nobody_else_comes(self) -> bool:
        """Tell whether no further connection arrives for a moment."""
        self._listener.settimeout(0.2)
        try:
            self._stack.enter_context(self._listener.accept()[0])
        except TimeoutError:
            return True
        return False

    def all_hung_up(self) -> bool:
        """Wait until every held connection is closed by the other side."""
        return all(connection.recv(10) == b"" for connection in self._held)


@pytest.fixture
def server() -> Iterator[HeldServer]:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
        listener.settimeout(60)
        yield HeldServer(listener, stack)


@asynccontextmanager
async def opened(settings: TransferSettings) -> AsyncIterator[CurlTransport]:
    async with open_lanes(settings) as lanes, open_transport(settings, lanes) as transport:
        yield transport


@pytest.fixture
async def transport() -> AsyncIterator[CurlTransport]:
    async with opened(SETTINGS) as transport:
        yield transport


@contextmanager
def with_threads_gone() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [one for one in threading.enumerate() if one.name.startswith("transfer")]
    assert set(left) <= before


async def test_more_connections_than_select_could_watch(
    transport: CurlTransport, server: HeldServer
) -> None:
    sinks = [RecordingSink() for _ in range(600)]
    requests = [Request("GET", f"/{i}", sink=sink) for i, sink in enumerate(sinks)]
    replies: list[Reply] = []

    async def run() -> None:
        replies.extend(await transport.run(requests, Origin(server.url, "")))

    # Descriptors above 1024 are what breaks select.
    with ExitStack() as stack:
        for _ in range(500):
            stack.enter_context(socket.socket())
        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await anyio.to_thread.run_sync(server.hold, 600)
            await anyio.to_thread.run_sync(server.answer)
    assert [reply.size_bytes for reply in replies] == [5] * 600
    assert all(sink.body == b"hello" and sink.finished for sink in sinks)


async def test_no_more_in_flight_than_configured(server: HeldServer) -> None:
    settings = TransferSettings(objects_in_flight=6, transfer_threads=2)
    async with opened(settings) as transport, anyio.create_task_group() as group:
        requests = [Request("GET", f"/{i}") for i in range(20)]
        group.start_soon(transport.run, requests, Origin(server.url, ""))
        await anyio.to_thread.run_sync(server.hold, 6)
        assert await anyio.to_thread.run_sync(server.nobody_else_comes)
        group.cancel_scope.cancel()


async def test_a_small_batch_does_not_wait_behind_a_big_one(server: HeldServer) -> None:
    settings = TransferSettings(objects_in_flight=1, transfer_threads=1)
    origin = Origin(server.url, "")
    async with opened(settings) as transport, anyio.create_task_group() as group:
        group.start_soon(transport.run, [Request("GET", "/big")] * 50, origin)
        await anyio.to_thread.run_sync(server.hold, 1)
        group.start_soon(transport.run, [Request("GET", "/small")], origin)
        await anyio.wait_all_tasks_blocked()
        asked = await anyio.to_thread.run_sync(server.converse, 6)
        group.cancel_scope.cancel()
    assert asked.index("/small") <= 2


async def test_cancelling_hangs_up_and_frees_the_places(
    transport: CurlTransport, server: HeldServer
) -> None:
    sinks = [RecordingSink() for _ in range(30)]
    requests = [Request("GET", "/", sink=sink) for sink in sinks]
    async with anyio.create_task_group() as group:
        group.start_soon(transport.run, requests, Origin(server.url, ""))
        await anyio.to_thread.run_sync(server.hold, 30)
        group.cancel_scope.cancel()
    assert await anyio.to_thread.run_sync(server.all_hung_up)
    assert [sink.calls for sink in sinks] == [["start"]] * 30


async def test_cancelling_waits_for_a_sink_that_is_busy(
    transport: CurlTransport, server: HeldServer
) -> None:
    sink = GatedSink()
    returned = anyio.Event()

    async def run(scope: anyio.CancelScope) -> None:
        with scope:
            await transport.run([Request("GET", "/", sink=sink)], Origin(server.url, ""))
        returned.set()

    scope = anyio.CancelScope()
    async with anyio.create_task_group() as group:
        group.start_soon(run, scope)
        await anyio.to_thread.run_sync(server.hold, 1)
        server.answer()
        await anyio.to_thread.run_sync(sink.reached.wait, 10)
        scope.cancel()
        await anyio.sleep(0.1)
        assert not returned.is_set()
        sink.gate.set()
    assert sink.calls == ["start", "write"]


async def test_closing_ends_the_threads_and_what_runs(server: HeldServer) -> None:
    replies: list[Reply] = []

    async def run(transport: CurlTransport) -> None:
        replies.extend(await transport.run([Request("GET", "/")] * 3, Origin(server.url, "")))

    with with_threads_gone():
        async with anyio.create_task_group() as group, opened(SETTINGS) as transport:
            group.start_soon(run, transport)
            await anyio.to_thread.run_sync(server.hold, 3)
    assert [type(reply.error) for reply in replies] == [Interrupted] * 3


async def test_connections_are_used_again(server: HeldServer) -> None:
    settings = TransferSettings(objects_in_flight=1, transfer_threads=1)
    async with opened(settings) as transport, anyio.create_task_group() as group:
        requests = [Request("GET", f"/{i}") for i in range(4)]
        group.start_soon(transport.run, requests, Origin(server.url, ""))
        await anyio.to_thread.run_sync(server.hold, 1)
        asked = await anyio.to_thread.run_sync(server.converse, 3)
        server.answer()
    assert asked == ["/1", "/2", "/3"]


async def test_a_defect_in_setting_up_a_request_ends_that_request(
    transport: CurlTransport, server: HeldServer
) -> None:
    [reply] = await transport.run([Request("GET", "/\u20ac")], Origin(server.url, ""))
    assert isinstance(reply.error, Exception)


async def test_a_defect_before_a_request_begins_fails_the_call(
    transport: CurlTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(curl_lane, "Slot", broken)
    with anyio.fail_after(60):
        [reply] = await transport.run([Request("GET", "/")], Origin("http://127.0.0.1:9", ""))
    assert isinstance(reply.error, InternalError)


async def test_a_token_is_not_sent_to_the_next_store() -> None:
    tokens = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            tokens.append(self.headers.get("x-amz-security-token"))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{listener.server_address[1]}"
        async with opened(TransferSettings(transfer_threads=1)) as transport:
            for token in ("one", "", "two"):
                origin = Origin(url, "here", "key", "secret", token)
                [reply] = await transport.run([Request("GET", "/")], origin)
                assert reply.ok
        listener.shutdown()
        thread.join()
    assert tokens == ["one", None, "two"]


class IdleLane:
    """A lane that does nothing."""

    def submit(self, part: Part) -> None:
        """Leave it."""

    def cancel(self, part: Part) -> None:
        """Leave it."""

    def admit(self, channel: Channel, in_flight_max: int) -> None:
        """Leave it."""

    def forget(self, channel: Channel) -> None:
        """Leave it."""


def test_a_part_may_end_after_its_store_was_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "WINDOW_SECONDS", 0.0)
    limits: list[int] = []
    traffic = Traffic("small", SETTINGS, lambda _kind, limit: limits.append(limit))
    [(lane, channel, own)] = traffic.split([Request("GET", "/")], [IdleLane()])
    traffic.close()
    part = Part(own, Origin("", ""), channel, lambda _: None)
    part.replies = [Reply(503)]
    traffic.ended(lane, part)
    assert limits == [300]


class AdmittedLane(IdleLane):
    """Knows how many it may run at once."""

    def admit(self, channel: Channel, in_flight_max: int) -> None:
        """Take note of it."""
        channel.in_flight_max = in_flight_max


def test_how_many_begin_is_told_by_the_first_answer_and_only_by_that() -> None:
    limits: list[int] = []
    settings = TransferSettings()
    traffic = Traffic("small", settings, lambda _kind, limit: limits.append(limit))
    traffic.begin(0.02)
    traffic.begin(0.001)
    lanes = [AdmittedLane(), AdmittedLane()]
    [(_, first, _), (_, second, _)] = traffic.split([Request("GET", "/")] * 100, lanes)
    assert limits == [200]
    assert [first.in_flight_max, second.in_flight_max] == [100, 100]


def test_nobody_knows_how_many_shall_begin_before_there_was_an_answer() -> None:
    traffic = Traffic("small", TransferSettings(), lambda _kind, _limit: None)
    traffic.begin(0.0)
    traffic.begin(0.02)
    [(_, channel, _)] = traffic.split([Request("GET", "/")], [AdmittedLane()])
    assert channel.in_flight_max == 64


async def test_it_is_measured_how_long_a_server_thinks(
    transport: CurlTransport, server: HeldServer
) -> None:
    replies: list[Reply] = []

    async def run() -> None:
        replies.extend(await transport.run([Request("GET", "/")], Origin(server.url, "")))

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await anyio.to_thread.run_sync(server.hold, 1)
        await anyio.to_thread.run_sync(server.answer)
    assert 0 < replies[0].latency_seconds < 10


async def test_a_body_that_stalls_is_given_up_however_long_a_connection_may_take(
    server: HeldServer,
) -> None:
    settings = TransferSettings(
        stall_timeout_seconds=1.0, connect_timeout_seconds=600.0, transfer_threads=1
    )
    replies: list[Reply] = []
    async with opened(settings) as transport:
        sinks = [RecordingSink(), RecordingSink()]
        requests = [Request("GET", f"/{i}", sink=sink) for i, sink in enumerate(sinks)]

        async def run() -> None:
            replies.extend(await transport.run(requests, Origin(server.url, "")))

        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(run)
                await anyio.to_thread.run_sync(server.hold, 2)
                server.answer(ANSWER[:-2])
    assert [reply.curl_code for reply in replies] == [pycurl.E_OPERATION_TIMEDOUT] * 2
