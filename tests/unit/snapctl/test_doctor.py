from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.snapctl.running import snapctl
from tests.unit.snapctl.scripted import Exchange, scripted_daemon


def doctor(tmp_path: Path, **changes: Any) -> str:
    """Run it beside a daemon that answers so."""
    status = {
        "version": "0.1.0",
        "pid": 1,
        "state": "ready",
        "role": "pull",
        "trees_directory": str(tmp_path),
    }

    def tell_status(it: Exchange) -> None:
        it.reply(200, status | changes)

    def tell_checks(it: Exchange) -> None:
        it.reply(200, {"checks": []})

    answers = {("GET", "/v1/status"): tell_status, ("GET", "/v1/doctor"): tell_checks}
    with scripted_daemon(tmp_path / "s", answers):
        ran = snapctl("doctor", "--socket", str(tmp_path / "s"), home=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.parametrize(
    ("role", "line"),
    [
        ("read", "WARNING role: this user may look, but not pull"),
        ("pull", "ok      role: this user may pull"),
        ("administer", "ok      role: this user may pull, evict and end what others hold"),
    ],
)
def test_it_says_what_this_user_may_do(tmp_path: Path, role: str, line: str) -> None:
    assert line in doctor(tmp_path, role=role).splitlines()


def test_what_needs_care_is_told_with_what_to_do(tmp_path: Path) -> None:
    shown = doctor(tmp_path, state="draining", version="9.9.9", role="read")
    lines = shown.splitlines()
    for name in ("daemon", "version", "role"):
        (index,) = (n for n, line in enumerate(lines) if line.startswith(f"WARNING {name}: "))
        assert lines[index + 1].startswith("        -> ")


def test_trees_that_can_not_be_seen_are_told(tmp_path: Path) -> None:
    shown = doctor(tmp_path, trees_directory=str(tmp_path / "absent"))
    assert f"WARNING trees: {tmp_path}/absent can't be read by this user" in shown
    assert "SNAPSYNC_TREES" in shown
