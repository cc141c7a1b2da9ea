from __future__ import annotations

import asyncio
import json
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import pytest
from aiohttp import web
from anyio import to_thread

from snapd.api import connections
from snapd.api.connections import Bounds, Gate, Gates, fit_to_open_files
from snapd.api.listening import control_socket
from snapd.api.serving import serve_socket, serve_tcp

HASTY = Bounds(connections_max=8, per_client_max=6, idle_seconds=0.3, stuck_seconds=0.3)
LARGE = b"x" * 4_000_000


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_LOOK_SECONDS", 0.05)


def app(held: anyio.Event | None = None, begun: list[web.Request] | None = None) -> web.Application:
    async def hello(_request: web.Request) -> web.Response:
        return web.Response(text="hello")

    async def hold(request: web.Request) -> web.Response:
        assert held is not None
        if begun is not None:
            begun.append(request)
        await held.wait()
        return web.Response(text="held")

    async def large(_request: web.Request) -> web.Response:
        return web.Response(body=LARGE)

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(LARGE[:100_000])

    made = web.Application()
    made.router.add_get("/", hello)
    made.router.add_get("/hold", hold)
    made.router.add_get("/large", large)
    made.router.add_get("/stream", stream)
    return made


@asynccontextmanager
async def serving(
    path: Path,
    bounds: Bounds,
    held: anyio.Event | None = None,
    begun: list[web.Request] | None = None,
) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.UnixConnector(str(path), limit=0)
    with control_socket(path, mode=0o600) as listener:
        async with (
            serve_socket(app(held, begun), listener, bounds=bounds),
            aiohttp.ClientSession(connector=connector) as client,
        ):
            yield client


def connected(path: Path, text: bytes = b"") -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(path))
    connection.sendall(text)
    return connection


async def ended(connection: socket.socket) -> bytes:
    """Read until the server ends the connection; what it said before."""

    def read() -> bytes:
        said = b""
        try:
            while piece := connection.recv(1 << 20):
                said += piece
        except ConnectionResetError:
            pass
        return said

    with anyio.fail_after(60):
        return await to_thread.run_sync(read)


@pytest.mark.parametrize("text", [b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: "])
async def test_who_says_nothing_or_only_a_part_is_cut(tmp_path: Path, text: bytes) -> None:
    async with serving(tmp_path / "s", HASTY) as client:
        with connected(tmp_path / "s", text) as connection:
            assert b"hello" not in await ended(connection)
        async with client.get("http://x/") as reply:
            assert reply.status == 200


async def test_a_request_one_byte_at_a_time_is_cut(tmp_path: Path) -> None:
    async with serving(tmp_path / "s", HASTY):
        with (
            connected(tmp_path / "s") as connection,
            anyio.fail_after(60),
            pytest.raises(ConnectionError),
        ):
            while True:
                connection.send(b"G")
                await anyio.sleep(0.01)


async def test_a_request_that_takes_its_time_is_not_cut(tmp_path: Path) -> None:
    held = anyio.Event()
    async with serving(tmp_path / "s", HASTY, held) as client, anyio.create_task_group() as tasks:

        async def ask() -> None:
            async with client.get("http://x/hold") as reply:
                assert await reply.text() == "held"

        tasks.start_soon(ask)
        await anyio.sleep(4 * HASTY.idle_seconds)
        held.set()


@pytest.mark.parametrize("path", ["/large", "/stream"])
async def test_who_does_not_take_the_answer_is_cut(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path / "s", HASTY):
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        with connected(tmp_path / "s", request) as connection:
            await anyio.sleep(4 * HASTY.stuck_seconds)
            assert len(await ended(connection)) < len(LARGE)


async def test_one_user_leaves_room_and_the_idlest_goes_first(tmp_path: Path) -> None:
    patient = Bounds(connections_max=8, per_client_max=6, idle_seconds=60, stuck_seconds=60)
    async with serving(tmp_path / "s", patient) as client:
        with ExitStack() as held:
            first = held.enter_context(connected(tmp_path / "s"))
            for _ in range(5):
                held.enter_context(connected(tmp_path / "s"))
            async with client.get("http://x/") as reply:
                assert reply.status == 200
            assert await ended(first) == b""


async def test_when_all_are_busy_a_new_one_is_told_so(tmp_path: Path) -> None:
    patient = Bounds(connections_max=8, per_client_max=3, idle_seconds=60, stuck_seconds=60)
    held, begun = anyio.Event(), list[web.Request]()
    async with serving(tmp_path / "s", patient, held, begun):
        with ExitStack() as busy:
            for _ in range(3):
                request = b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n"
                busy.enter_context(connected(tmp_path / "s", request))
            with anyio.fail_after(60):
                while len(begun) < 3:  # noqa: ASYNC110 - the server has no event for it
                    await anyio.sleep(0.01)
            with connected(tmp_path / "s") as refused:
                head, _, body = (await ended(refused)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 429 ")
            assert f"Content-Length: {len(body)}".encode() in head
            assert json.loads(body)["code"] == "queue_full"
            held.set()


async def test_an_address_on_tcp_is_bounded_too() -> None:
    async with serve_tcp(app(), "127.0.0.1:0", bounds=HASTY) as address:
        host, _, port = address.rpartition(":")
        with ExitStack() as held:
            many = [
                held.enter_context(socket.create_connection((host, int(port)))) for _ in range(30)
            ]
            async with aiohttp.request("GET", f"http://{address}/") as reply:
                assert reply.status == 200
            for each in many:
                each.settimeout(20)
                assert await ended(each) == b""


def test_books_are_kept_whatever_comes(tmp_path: Path) -> None:
    gates = Gates(Bounds(2, 2), lambda: 1.0)
    some = [Gate(gates, asyncio.Protocol()) for _ in range(3)]
    for number, gate in enumerate(some):
        gate.client = number % 2
    assert gates.let_in(some[0])
    assert gates.let_in(some[1])
    some[0].request_began()
    some[1].request_began()
    assert not gates.let_in(some[2])
    assert not gates.forget(some[2])
    assert gates.forget(some[0])
    assert not gates.forget(some[0])
    assert gates.let_in(some[2])
    assert len(gates) == 2


def test_clients_get_at_most_a_quarter_of_the_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    assert fit_to_open_files(Bounds()) == Bounds(connections_max=256, per_client_max=192)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1 << 20, 1 << 20))
    assert fit_to_open_files(Bounds()) == Bounds()
