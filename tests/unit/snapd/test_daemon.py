from __future__ import annotations

import json
import logging
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio import to_thread
from blockbuster import blockbuster_ctx

from snapd.daemon import Launch, serve
from snapd.disk.locks import opening_lock
from snapd.model.errors import ActionFailed, CacheUnusable, InvalidConfig, SocketBusy
from snapd.model.settings import CacheSettings, DaemonSettings, LogSettings, Settings
from snapd.remote.lanes import Lanes
from snapd.runtime.notify import Supervisor
from tests.samples import sample
from tests.servers.ports import reserved_port
from tests.unit.snapd.conftest import SAMPLE, Running, StartDaemon, last_view

OTHER = sample({"c": b"gamma"})


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


async def test_a_pull_goes_through_and_everything_tells_of_it(start_daemon: StartDaemon) -> None:
    async with start_daemon() as daemon:
        body = {"id": SAMPLE.id, "store": daemon.store}
        async with daemon.client.post("http://snapd/v1/pulls", json=body) as response:
            lines = (await response.text()).splitlines()
        done = json.loads(lines[-1])
        assert (done["state"], done["bytes_fetched"]) == ("done", 4005)
        assert (Path(done["tree"]) / "dir/b").read_bytes() == b"beta" * 1000
        status = await daemon.status()
        assert (status["state"], status["snapshots"]) == ("ready", 1)
        assert status["cache_bytes"] > 4005  # in blocks, directories included
        assert (status["jobs_running"], status["reserved_bytes"]) == (0, 0)
        assert status["trees_directory"] == str(Path(done["tree"]).parent)
        _, listed = await daemon.ask("GET", "/v1/snapshots")
        assert [snapshot["snapshot_id"] for snapshot in listed["snapshots"]] == [SAMPLE.id]
        assert await daemon.get("/readyz") == (200, "ready\n")
        _, metrics = await daemon.get("/metrics")
        assert 'snapd_bytes_total{source="store"} 4005.0' in metrics
        assert 'snapd_pull_duration_seconds_count{outcome="done"} 1.0' in metrics
        assert "snapd_snapshots 1.0" in metrics
        assert 'snapd_store_requests_total{operation="' in metrics
        assert 'snapd_pulls_limit{state="running"} 4.0' in metrics


async def test_nothing_blocks_the_event_loop_once_it_serves(start_daemon: StartDaemon) -> None:
    async with start_daemon() as daemon:
        with blockbuster_ctx():
            _, job = await daemon.start_pull()
            assert (await daemon.job_ended(job["job_id"]))["state"] == "done"
            _, again = await daemon.start_pull()
            assert (await daemon.job_ended(again["job_id"]))["bytes_fetched"] == 0
            assert (await daemon.ask("GET", "/v1/snapshots"))[0] == 200
            assert (await daemon.get("/readyz"))[0] == 200
            await reloaded(daemon, daemon.settings)


async def test_a_store_that_is_not_allowed_is_refused(start_daemon: StartDaemon) -> None:
    async with start_daemon() as daemon:
        code, error = await daemon.start_pull(store="file:///elsewhere")
        assert (code, error["code"], error["exit_code"]) == (403, "store_not_allowed", 15)


async def test_a_signal_ends_it_and_it_leaves_nothing_behind(start_daemon: StartDaemon) -> None:
    async with start_daemon() as daemon:
        await daemon.signals.send(signal.SIGINT)
        with anyio.fail_after(60):
            await daemon.ended.wait()
        assert [path.name for path in Path(daemon.settings.daemon.socket).parent.iterdir()] == [
            "s.sock.lock"
        ]
        assert not list((daemon.cache / "staging").iterdir())


async def draining(daemon: Running) -> None:
    await daemon.signals.send(signal.SIGTERM)
    with anyio.fail_after(60):
        while True:
            if (await daemon.status())["state"] == "draining":
                return
            await anyio.sleep(0.01)


async def test_draining_refuses_new_pulls_and_lets_running_ones_end(
    start_daemon: StartDaemon,
) -> None:
    async with start_daemon() as daemon:
        lock = daemon.hold()
        assert lock.try_acquire()
        _, job = await daemon.start_pull()
        async with daemon.watching(job["job_id"]) as events:
            await draining(daemon)
            assert await daemon.get("/readyz") == (503, "draining\n")
            assert (await daemon.get("/livez"))[0] == 200
            code, error = await daemon.start_pull(OTHER)
            assert (code, error["code"], error["exit_code"]) == (503, "daemon_stopping", 14)
            assert not daemon.ended.is_set()
            lock.release()
            assert (await last_view(events))["state"] == "done"
        with anyio.fail_after(60):
            await daemon.ended.wait()


