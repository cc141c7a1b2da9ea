from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from snapd.api.listening import control_socket
from snapd.api.receipts import add_receipts
from snapd.api.replies import errors_become_replies
from snapd.api.serving import serve_socket
from snapd.model.ids import SnapshotId
from snapd.model.receipts import Receipt
from tests.unit.model.test_receipts import DOCUMENT, ID, RECEIPT


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    async def find(snapshot_id: SnapshotId) -> Receipt | None:
        return RECEIPT if snapshot_id == ID else None

    app = web.Application(middlewares=[errors_become_replies])
    add_receipts(app, find)
    path = tmp_path / "s.sock"
    with control_socket(path, mode=0o600) as listener:
        async with (
            serve_socket(app, listener),
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        ):
            yield session


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [("cd" * 32, 404, "no_such_snapshot"), ("..", 404, "usage"), ("xy", 400, "invalid_id")],
)
async def test_what_is_not_there_is_said(
    client: aiohttp.ClientSession, name: str, status: int, code: str
) -> None:
    async with client.get(f"http://snapd/v1/snapshots/{name}/receipt") as response:
        assert response.status == status
        assert (await response.json())["code"] == code


async def test_a_receipt_is_sent_as_its_document(client: aiohttp.ClientSession) -> None:
    async with client.get(f"http://snapd/v1/snapshots/{ID.upper()}/receipt") as response:
        assert response.status == 200
        assert await response.json() == DOCUMENT
