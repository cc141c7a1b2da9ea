from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from snapd.api.health import health_app
from snapd.api.serving import serve_tcp
from snapd.runtime.metrics import Metrics
from snapd.runtime.numbers import NodeNumbers


class Daemon:
    """What health is asked about, and its address."""

    def __init__(self) -> None:
        self.reason = ""
        self.address = ""

    async def numbers(self) -> NodeNumbers:
        return NodeNumbers(snapshots=77)

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        async with aiohttp.request("GET", f"http://{self.address}{path}", headers=headers) as reply:
            return reply.status, await reply.text()


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    daemon = Daemon()
    app = health_app(
        Metrics(version="1"), unready_because=lambda: daemon.reason, numbers=daemon.numbers
    )
    async with serve_tcp(app, "127.0.0.1:0") as daemon.address:
        yield daemon


async def test_alive_and_ready(daemon: Daemon) -> None:
    assert await daemon.get("/livez") == (200, "ok\n")
    assert await daemon.get("/readyz") == (200, "ready\n")


async def test_draining_is_alive_but_not_ready(daemon: Daemon) -> None:
    daemon.reason = "draining"
    assert (await daemon.get("/livez"))[0] == 200
    assert await daemon.get("/readyz") == (503, "draining\n")
    assert "\nsnapd_ready 0.0\n" in (await daemon.get("/metrics"))[1]


async def test_a_scrape_shows_the_numbers_of_the_moment(daemon: Daemon) -> None:
    status, text = await daemon.get("/metrics")
    assert status == 200
    assert "\nsnapd_snapshots 77.0\n" in text
    assert "\nsnapd_ready 1.0\n" in text


async def test_nothing_else_is_served(daemon: Daemon) -> None:
    for path in ("/", "/v1/status", "/readyz/x"):
        assert (await daemon.get(path))[0] == 404
