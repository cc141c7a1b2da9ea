from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from anyio import to_thread

from snapd.api.leases import add_leases
from snapd.api.listening import control_socket
from snapd.api.serving import serve_socket
from snapd.model.access import Peer
from snapd.model.errors import LeaseNotFound
from snapd.model.ids import SnapshotId
from snapd.model.leases import Lease, LeaseRequest, ProcessMark
from tests.unit.api.conftest import checked_app

ID = SnapshotId("ab" * 32)
BODY = {"id": ID, "kind": "pin", "reason": "why"}


@dataclass
class FakeHolders:
    """Keeps the leases that were asked for."""

    held: dict[str, Lease] = field(default_factory=dict)
    asked: list[tuple[LeaseRequest, int, int]] = field(default_factory=list)
    removed_by: list[int | None] = field(default_factory=list)

    async def leases(self) -> list[Lease]:
        return list(self.held.values())

    async def add_lease(self, request: LeaseRequest, *, pid: int, uid: int) -> Lease:
        self.asked.append((request, pid, uid))
        process = ProcessMark(pid, 1) if request.kind == "process" else None
        lease = Lease("x", ID, request.kind, 1.0, reason=request.reason, uid=uid, process=process)
        self.held["x"] = lease
        return lease

    async def remove_lease(self, lease_id: str, *, by_uid: int | None) -> Lease:
        self.removed_by.append(by_uid)
        if lease_id not in self.held:
            raise LeaseNotFound(f"no lease {lease_id!r}")
        return self.held.pop(lease_id)


@dataclass
class Api:
    holders: FakeHolders
    socket: Path
    client: aiohttp.ClientSession

    async def ask(self, method: str, path: str, **arguments: Any) -> tuple[int, Any]:
        async with self.client.request(method, f"http://snapd{path}", **arguments) as response:
            return response.status, await response.json()


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    holders, path = FakeHolders(), tmp_path / "s.sock"
    app = checked_app()
    add_leases(app, holders)
    with control_socket(path, mode=0o600) as listener:
        async with (
            serve_socket(app, listener),
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as client,
        ):
            yield Api(holders, path, client)


async def test_leases_are_added_listed_and_ended(api: Api) -> None:
    assert await api.ask("GET", "/v1/leases") == (200, {"leases": []})
    status, added = await api.ask("POST", "/v1/leases", json=BODY)
    assert (status, added["kind"], added["reason"]) == (201, "pin", "why")
    _, listed = await api.ask("GET", "/v1/leases")
    assert [Lease.from_json(each) for each in listed["leases"]] == [Lease.from_json(added)]
    status, ended = await api.ask("DELETE", "/v1/leases/x")
    assert (status, ended["lease_id"]) == (200, "x")
    status, error = await api.ask("DELETE", "/v1/leases/x")
    assert (status, error["code"]) == (404, "no_such_lease")


CLIENT = """
import os, socket, sys
body = sys.argv[2].encode()
head = f"POST /v1/leases HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n"
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    connection.sendall(head.encode() + body)
    connection.recv(65536)
print(os.getpid())
"""


async def test_a_lease_is_ended_by_its_user_or_an_administrator(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snapd.api import access

    for uid, by_uid in [(os.geteuid(), None), (4711, 4711)]:
        await api.ask("POST", "/v1/leases", json=BODY)
        monkeypatch.setattr(access, "peer_of", lambda _, uid=uid: Peer(1, uid, uid))
        assert (await api.ask("DELETE", "/v1/leases/x"))[0] == 200
        assert api.holders.removed_by.pop() == by_uid


async def test_a_process_is_the_one_that_asks(api: Api) -> None:
    body = json.dumps({"id": ID, "kind": "process"})
    command = [sys.executable, "-c", CLIENT, str(api.socket), body]
    ran = await to_thread.run_sync(lambda: subprocess.run(command, capture_output=True, check=True))
    ((request, pid, uid),) = api.holders.asked
    assert request == LeaseRequest(ID, "process")
    assert (pid, uid) == (int(ran.stdout), os.getuid())
    assert pid != os.getpid()


@pytest.mark.parametrize(
    "change",
    [{"pid": 1}, {"kind": "time"}, {"id": "x"}, {"kind": "link", "subject": "relative"}],
)
async def test_an_unfit_request_changes_nothing(api: Api, change: dict[str, Any]) -> None:
    status, error = await api.ask("POST", "/v1/leases", json=BODY | change)
    assert (status, error["exit_code"]) == (400, 2)
    assert not api.holders.asked


async def test_a_client_that_can_not_be_seen_is_told_so(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snapd.api import access

    monkeypatch.setattr(access, "peer_of", lambda _: Peer(0, 7, 7))
    status, error = await api.ask("POST", "/v1/leases", json={"id": ID, "kind": "process"})
    assert status == 400
    assert "PID namespace" in error["message"]
    assert (await api.ask("POST", "/v1/leases", json=BODY))[0] == 201
