from __future__ import annotations

import json
import socket
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from snapd.api.events import Pace
from snapd.model.errors import DaemonStopping, NoSpace, StoreNotAllowed
from snapd.model.jobs import JobView
from tests.unit.api.conftest import BODY, ID, Api, serving_api


async def test_status_and_snapshots(api: Api) -> None:
    assert await api.ask("GET", "/v1/status") == (
        200,
        {"version": "1", "pid": 7, "role": "administer"},
    )
    status, listed = await api.ask("GET", "/v1/snapshots")
    assert status == 200
    assert [snapshot["snapshot_id"] for snapshot in listed["snapshots"]] == [ID]


async def test_a_detached_pull_answers_at_once(api: Api) -> None:
    status, view = await api.ask("POST", "/v1/pulls", json={**BODY, "detach": True})
    assert (status, view["job_id"], view["state"]) == (202, "j1", "fetching")
    ((request, detached),) = api.pulls.requests
    assert (request.snapshot_id, request.store, detached) == (ID, BODY["store"], True)
    assert not api.pulls.get("j1").joined.is_set()


async def test_a_pull_is_followed_to_its_end(api: Api) -> None:
    async with api.client.post("http://snapd/v1/pulls", json=BODY) as response:
        assert (response.status, response.content_type) == (200, "application/x-ndjson")
        first = json.loads(await response.content.readline())
        job = api.pulls.get("j1")
        assert (first["state"], job.waiters) == ("fetching", 1)
        job.end()
        last = JobView.from_json(json.loads(await response.content.readline()))
        assert (last.state, last.tree) == ("done", "/cache/trees/x")
        assert await response.content.readline() == b""
    await job.left.wait()
    assert job.waiters == 0


async def test_a_failed_pull_ends_its_stream_with_the_error(api: Api) -> None:
    async with api.client.post("http://snapd/v1/pulls", json=BODY) as response:
        await response.content.readline()
        api.pulls.get("j1").end(NoSpace("full", required_bytes=9))
        last = json.loads(await response.content.readline())
    assert (last["state"], last["error"]["code"]) == ("failed", "no_space")
    assert last["error"]["details"] == {"required_bytes": 9}


async def test_a_client_that_goes_away_leaves_its_job(api: Api) -> None:
    response = await api.client.post("http://snapd/v1/pulls", json=BODY)
    job = api.pulls.get("j1")
    await response.content.readline()
    response.close()
    with anyio.fail_after(60):
        await job.left.wait()
    assert job.waiters == 0


async def test_a_silent_job_still_notices_that_its_client_is_gone(tmp_path: Path) -> None:
    async with serving_api(tmp_path / "s", pace=Pace(interval_seconds=60)) as api:
        response = await api.client.post("http://snapd/v1/pulls", json=BODY)
        job = api.pulls.get("j1")
        await response.content.readline()
        response.close()
        with anyio.fail_after(60):
            await job.left.wait()


async def test_watching_is_not_waiting(api: Api) -> None:
    job = api.pulls.add("j9")
    async with api.client.get("http://snapd/v1/jobs/j9/events") as response:
        await response.content.readline()
        assert not job.joined.is_set()
        job.end()
        assert json.loads(await response.content.readline())["state"] == "done"


async def test_an_ended_job_has_one_event(api: Api) -> None:
    api.pulls.add("j9").end()
    async with api.client.get("http://snapd/v1/jobs/j9/events") as response:
        lines = (await response.text()).splitlines()
    assert [json.loads(line)["state"] for line in lines] == ["done"]


