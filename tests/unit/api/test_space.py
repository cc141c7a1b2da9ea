from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from snapd.api.listening import control_socket
from snapd.api.serving import serve_socket
from snapd.api.space import add_space
from snapd.model.errors import SnapshotInUse
from snapd.model.eviction import Verdict
from snapd.model.ids import SnapshotId
from snapd.model.jobs import PullRequest
from snapd.model.space import PlanView, SweepReport, SweepRequest
from tests.unit.api.conftest import checked_app

ID = SnapshotId("ab" * 32)
VERDICT = Verdict(ID, True, "requested", 1.0, 2, 3)


@dataclass
class FakeSpace:
    """Notes what was asked for."""

    asked: list[Any] = field(default_factory=list)

    async def foretell(self, request: PullRequest) -> PlanView:
        self.asked.append(request)
        return PlanView(ID, request.store, False, 3, 1, 30, 10, required_bytes=40, fits=False)

    async def sweep(self, request: SweepRequest) -> SweepReport:
        self.asked.append(request)
        return SweepReport(request.dryrun, 9, 5, 3, evicted=(VERDICT,))

    async def evict(self, snapshot_id: SnapshotId, *, given_out_too: bool) -> SweepReport:
        self.asked.append((snapshot_id, given_out_too))
        if not given_out_too:
            raise SnapshotInUse("held")
        return SweepReport(False, 0, 0, 3, evicted=(VERDICT,))


@dataclass
class Api:
    space: FakeSpace
    client: aiohttp.ClientSession

    async def ask(self, method: str, path: str, **arguments: Any) -> tuple[int, Any]:
        async with self.client.request(method, f"http://snapd{path}", **arguments) as response:
            return response.status, await response.json()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    app = checked_app()
    space = FakeSpace()
    add_space(app, space)
    path = tmp_path / "s.sock"
    connector = aiohttp.UnixConnector(str(path))
    with control_socket(path, mode=0o600) as listener:
        async with (
            serve_socket(app, listener),
            aiohttp.ClientSession(connector=connector) as client,
        ):
            yield Api(space, client)


async def test_a_plan(api: Api) -> None:
    code, document = await api.ask("POST", "/v1/plan", json={"id": ID, "store": "s3://b"})
    assert (code, document["bytes_to_fetch"], document["fits"]) == (200, 20, False)
    assert PlanView.from_json(document).required_bytes == 40
    assert api.space.asked == [PullRequest(ID, "s3://b")]
    code, document = await api.ask("POST", "/v1/plan", json={"id": ID})
    assert (code, document["code"]) == (400, "usage")


async def test_a_sweep(api: Api) -> None:
    body = {"dryrun": True, "why": True, "free_bytes": 5}
    code, document = await api.ask("POST", "/v1/sweep", json=body)
    report = SweepReport.from_json(document)
    assert (code, report.dryrun, report.satisfied, report.evicted) == (200, True, False, (VERDICT,))
    assert api.space.asked == [SweepRequest(True, True, 5)]
    assert (await api.ask("POST", "/v1/sweep", json={}))[0] == 200


@pytest.mark.parametrize(
    "body", [[], {"dryrun": 1}, {"why": "x"}, {"free_bytes": -1}, {"free_bytes": True}, {"fre": 1}]
)
async def test_a_sweep_that_is_not_understood(api: Api, body: object) -> None:
    code, document = await api.ask("POST", "/v1/sweep", json=body)
    assert (code, document["code"]) == (400, "usage")
    assert api.space.asked == []


async def test_an_eviction(api: Api) -> None:
    code, document = await api.ask("DELETE", f"/v1/snapshots/{ID}")
    assert (code, document["code"]) == (409, "snapshot_in_use")
    code, document = await api.ask("DELETE", f"/v1/snapshots/{ID}?given_out_too=1")
    assert (code, document["freed_bytes"]) == (200, 3)
    assert api.space.asked == [(ID, False), (ID, True)]
    assert (await api.ask("DELETE", "/v1/snapshots/x"))[0] == 400
    assert (await api.ask("DELETE", f"/v1/snapshots/{ID}?given_out_too=yes"))[0] == 400
