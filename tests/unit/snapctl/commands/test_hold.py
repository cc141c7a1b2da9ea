from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.snapctl.running import environment_of, snapctl
from tests.unit.snapctl.scripted import Exchange, scripted_daemon, view

ID = "a" * 64
TREE = f"/cache/trees/{ID}"
UNSEEN = {"code": "usage", "exit_code": 2, "message": "in another PID namespace", "hint": ""}
LEASE = {"lease_id": "x", "snapshot_id": ID, "kind": "process", "since": 1.0}


def _done(it: Exchange) -> None:
    it.stream(view("done"))


def _start(at: Path, *more: str) -> subprocess.Popen[str]:
    words = ["hold", "--id", ID, "--store", "s3://bucket/prefix", "--socket", str(at), *more]
    return subprocess.Popen(
        [sys.executable, "-m", "snapctl", *words],
        env=environment_of(at.parent),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=os.getcwd(),
    )


def test_a_daemon_that_sees_the_process_holds_by_it(tmp_path: Path) -> None:
    scripts = {
        ("POST", "/v1/leases"): lambda it: it.reply(201, LEASE),
        ("POST", "/v1/pulls"): _done,
    }
    with scripted_daemon(tmp_path / "s", scripts) as daemon:
        process = _start(tmp_path / "s", "--reason", "training")
        assert process.stdout is not None
        assert process.stdout.readline() == f"{TREE}\n"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    asked = [(path, body) for _, path, body in daemon.requests]
    lease = {"id": ID, "kind": "process", "subject": "", "reason": "training"}
    assert asked[0] == ("/v1/leases", lease)
    assert [path for path, _ in asked] == ["/v1/leases", "/v1/pulls"]


def test_one_that_does_not_is_asked_again_and_again(tmp_path: Path) -> None:
    pulls = iter([_done, lambda it: it.reply(503, UNSEEN | {"code": "daemon_stopping"}), _done])
    scripts = {
        ("POST", "/v1/leases"): lambda it: it.reply(400, UNSEEN),
        ("POST", "/v1/pulls"): lambda it: next(pulls, _done)(it),
    }
    with scripted_daemon(tmp_path / "s", scripts):
        process = _start(tmp_path / "s", "--every", "1s", "--json")
        assert process.stdout is not None
        assert process.stderr is not None
        assert '"event":"held"' in process.stdout.readline()
        for line in process.stderr:
            if "not renewed" in line:
                break
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


@pytest.mark.parametrize("every", ["0s", "0.5s", "often"])
def test_an_interval_that_makes_no_sense(tmp_path: Path, every: str) -> None:
    ran = snapctl("hold", "--id", ID, "--store", "s3://b", "--every", every, home=tmp_path)
    assert ran.returncode == 2
