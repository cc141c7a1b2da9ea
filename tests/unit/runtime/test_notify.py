from __future__ import annotations

import logging
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from snapd.runtime.notify import Supervisor, sockets_handed_over, supervisor_of


@contextmanager
def systemd_at(name: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        systemd.settimeout(60)
        yield systemd


@pytest.mark.parametrize("abstract", [False, True])
def test_the_supervisor_is_told(tmp_path: Path, abstract: bool) -> None:
    name = f"@snapsync-test-{secrets.token_hex(8)}" if abstract else str(tmp_path / "notify")
    with systemd_at(name) as systemd:
        supervisor = Supervisor(name)
        supervisor.ready("serving")
        assert systemd.recv(4096) == b"READY=1\nSTATUS=serving"
        supervisor.reloading()
        first, _, moment = systemd.recv(4096).partition(b"\nMONOTONIC_USEC=")
        assert first == b"RELOADING=1"
        assert abs(int(moment) - time.monotonic_ns() // 1000) < 5_000_000
        supervisor.stopping("draining")
        assert systemd.recv(4096) == b"STOPPING=1\nSTATUS=draining"


def test_without_a_supervisor_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    Supervisor().ready("serving")
    assert not caplog.records


def test_a_supervisor_that_is_gone_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = Supervisor(str(tmp_path / "gone"), watchdog_seconds=1.0)
    with caplog.at_level(logging.WARNING):
        supervisor.ready("serving")
        supervisor.beat(in_transition=False)
        supervisor.beat(in_transition=True)
        (record,) = caplog.records
        assert "READY=1" in record.getMessage()
        with systemd_at(str(tmp_path / "gone")):
            supervisor.beat(in_transition=False)
        supervisor.beat(in_transition=False)
    assert len(caplog.records) == 2


def test_a_beat_feeds_the_watchdog_and_asks_for_time_in_between(tmp_path: Path) -> None:
    name = str(tmp_path / "notify")
    with systemd_at(name) as systemd:
        watched = Supervisor(name, watchdog_seconds=6.0)
        watched.beat(in_transition=False)
        assert systemd.recv(4096) == b"WATCHDOG=1"
        watched.beat(in_transition=True)
        assert systemd.recv(4096) == b"WATCHDOG=1\nEXTEND_TIMEOUT_USEC=60000000"
        assert watched.beat_seconds == 2.0
        unwatched = Supervisor(name)
        unwatched.beat(in_transition=False)
        unwatched.beat(in_transition=True)
        assert systemd.recv(4096) == b"EXTEND_TIMEOUT_USEC=60000000"


async def test_it_beats_as_long_as_the_loop_runs(tmp_path: Path) -> None:
    name = str(tmp_path / "notify")
    with systemd_at(name) as systemd:
        supervisor = Supervisor(name, watchdog_seconds=0.03)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervisor.keep_beating, lambda: False)
            for _ in range(3):
                assert await to_thread.run_sync(systemd.recv, 4096) == b"WATCHDOG=1"
            systemd.setblocking(False)
            # A loop that hangs does not beat: whatever is queued now is all that comes.
            with pytest.raises(BlockingIOError):
                while True:
                    systemd.recv(4096)
            time.sleep(0.1)  # noqa: ASYNC251 - this is the hang
            with pytest.raises(BlockingIOError):
                systemd.recv(4096)
            tasks.cancel_scope.cancel()


def test_the_environment_says_who_watches(tmp_path: Path) -> None:
    environment = {
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": "9000000",
        "WATCHDOG_PID": "42",
    }
    with systemd_at(str(tmp_path / "notify")) as systemd:
        mine = supervisor_of(environment, 42)
        assert mine.beat_seconds == 3.0
        mine.ready("x")
        assert systemd.recv(4096).startswith(b"READY=1")
    # The variables of a parent, which this process inherited, are not meant for it.
    others = supervisor_of(environment, 43)
    assert others.beat_seconds == 10.0
    assert supervisor_of({}, 1).beat_seconds == 10.0
    assert supervisor_of({"WATCHDOG_USEC": "soon"}, 1).beat_seconds == 10.0


def test_sockets_are_counted_only_if_they_are_for_this_process() -> None:
    given = {"LISTEN_FDS": "1", "LISTEN_PID": "42"}
    assert sockets_handed_over(given, 42) == 1
    assert sockets_handed_over(given, 43) == 0
    assert sockets_handed_over({"LISTEN_FDS": "1"}, 42) == 0
    assert sockets_handed_over({"LISTEN_PID": "42"}, 42) == 0