async def test_what_outlasts_the_grace_time_is_cancelled(start_daemon: StartDaemon) -> None:
    async with start_daemon(grace_seconds=0.3) as daemon:
        with daemon.hold():
            _, job = await daemon.start_pull()
            async with daemon.watching(job["job_id"]) as events:
                await daemon.signals.send(signal.SIGTERM)
                ended = await last_view(events)
            assert (ended["state"], ended["error"]["code"]) == ("cancelled", "daemon_stopping")
            with anyio.fail_after(60):
                await daemon.ended.wait()


async def test_a_second_signal_stops_at_once(start_daemon: StartDaemon) -> None:
    async with start_daemon(grace_seconds=60.0) as daemon:
        with daemon.hold():
            body = {"id": SAMPLE.id, "store": daemon.store}
            async with daemon.client.post("http://snapd/v1/pulls", json=body) as response:
                await response.content.readline()
                await draining(daemon)
                with anyio.fail_after(60):
                    await daemon.signals.send(signal.SIGTERM)
                    last = (await response.text()).splitlines()[-1]
                    assert json.loads(last)["state"] == "cancelled"
                    await daemon.ended.wait()


async def test_a_client_that_leaves_ends_its_pull(start_daemon: StartDaemon) -> None:
    async with start_daemon() as daemon:
        with daemon.hold():
            body = {"id": SAMPLE.id, "store": daemon.store}
            response = await daemon.client.post("http://snapd/v1/pulls", json=body)
            job_id = json.loads(await response.content.readline())["job_id"]
            response.close()
            with anyio.fail_after(60):
                ended = await daemon.job_ended(job_id)
            assert ended["state"] == "cancelled"


async def test_a_job_is_cancelled(start_daemon: StartDaemon) -> None:
    async with start_daemon() as daemon:
        with daemon.hold():
            _, job = await daemon.start_pull()
            code, view = await daemon.ask("DELETE", f"/v1/jobs/{job['job_id']}")
            assert (code, view["state"]) == (200, "cancelled")


async def reloaded(daemon: Running, wanted: Settings | Exception) -> str:
    """Reload and give the metrics after it."""
    _, before = await daemon.get("/metrics")
    counts = [line for line in before.splitlines() if line.startswith("snapd_config_reloads")]
    daemon.wanted = wanted
    await daemon.signals.send(signal.SIGHUP)
    with anyio.fail_after(60):
        while True:
            _, text = await daemon.get("/metrics")
            if not all(line in text for line in counts):
                break
            await anyio.sleep(0.01)
    # That scrape may have taken its other numbers just before the reload.
    _, text = await daemon.get("/metrics")
    return text


