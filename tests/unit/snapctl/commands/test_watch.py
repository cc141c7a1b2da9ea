from __future__ import annotations

import json
from pathlib import Path

from snapd.model.errors import DigestMismatch
from tests.unit.snapctl.running import snapctl
from tests.unit.snapctl.scripted import scripted_daemon, view

ID = "a" * 64


def test_watching_a_job_by_name_ends_with_it(tmp_path: Path) -> None:
    at = tmp_path / "s"
    scripts = {("GET", "/v1/jobs/j1/events"): lambda it: it.stream(view(), view("done"))}
    with scripted_daemon(at, scripts):
        ran = snapctl("watch", "j1", "--events", "--socket", str(at), home=tmp_path)
        as_json = snapctl("watch", "j1", "--json", "--socket", str(at), home=tmp_path)
    assert ran.returncode == 0
    states = [json.loads(line)["state"] for line in ran.stdout.splitlines()]
    assert states == ["fetching", "done"]
    assert json.loads(as_json.stdout)["state"] == "done"
    assert "done in 2.5s" in as_json.stderr


def test_watching_a_snapshot_prefers_the_job_that_runs(tmp_path: Path) -> None:
    at = tmp_path / "s"
    jobs = [
        view("done", job_id="newer", created_at=50.0),
        view(job_id="running", created_at=20.0),
        view(job_id="other", snapshot_id="b" * 64, created_at=60.0),
    ]
    ended = view("done", job_id="running")
    scripts = {
        ("GET", "/v1/jobs"): lambda it: it.reply(200, {"jobs": jobs}),
        ("GET", "/v1/jobs/running/events"): lambda it: it.stream(ended),
    }
    with scripted_daemon(at, scripts):
        extra = {"SNAPSYNC_ID": ID}
        ran = snapctl("watch", "--json", "--socket", str(at), home=tmp_path, extra=extra)
    assert json.loads(ran.stdout)["job_id"] == "running"


def test_a_snapshot_without_a_job(tmp_path: Path) -> None:
    at = tmp_path / "s"
    with scripted_daemon(at, {("GET", "/v1/jobs"): lambda it: it.reply(200, {"jobs": []})}):
        ran = snapctl("watch", "--id", ID, "--json", "--socket", str(at), home=tmp_path)
    assert ran.returncode == 1
    assert json.loads(ran.stderr)["code"] == "no_such_job"


def test_watching_a_job_that_fails_exits_as_it_failed(tmp_path: Path) -> None:
    at = tmp_path / "s"
    error = DigestMismatch("object x has other bytes", object="x").to_json()
    failed = view("failed", error=error)
    with scripted_daemon(at, {("GET", "/v1/jobs/j1/events"): lambda it: it.stream(failed)}):
        ran = snapctl("watch", "j1", "--json", "--socket", str(at), home=tmp_path)
    assert ran.returncode == 12
    assert json.loads(ran.stderr.splitlines()[-1]) == error
