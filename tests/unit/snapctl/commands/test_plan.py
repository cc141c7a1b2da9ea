from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from snapd.model.eviction import Verdict
from snapd.model.space import PlanView
from tests.unit.snapctl.running import snapctl
from tests.unit.snapctl.scripted import scripted_daemon

ID = "ab" * 32
GOES = Verdict("cd" * 32, True, "least_recently_used", 1.0, 2048, 4096)
STAYS = Verdict("ef" * 32, False, "leased", 1.0, 2048, leases=("pin (release 3)",))
VIEW = PlanView(
    ID, "s3://b", False, 5, 2, 5 * 1024, 2 * 1024, 8192, 4096, 4096, True, (GOES,), (STAYS,)
)


def planned(tmp_path: Path, view: PlanView, *flags: str) -> tuple[int, str]:
    at = tmp_path / "s"
    with scripted_daemon(at, {("POST", "/v1/plan"): lambda it: it.reply(200, view.to_json())}):
        words = ("plan", "--id", ID, "--store", "s3://b", "--socket", str(at), *flags)
        ran = snapctl(*words, home=tmp_path)
    return ran.returncode, ran.stdout


def test_a_plan_for_people(tmp_path: Path) -> None:
    code, text = planned(tmp_path, VIEW)
    assert code == 0
    lines = text.splitlines()
    assert lines[:5] == [
        "snapshot  5.0 KiB, 5 objects",
        "cached    2.0 KiB, 2 objects",
        "to fetch  3.0 KiB, 3 objects",
        "room      8.0 KiB needed on disk, 4.0 KiB there",
        "to evict  4.0 KiB, 1 snapshots",
    ]
    assert GOES.snapshot_id in lines[6]
    assert STAYS.snapshot_id not in text


def test_no_room_is_exit_code_11_and_says_who_holds(tmp_path: Path) -> None:
    code, text = planned(tmp_path, replace(VIEW, fits=False, evict=()))
    assert code == 11
    assert "to evict  no room: only 4.0 KiB could come free" in text
    assert "release 3" in text


def test_a_complete_snapshot_needs_nothing(tmp_path: Path) -> None:
    code, text = planned(tmp_path, PlanView(ID, "s3://b", True, 1, 1, 1024, 1024))
    assert code == 0
    assert text.splitlines()[-1] == "room      the snapshot is complete in the cache"


def test_a_plan_for_programs(tmp_path: Path) -> None:
    code, text = planned(tmp_path, VIEW, "--json")
    assert (code, PlanView.from_json(json.loads(text))) == (0, VIEW)
