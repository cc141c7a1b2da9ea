from __future__ import annotations

import json
from pathlib import Path

from tests.unit.snapctl.running import snapctl
from tests.unit.snapctl.scripted import scripted_daemon
from tests.unit.snapctl.test_main import STATUS


def test_status_for_people(tmp_path: Path) -> None:
    at = tmp_path / "s"
    with scripted_daemon(at, {("GET", "/v1/status"): lambda it: it.reply(200, STATUS)}):
        ran = snapctl("status", "--socket", str(at), home=tmp_path)
    assert ran.returncode == 0
    assert dict(line.split(None, 1) for line in ran.stdout.splitlines()) == {
        "daemon": "snapd 9.9, pid 7",
        "up": "1m15s",
        "state": "/s",
        "trees": "/s/trees",
        "jobs": "1 running, 2 queued",
        "cache": "3 snapshots, 2.0 KiB",
        "disk": "1.0 GiB free of 2.0 GiB",
        "sealed": "no: no fs-verity",
        "stores": "s3://a",
        "health": "127.0.0.1:9477",
    }


def test_a_daemon_that_may_read_nothing_and_serves_no_health(tmp_path: Path) -> None:
    at = tmp_path / "s"
    bare = STATUS | {"stores": [], "listen": "", "seal": {"active": True}}
    with scripted_daemon(at, {("GET", "/v1/status"): lambda it: it.reply(200, bare)}):
        ran = snapctl("status", "--socket", str(at), home=tmp_path)
        as_json = snapctl("status", "--json", "--socket", str(at), home=tmp_path)
    assert "stores     none allowed" in ran.stdout
    assert "health     off" in ran.stdout
    assert "sealed     yes, by fs-verity" in ran.stdout
    assert json.loads(as_json.stdout) == bare
