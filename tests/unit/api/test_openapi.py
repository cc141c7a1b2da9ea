from __future__ import annotations

import json
import time
from pathlib import Path

import anyio
import pytest
from aiohttp import web

from snapd.api.openapi import openapi_document
from snapd.api.operations import OPERATIONS, ROLES
from snapd.daemon import Daemon, Launch
from snapd.model.access import Role
from snapd.model.settings import CacheSettings, DaemonSettings, Settings
from snapd.node import open_node
from snapd.runtime.notify import Supervisor

DOCUMENT = Path(__file__).parents[3] / "docs" / "api" / "openapi.json"


def operations_of(app: web.Application) -> set[tuple[str, str]]:
    found = set()
    for route in app.router.routes():
        assert route.resource is not None
        found.add((route.method, route.resource.canonical))
    return found - {("HEAD", path) for _, path in found}


@pytest.fixture
async def daemon(tmp_path: Path) -> Daemon:
    settings = Settings(
        daemon=DaemonSettings(socket=str(tmp_path / "s")),
        cache=CacheSettings(directory=str(tmp_path / "cache")),
    )
    return Daemon(Launch(settings, lambda: settings, Supervisor("")))


async def test_the_socket_serves_what_the_table_says(daemon: Daemon, tmp_path: Path) -> None:
    async with open_node(
        daemon.standing.settings,
        cache_directory=tmp_path / "cache",
        observer=daemon.metrics,
        now=time.time,
    ) as node:
        served = operations_of(daemon.control(node))
    assert served == {(x.method, x.path) for x in OPERATIONS if "socket" in x.served}


async def test_tcp_serves_what_the_table_says_and_nothing_that_changes_anything(
    daemon: Daemon,
) -> None:
    served = operations_of(daemon.health())
    assert served == {(x.method, x.path) for x in OPERATIONS if "tcp" in x.served}
    assert {method for method, _ in served} == {"GET"}


def test_whatever_changes_something_takes_more_than_a_reader() -> None:
    dry = ("POST", "/v1/sweep")
    for (method, path), role in ROLES.items():
        assert role is Role.READ if method == "GET" else role > Role.READ or (method, path) == dry


def test_the_document_in_the_repository_is_the_one_that_is_served() -> None:
    """`make api` writes it."""
    assert json.loads(DOCUMENT.read_text()) == openapi_document()


def test_every_reference_leads_somewhere() -> None:
    text = json.dumps(openapi_document())
    named = openapi_document()["components"]["schemas"]
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.partition('"')[0] in named


async def test_rates_are_what_came_between_two_looks() -> None:
    from snapd.api.overview import RateMeter
    from snapd.model.jobs import JobView

    meter = RateMeter()
    one, two = JobView("a", "x", "s", "fetching"), JobView("b", "x", "s", "fetching")
    meter.sample([one.with_changes(bytes_fetched=100)], 2.0)
    meter.sample([one.with_changes(bytes_fetched=300), two.with_changes(bytes_fetched=100)], 2.0)
    meter.sample([two.with_changes(bytes_fetched=100)], 2.0)
    assert meter.series().bytes_per_second == (50.0, 150.0, 0.0)
    await anyio.lowlevel.checkpoint()
