from __future__ import annotations

import json
from pathlib import Path

import pytest

from snapd.model.errors import SnapshotInUse
from snapd.model.eviction import Verdict
from snapd.model.space import SweepReport
from tests.unit.snapctl.running import snapctl
from tests.unit.snapctl.scripted import Script, scripted_daemon

ID = "ab" * 32
GOES = Verdict(ID, True, "least_recently_used", 1.0, 2048, 4096)
STAYS = Verdict("cd" * 32, False, "leased", 1.0, 2048, leases=("pin (release 3)",))
REPORT = SweepReport(False, 10_000, 8192, 4096, evicted=(GOES,), kept=(STAYS,), orphan_bytes=1024)


def test_a_sweep_tells_what_went_and_why(tmp_path: Path) -> None:
    at = tmp_path / "s"
    scripts: dict[tuple[str, str], Script] = {
        ("POST", "/v1/sweep"): lambda it: it.reply(200, REPORT.to_json())
    }
    with scripted_daemon(at, scripts) as daemon:
        ran = snapctl("cache", "gc", "--why", "--free", "8K", "--socket", str(at), home=tmp_path)
        as_json = snapctl("cache", "gc", "--json", "--socket", str(at), home=tmp_path)
    assert ran.returncode == as_json.returncode == 3
    assert daemon.requests[0][2] == {"dryrun": False, "why": True, "free_bytes": 8192}
    rows = ran.stdout.splitlines()
    assert rows[1].startswith(ID)
    assert "used longest ago" in rows[1]
    assert "held: pin (release 3)" in rows[2]
    assert rows[3].startswith("evicted 1 snapshots; 4.0 KiB came free; 1.0 KiB of it in objects")
    assert SweepReport.from_json(json.loads(as_json.stdout)) == REPORT


@pytest.mark.parametrize("given_out_too", [False, True])
def test_an_eviction(tmp_path: Path, given_out_too: bool) -> None:
    at = tmp_path / "s"
    path = f"/v1/snapshots/{ID}?given_out_too={int(given_out_too)}"
    done = SweepReport(False, 0, 0, 4096, evicted=(GOES,)).to_json()
    refused = SnapshotInUse("held by a pod").to_json()
    reply = (200, done) if given_out_too else (409, refused)
    with scripted_daemon(at, {("DELETE", path): lambda it: it.reply(*reply)}):
        flags = ["--given-out-too"] if given_out_too else []
        ran = snapctl("cache", "evict", ID, *flags, "--socket", str(at), home=tmp_path)
    if given_out_too:
        assert (ran.returncode, ran.stdout) == (0, "evicted 1 snapshots; 4.0 KiB came free\n")
    else:
        assert ran.returncode == 1
        assert "held by a pod" in ran.stderr
