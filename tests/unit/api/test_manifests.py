from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from snapd.api.listening import control_socket
from snapd.api.manifests import add_manifests
from snapd.api.replies import errors_become_replies
from snapd.api.serving import serve_socket
from tests.samples import Sample, sample


@pytest.fixture
def made() -> Sample:
    return sample({f"d/{number}": b"x" for number in range(2000)})


@pytest.fixture
async def client(tmp_path: Path, made: Sample) -> AsyncIterator[aiohttp.ClientSession]:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / made.id).write_bytes(made.manifest.text)
    (tmp_path / "manifests" / ("b" * 64)).write_bytes(b"its tree is not there yet")
    (tmp_path / "trees" / made.id).mkdir(parents=True)
    app = web.Application(middlewares=[errors_become_replies])
    add_manifests(app, tmp_path)
    path = tmp_path / "s.sock"
    with control_socket(path, mode=0o600) as listener:
        async with (
            serve_socket(app, listener),
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        ):
            yield session


async def test_the_manifest_of_a_complete_snapshot_is_sent_byte_by_byte(
    client: aiohttp.ClientSession, made: Sample
) -> None:
    async with client.get(f"http://snapd/v1/snapshots/{made.id.upper()}/manifest") as response:
        assert response.status == 200
        assert await response.read() == made.manifest.text


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("c" * 64, 404, "no_such_snapshot"),
        ("b" * 64, 404, "no_such_snapshot"),
        ("..%2f..%2fversion", 400, "invalid_id"),
    ],
)
async def test_nothing_else_is(
    client: aiohttp.ClientSession, name: str, status: int, code: str
) -> None:
    async with client.get(f"http://snapd/v1/snapshots/{name}/manifest") as response:
        assert (response.status, (await response.json())["code"]) == (status, code)
