from __future__ import annotations

import json
import socket
from pathlib import Path

import anyio
from anyio import to_thread

from snapd.api.events import Pace
from tests.unit.api.conftest import FAST, Api, serving_api


async def test_an_unchanged_view_is_repeated_only_as_a_heartbeat(tmp_path: Path) -> None:
    pace = Pace(interval_seconds=0.01, heartbeat_seconds=0.2)
    async with serving_api(tmp_path / "s", pace=pace) as api:
        api.pulls.add("j9")
        began = anyio.current_time()
        async with api.client.get("http://snapd/v1/jobs/j9/events") as response:
            with anyio.fail_after(60):
                lines = [await response.content.readline() for _ in range(4)]
        took_seconds = anyio.current_time() - began
    assert len(set(lines)) == 1
    assert took_seconds >= 3 * pace.heartbeat_seconds


async def test_a_slow_reader_misses_views_but_never_the_last(api: Api) -> None:
    job = api.pulls.add("j9")
    changes = 3000
    async with api.client.get("http://snapd/v1/jobs/j9/events") as response:
        await response.content.readline()
        for count in range(changes):
            job.become(bytes_fetched=count)
            if count % 100 == 0:
                await anyio.lowlevel.checkpoint()
        job.end()
        seen = [json.loads(line) async for line in response.content]
    assert len(seen) < changes / 2
    assert seen[-1]["state"] == "done"
    assert seen[-1]["bytes_fetched"] == changes - 1


def open_stream(path: Path, job_id: str) -> socket.socket:
    """Ask for events and read none of them."""
    connection = socket.socket(socket.AF_UNIX)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(str(path))
    connection.sendall(f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return connection


def drain(connection: socket.socket) -> bytes:
    """Read all there is until the other side closes or cuts the connection."""
    received = b""
    try:
        while piece := connection.recv(1 << 20):
            received += piece
    except ConnectionResetError:
        pass
    return received


async def test_a_watcher_that_never_reads_is_dropped(tmp_path: Path) -> None:
    async with serving_api(tmp_path / "s", pace=FAST) as api:
        job = api.pulls.add("j9")
        filler = "x" * 50_000
        with open_stream(tmp_path / "s", "j9") as connection:
            with anyio.fail_after(60):
                while True:
                    job.become(tree=f"{filler}{job.now.bytes_fetched}")
                    job.become(bytes_fetched=job.now.bytes_fetched + 1)
                    await anyio.sleep(0.02)
                    if job.now.bytes_fetched * FAST.interval_seconds > 4 * FAST.patience_seconds:
                        break
            received = await to_thread.run_sync(drain, connection)
        assert not job.now.ended
        # The stream was cut, not ended: there is no last chunk for a reader to take for the end.
        assert not received.endswith(b"0\r\n\r\n")
        assert received.count(filler.encode()) < 100


async def test_a_defect_in_a_stream_cuts_it(tmp_path: Path) -> None:
    async with serving_api(tmp_path / "s") as api:
        job = api.pulls.add("j9")
        with open_stream(tmp_path / "s", "j9") as connection:
            assert b"200 OK" in await to_thread.run_sync(connection.recv, 65536)
            job.become(error={"unfit": object()})
            received = await to_thread.run_sync(drain, connection)
        assert not received.endswith(b"0\r\n\r\n")
        assert (await api.ask("GET", "/v1/status"))[0] == 200
