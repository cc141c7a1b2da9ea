from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from snapctl import awaiting
from snapctl.awaiting import Patience, await_daemon
from snapctl.context import Context
from snapd.model.errors import (
    AccessDenied,
    DaemonNotRunning,
    DaemonStopping,
    SnapsyncError,
    TimedOut,
    UsageError,
)
from tests.unit.snapctl.scripted import Exchange, scripted_daemon

STATUS = ("GET", "/v1/status")


@pytest.fixture
def at(tmp_path: Path) -> Path:
    return tmp_path / "s"


def test_durations_as_people_write_them() -> None:
    before = time.monotonic()
    patience = Patience.parse("1m", "2m", "30s")
    assert patience.deadline is not None
    assert before + 60 <= patience.deadline <= time.monotonic() + 60
    assert (patience.daemon_seconds, patience.stall_seconds) == (120.0, 30.0)
    assert Patience.parse(None, None, "0s") == Patience()
    with pytest.raises(UsageError):
        Patience.parse("soon")


def test_a_daemon_that_is_there_is_not_waited_for(
    at: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with scripted_daemon(at, {STATUS: lambda it: it.reply(200, {"state": "ready"})}) as daemon:
        await_daemon(Context(socket=str(at)), Patience())
    assert len(daemon.requests) == 1
    assert capfd.readouterr().err == ""


def test_one_that_starts_later_is_waited_for(
    at: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    states = iter(["draining", "ready"])
    may_start = threading.Event()
    look = awaiting._absence

    def looked(context: Context, until: float) -> SnapsyncError | None:
        absent = look(context, until)
        may_start.set()
        return absent

    monkeypatch.setattr(awaiting, "_absence", looked)

    def serve() -> None:
        may_start.wait(60)
        reply = {STATUS: lambda it: it.reply(200, {"state": next(states)})}
        with scripted_daemon(at, reply):
            done.wait(60)

    done = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        await_daemon(Context(socket=str(at)), Patience(daemon_seconds=60.0))
    finally:
        done.set()
        thread.join()
    assert "no socket at" in capfd.readouterr().err
    assert next(states, None) is None


def test_one_that_never_comes(at: Path) -> None:
    with pytest.raises(DaemonNotRunning, match=str(at)):
        await_daemon(Context(socket=str(at), quiet=True), Patience(daemon_seconds=0.2))
    with pytest.raises(TimedOut, match="within --timeout"):
        patience = Patience(deadline=time.monotonic() + 0.2, daemon_seconds=60.0)
        await_daemon(Context(socket=str(at), quiet=True), patience)


def test_one_that_only_stops(at: Path) -> None:
    with (
        scripted_daemon(at, {STATUS: lambda it: it.reply(200, {"state": "draining"})}),
        pytest.raises(DaemonStopping),
    ):
        await_daemon(Context(socket=str(at), quiet=True), Patience(daemon_seconds=0.2))


def test_what_waiting_does_not_change_is_said_at_once(at: Path) -> None:
    def refuse(it: Exchange) -> None:
        it.reply(403, {"code": "access_denied", "message": "not you"})

    with scripted_daemon(at, {STATUS: refuse}), pytest.raises(AccessDenied):
        await_daemon(Context(socket=str(at), quiet=True), Patience(daemon_seconds=60.0))
