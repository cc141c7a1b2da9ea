from __future__ import annotations

import json
from pathlib import Path

from snapd.model.errors import JobNotFound
from tests.unit.snapctl.running import snapctl
from tests.unit.snapctl.scripted import scripted_daemon, view


def test_a_cancelled_job_is_named_with_its_state(tmp_path: Path) -> None:
    at = tmp_path / "s"
    scripts = {("DELETE", "/v1/jobs/j1"): lambda it: it.reply(200, view("cancelled"))}
    with scripted_daemon(at, scripts):
        ran = snapctl("cancel", "j1", "--socket", str(at), home=tmp_path)
        as_json = snapctl("cancel", "j1", "--json", "--socket", str(at), home=tmp_path)
    assert ran.stdout == "j1 cancelled\n"
    assert json.loads(as_json.stdout)["state"] == "cancelled"


def test_an_unknown_job_fails(tmp_path: Path) -> None:
    at = tmp_path / "s"
    missing = JobNotFound("no job 'j9'").to_json()
    with scripted_daemon(at, {("DELETE", "/v1/jobs/j9"): lambda it: it.reply(404, missing)}):
        ran = snapctl("cancel", "j9", "--socket", str(at), home=tmp_path)
    assert ran.returncode == 1
    assert "no job 'j9'" in ran.stderr