async def test_a_reload_changes_what_can_change(
    start_daemon: StartDaemon,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logs: list[dict[str, Any]] = []
    monkeypatch.setattr(Lanes, "set_log", lambda _lanes, log: logs.append(log))
    async with start_daemon() as daemon:
        changed = replace(
            daemon.settings,
            daemon=replace(daemon.settings.daemon, stores=("s3://other",), pulls_running_max=9),
            cache=CacheSettings(directory="/elsewhere"),
            log=LogSettings(format="json"),
        )
        metrics = await reloaded(daemon, changed)
        assert 'snapd_config_reloads_total{outcome="accepted"} 1.0' in metrics
        assert 'snapd_pulls_limit{state="running"} 9.0' in metrics
        assert (await daemon.status())["stores"] == ["s3://other"]
        assert (await daemon.start_pull())[1]["code"] == "store_not_allowed"
    assert logs == [{"format": "json", "level": "info"}], "transfer processes log like the node"
    logged = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (told,) = [line for line in logged if line["message"] == "reloaded"]
    assert told["changed"] == "daemon.stores daemon.pulls_running_max log.format log.level"
    (restart,) = [line for line in logged if "keys" in line]
    assert set(restart["keys"].split()) == {"cache.directory", "cache.fsync"}


async def test_a_bad_configuration_is_refused_and_the_former_stays(
    start_daemon: StartDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    async with start_daemon() as daemon:
        metrics = await reloaded(daemon, InvalidConfig("unknown key: 'storse'"))
        assert 'snapd_config_reloads_total{outcome="refused"} 1.0' in metrics
        assert (await daemon.status())["stores"] == [daemon.store]
        _, job = await daemon.start_pull()
        assert (await daemon.job_ended(job["job_id"]))["state"] == "done"
    assert any("storse" in record.getMessage() for record in caplog.records)


async def test_a_second_daemon_is_refused_before_it_touches_anything(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    async with start_daemon() as daemon:
        second = replace(daemon.settings, cache=CacheSettings(directory=str(tmp_path / "second")))
        with pytest.raises(SocketBusy):
            await serve_without_signals(second)
        assert not (tmp_path / "second").exists()
        await daemon.status()


async def serve_without_signals(settings: Settings) -> None:
    sender, receiver = anyio.create_memory_object_stream[signal.Signals]()
    async with sender, receiver:
        with anyio.fail_after(60):
            await serve(Launch(settings, lambda: settings, Supervisor()), receiver)


async def test_what_keeps_it_from_starting_comes_out_as_it_is(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    unusable = replace(settings, cache=CacheSettings(directory=str(tmp_path / "file")))
    with pytest.raises(CacheUnusable):
        await serve_without_signals(unusable)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ActionFailed, match=listen):
            await serve_without_signals(
                replace(settings, daemon=replace(settings.daemon, listen=listen))
            )
    assert "s.sock" not in os.listdir(os.path.dirname(settings.daemon.socket))


@pytest.fixture
def port() -> Iterator[int]:
    with reserved_port() as port:
        yield port


async def test_it_is_alive_but_not_ready_while_the_cache_is_opened(
    settings: Settings, start_daemon: StartDaemon, port: int
) -> None:
    os.mkdir(settings.cache.directory)
    ready = anyio.Event()

    async def start() -> None:
        async with start_daemon(listen=f"127.0.0.1:{port}"):
            ready.set()

    async def readiness() -> bytes:
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"GET /readyz HTTP/1.0\r\n\r\n")
            return b"".join([piece async for piece in stream])

    lock = opening_lock(Path(settings.cache.directory) / "locks")
    assert lock.try_acquire()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(start)
        answer = b""
        with anyio.fail_after(60):
            while not answer:
                try:
                    answer = await readiness()
                except OSError:
                    await anyio.sleep(0.01)
        assert b" 503 " in answer
        assert b"starting" in answer
        assert not ready.is_set()
        lock.release()
        with anyio.fail_after(60):
            await ready.wait()


async def test_a_signal_during_the_start_ends_it(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkdir(settings.cache.directory)
    lock = opening_lock(Path(settings.cache.directory) / "locks")
    assert lock.try_acquire()
    sender, receiver = anyio.create_memory_object_stream[signal.Signals](1)
    caplog.set_level(logging.INFO)
    async with sender, receiver, anyio.create_task_group() as tasks:
        tasks.start_soon(serve, Launch(settings, lambda: settings, Supervisor()), receiver)
        await sender.send(signal.SIGTERM)
        await anyio.wait_all_tasks_blocked()
        lock.release()
        tasks.cancel_scope.deadline = anyio.current_time() + 60
    assert not tasks.cancel_scope.cancelled_caught
    messages = [record.getMessage() for record in caplog.records]
    assert "stopping before the start was complete" in messages
    assert "ready" not in messages


async def test_the_supervisor_hears_of_every_step(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)

        async def heard() -> list[str]:
            while True:
                lines = (await to_thread.run_sync(systemd.recv, 4096)).decode().splitlines()
                if not lines[0].startswith("EXTEND_TIMEOUT_USEC="):
                    return lines

        async with start_daemon(notify=str(tmp_path / "notify")) as daemon:
            assert await heard() == ["READY=1", f"STATUS=serving {daemon.settings.daemon.socket}"]
            await daemon.signals.send(signal.SIGHUP)
            assert (await heard())[0] == "RELOADING=1"
            assert (await heard())[0] == "READY=1"
            await daemon.signals.send(signal.SIGTERM)
            assert (await heard())[0] == "STOPPING=1"


async def test_health_can_be_turned_off(start_daemon: StartDaemon) -> None:
    async with start_daemon(listen="") as daemon:
        assert (await daemon.status())["listen"] == ""


async def test_a_daemon_that_may_read_nothing_says_so(
    start_daemon: StartDaemon, caplog: pytest.LogCaptureFixture
) -> None:
    async with start_daemon(stores=()):
        pass
    assert any("no store is allowed" in record.getMessage() for record in caplog.records)


def test_the_default_socket_mode_keeps_strangers_out() -> None:
    assert DaemonSettings().socket_mode & 0o007 == 0
