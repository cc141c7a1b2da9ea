from __future__ import annotations

import socket

import aiohttp
import anyio
import pytest
from aiohttp import web

from snapd.api.serving import serve_tcp
from snapd.model.errors import ActionFailed, InvalidConfig


def app() -> web.Application:
    async def hello(_request: web.Request) -> web.Response:
        return web.Response(text="hello")

    application = web.Application()
    application.router.add_get("/", hello)
    return application


async def test_port_zero_chooses_one_and_tells_it() -> None:
    async with serve_tcp(app(), "127.0.0.1:0") as address:
        assert not address.endswith(":0")
        async with aiohttp.request("GET", f"http://{address}/") as response:
            assert await response.text() == "hello"
    host, _, port = address.rpartition(":")
    with pytest.raises(OSError, match=r"refused|failed"):
        await anyio.connect_tcp(host, int(port))


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ActionFailed, match=address):
            async with serve_tcp(app(), address):
                pass


async def test_a_taken_port_may_be_replaced() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with serve_tcp(app(), address, or_any_port=True) as used:
            assert used != address
            async with aiohttp.request("GET", f"http://{used}/") as response:
                assert response.status == 200


async def test_an_unfit_address_is_refused() -> None:
    with pytest.raises(InvalidConfig):
        async with serve_tcp(app(), "nowhere"):
            pass


async def test_serving_ends_although_a_request_hangs() -> None:
    cancelled = anyio.Event()
    arrived = anyio.Event()

    async def hang(_request: web.Request) -> web.Response:
        arrived.set()
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()
        raise AssertionError

    application = web.Application()
    application.router.add_get("/", hang)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks, serve_tcp(application, "127.0.0.1:0") as at:

            async def ask() -> None:
                with pytest.raises(aiohttp.ClientError):
                    async with aiohttp.request("GET", f"http://{at}/"):
                        pass

            tasks.start_soon(ask)
            await arrived.wait()
    assert cancelled.is_set()
