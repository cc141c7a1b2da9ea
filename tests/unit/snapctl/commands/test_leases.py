from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.snapctl.running import snapctl
from tests.unit.snapctl.scripted import scripted_daemon

ID, OTHER = "a" * 64, "b" * 64


def lease(snapshot_id: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"lease_id": "x", "snapshot_id": snapshot_id, "kind": kind, "since": 1.0} | more


@pytest.fixture
def listed() -> dict[str, Any]:
    now = time.time()
    return {
        "leases": [
            lease(ID, "process", since=now - 90, reason="sh", process={"pid": 12}),
            lease(ID, "time", since=now - 60, until=now + 3655),
            lease(OTHER, "pin", since=now - 7200, uid=3, reason="baseline"),
            lease(OTHER, "link", since=now, subject="/data/current"),
        ]
    }


def test_who_holds_what_and_why(tmp_path: Path, listed: dict[str, Any]) -> None:
    at = tmp_path / "s"
    with scripted_daemon(at, {("GET", "/v1/leases"): lambda it: it.reply(200, listed)}):
        ran = snapctl("leases", "--socket", str(at), home=tmp_path)
        of_one = snapctl("leases", "--id", OTHER, "--socket", str(at), home=tmp_path)
        as_json = snapctl("leases", "--json", "--socket", str(at), home=tmp_path)
    rows = ran.stdout.splitlines()
    assert rows[0].split() == ["SNAPSHOT", "KIND", "HOLDER", "SINCE", "UNTIL", "WHY"]
    assert rows[1].split("  ")[0] == "a" * 12
    assert "process 12" in rows[1]
    assert rows[1].split()[-1] == "sh"
    assert "in 1h00m" in rows[2]
    assert "pin of uid 3" in rows[3]
    assert "unpinned" in rows[3]
    assert "link /data/current" in rows[4]
    assert len(of_one.stdout.splitlines()) == 3
    found = json.loads(as_json.stdout)["leases"]
    assert [each["kind"] for each in found] == ["process", "time", "pin", "link"]
    assert found[2]["description"] == "pin of uid 3 (baseline)"
    assert found[0]["holder"] == "process 12"


def test_nothing_held_is_an_empty_table(tmp_path: Path) -> None:
    ran = snapctl("leases", "--standalone", home=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert len(ran.stdout.splitlines()) == 1
    assert not (tmp_path / "cache").exists(), "looking makes nothing"


def test_an_unfit_id_is_named(tmp_path: Path) -> None:
    ran = snapctl("leases", "--standalone", "--id", "xyz", home=tmp_path)
    assert ran.returncode == 2
