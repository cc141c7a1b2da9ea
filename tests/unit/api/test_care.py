from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from aiohttp import web

from snapd.api.care import add_care
from snapd.api.events import Pace
from snapd.api.listening import control_socket
from snapd.api.replies import errors_become_replies
from snapd.api.serving import serve_socket
from snapd.model.care import Proof, ProofProgress, ScrubView
from snapd.model.errors import SnapshotNotFound
from snapd.model.ids import SnapshotId

ID = SnapshotId("ab" * 32)
PROOF = Proof(ID, "/trees/x", 3, 10)


@dataclass
class FakeCare:
    """A proof that goes as the test says."""

    go_on: anyio.Event = field(default_factory=anyio.Event)
    cancelled: anyio.Event = field(default_factory=anyio.Event)
    outcome: Exception | None = None

    async def scrub_view(self) -> ScrubView:
        return ScrubView("running", 0.25, 7, 1.0, 2.0, 3, 4, 0, 0, 0)

    async def prove(
        self, snapshot_id: SnapshotId, on_progress: Callable[[ProofProgress], None]
    ) -> Proof:
        on_progress(ProofProgress(1, 3, 5, 10))
        try:
            await self.go_on.wait()
        except BaseException:
            self.cancelled.set()
            raise
        if self.outcome is not None:
            raise self.outcome
        assert snapshot_id == ID
        return PROOF


@dataclass
class Api:
    care: FakeCare
    client: aiohttp.ClientSession

    def verify(self, snapshot_id: str = ID) -> Any:
        return self.client.post(f"http://snapd/v1/snapshots/{snapshot_id}/verify")


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    app = web.Application(middlewares=[errors_become_replies])
    care = FakeCare()
    add_care(app, care, Pace(interval_seconds=0.01, patience_seconds=0.5))
    path = tmp_path / "s" / "snapd.sock"
    path.parent.mkdir(mode=0o700)
    with control_socket(path, mode=0o600, group="") as listener:
        async with (
            serve_socket(app, listener),
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as client,
        ):
            yield Api(care, client)


async def lines(response: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    return [json.loads(line) async for line in response.content]


async def test_the_scrub_is_shown(api: Api) -> None:
    async with api.client.get("http://snapd/v1/scrub") as response:
        assert (await response.json())["progress"] == 0.25


async def test_a_proof_tells_how_far_it_is_and_ends_with_the_proof(api: Api) -> None:
    async with api.verify() as response:
        while json.loads(await response.content.readline()) != {
            "state": "running",
            **ProofProgress(1, 3, 5, 10).to_json(),
        }:
            pass
        api.care.go_on.set()
        assert (await lines(response))[-1] == {"state": "done", "proof": PROOF.to_json()}


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(SnapshotNotFound("no"), "no_such_snapshot"), (RuntimeError("x"), "internal_error")],
)
async def test_a_proof_that_fails_ends_with_the_error(
    api: Api, outcome: Exception, code: str
) -> None:
    api.care.outcome = outcome
    api.care.go_on.set()
    async with api.verify() as response:
        last = (await lines(response))[-1]
        assert (last["state"], last["error"]["code"]) == ("failed", code)


async def test_closing_the_connection_ends_the_proof(api: Api) -> None:
    async with api.verify() as response:
        await response.content.readline()
        response.close()
    with anyio.fail_after(60):
        await api.care.cancelled.wait()


async def test_what_is_no_id_is_refused(api: Api) -> None:
    async with api.verify("nonsense") as response:
        assert response.status == 400