async def test_jobs_are_listed_shown_and_cancelled(api: Api) -> None:
    api.pulls.add("a")
    api.pulls.add("b").end()
    _, listed = await api.ask("GET", "/v1/jobs")
    assert [job["job_id"] for job in listed["jobs"]] == ["a", "b"]
    assert (await api.ask("GET", "/v1/jobs/a"))[1]["state"] == "fetching"
    status, cancelled = await api.ask("DELETE", "/v1/jobs/a")
    assert (status, cancelled["state"]) == (200, "cancelled")
    assert (await api.ask("DELETE", "/v1/jobs/b"))[1]["state"] == "done"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/jobs/none"), ("DELETE", "/v1/jobs/none"), ("GET", "/v1/jobs/none/events")],
)
async def test_an_unknown_job_is_named(api: Api, method: str, path: str) -> None:
    status, error = await api.ask(method, path)
    assert (status, error["code"]) == (404, "no_such_job")
    assert "none" in error["message"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "usage"),
        (b"{", "usage"),
        (b"[" * 60000, "usage"),
        (b"\xff\xfe", "usage"),
        (b"[]", "usage"),
        (b"null", "usage"),
        (json.dumps({**BODY, "detach": "yes"}).encode(), "usage"),
        (json.dumps({**BODY, "priority": "now"}).encode(), "usage"),
        (json.dumps({**BODY, "dest": "/etc"}).encode(), "usage"),
        (json.dumps({"id": ID}).encode(), "usage"),
        (json.dumps({"id": "abc", "store": "s3://b"}).encode(), "invalid_id"),
    ],
)
async def test_a_bad_body_is_refused_before_anything_starts(
    api: Api, body: bytes, code: str
) -> None:
    status, error = await api.ask("POST", "/v1/pulls", data=body)
    assert (status, error["code"], error["exit_code"]) == (400, code, 2)
    assert not api.pulls.requests


async def test_a_body_over_the_limit_is_refused(api: Api) -> None:
    status, error = await api.ask("POST", "/v1/pulls", data=b"x" * 1_000_000)
    assert (status, error["code"]) == (413, "usage")
    assert (await api.ask("GET", "/v1/status"))[0] == 200


def exchange(path: Path, request: bytes) -> bytes:
    """Send raw bytes and give the beginning of the answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(str(path))
        connection.sendall(request)
        return connection.recv(65536)


@pytest.mark.parametrize(
    ("head", "body", "status"),
    [
        (b"Content-Length: 99999999", b"x", b"413"),
        (b"Content-Encoding: gzip\r\nContent-Length: 5", b"hello", b"400"),
        (b"Transfer-Encoding: chunked", b"not a chunk\r\n", b"400"),
        (b"X-Long: " + b"a" * 100_000, b"", b"400"),
        (b"\x00\x01 garbage", b"", b"400"),
    ],
)
async def test_bytes_that_are_no_fit_request_are_answered_and_make_no_noise(
    api: Api, head: bytes, body: bytes, status: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    request = b"POST /v1/pulls HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    request += head + b"\r\n\r\n" + body
    received = await to_thread.run_sync(exchange, api.socket, request)
    assert received.split()[1] == status
    assert not caplog.records
    assert (await api.ask("GET", "/v1/status"))[0] == 200


@pytest.mark.parametrize(
    ("refusal", "status", "code"),
    [
        (StoreNotAllowed("s3://other is not allowed"), 403, "store_not_allowed"),
        (DaemonStopping("stopping"), 503, "daemon_stopping"),
        (RuntimeError("a defect"), 500, "internal_error"),
    ],
)
async def test_what_the_engine_refuses_is_answered(
    api: Api, refusal: Exception, status: int, code: str
) -> None:
    api.pulls.refusal = refusal
    for detach in (False, True):
        answered, error = await api.ask("POST", "/v1/pulls", json={**BODY, "detach": detach})
        assert (answered, error["code"]) == (status, code)


async def test_two_hundred_clients_follow_at_once(api: Api) -> None:
    last_states: list[str] = []
    connected = anyio.Semaphore(0)

    async def follow() -> None:
        async with api.client.post("http://snapd/v1/pulls", json=BODY) as response:
            await response.content.readline()
            connected.release()
            lines = [json.loads(line) async for line in response.content]
        last_states.append(lines[-1]["state"])

    async with anyio.create_task_group() as tasks:
        for _ in range(200):
            tasks.start_soon(follow)
        for _ in range(200):
            await connected.acquire()
        assert (await api.ask("GET", "/v1/status"))[0] == 200
        for job in api.pulls.started.values():
            job.end()
    assert last_states == ["done"] * 200


async def test_more_followers_than_allowed_are_told_so(tmp_path: Path) -> None:
    async with serving_api(tmp_path / "s", streams_max=1) as api:
        api.pulls.add("j9")
        async with api.client.get("http://snapd/v1/jobs/j9/events") as response:
            await response.content.readline()
            for method, path in (("GET", "/v1/jobs/j9/events"), ("POST", "/v1/pulls")):
                status, error = await api.ask(method, path, json=BODY)
                assert (status, error["code"]) == (429, "queue_full")
            api.pulls.get("j9").end()
            await response.read()
        async with api.client.get("http://snapd/v1/jobs/j9/events") as response:
            assert response.status == 200
