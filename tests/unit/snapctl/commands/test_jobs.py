from __future__ import annotations

import json
from pathlib import Path

from snapd.model.jobs import JobView
from tests.unit.snapctl.running import snapctl
from tests.unit.snapctl.scripted import scripted_daemon, view

JOBS = {
    "jobs": [
        view(job_id="j1", bytes_fetched=50, bytes_per_second=2048.0, eta_seconds=9.0, waiters=2),
        view("queued", job_id="j2", bytes_total=0, objects_total=0),
        view("done", job_id="j3", bytes_per_second=2048.0),
    ]
}


def test_only_jobs_that_have_not_ended_unless_all_are_asked_for(tmp_path: Path) -> None:
    at = tmp_path / "s"
    with scripted_daemon(at, {("GET", "/v1/jobs"): lambda it: it.reply(200, JOBS)}):
        some = snapctl("jobs", "--socket", str(at), home=tmp_path)
        every = snapctl("jobs", "--all", "--socket", str(at), home=tmp_path)
    assert [line.split()[0] for line in some.stdout.splitlines()] == ["JOB", "j1", "j2"]
    assert [line.split()[0] for line in every.stdout.splitlines()] == ["JOB", "j1", "j2", "j3"]
    row = "j1 fetching aaaaaaaaaaaa 50 B/100 B 0/4 2.0 KiB/s 9.0s 2 s3://bucket/prefix"
    assert " ".join(some.stdout.splitlines()[1].split()) == row
    assert every.stdout.splitlines()[3].split()[8] == "-"


def test_jobs_as_json(tmp_path: Path) -> None:
    at = tmp_path / "s"
    with scripted_daemon(at, {("GET", "/v1/jobs"): lambda it: it.reply(200, JOBS)}):
        ran = snapctl("jobs", "--json", "--socket", str(at), home=tmp_path)
    expected = [JobView.from_json(job).to_json() for job in JOBS["jobs"][:2]]
    assert json.loads(ran.stdout) == {"jobs": expected}
