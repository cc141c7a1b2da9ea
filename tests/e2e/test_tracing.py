"""Traces and log lines of a real daemon: both name the job that a pull was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from snapctl.client import Client
from tests.e2e.installed import Host, write_files
from tests.servers.otlp import attributes_of, running_collector

CONFIG = """
[daemon]
listen = ""
stores = ["{store}"]
[tracing]
endpoint_url = "{endpoint}"
"""


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"file://{tmp_path}/store"


@pytest.fixture
def pushed(host: Host, tmp_path: Path, store: str) -> str:
    files = {f"d/{n}": f"content {n}".encode() * 100 for n in range(20)}
    ran = host.snapctl("push", write_files(tmp_path / "source", files), "--store", store)
    assert ran.code == 0, ran.stderr
    return ran.stdout.strip()


def jobs(host: Host) -> dict[str, str]:
    """Snapshot -> job, of all that have ended."""
    return {view.snapshot_id: view.job_id for view in Client([str(host.socket)]).jobs()}


def test_a_pull_leaves_a_trace(host: Host, store: str, pushed: str) -> None:
    with running_collector() as collector:
        config = CONFIG.format(store=store, endpoint=collector.url)
        with host.daemon(config=config) as daemon:
            assert host.snapctl("pull", "--id", pushed, "--store", store).code == 0
            job_id = jobs(host)[pushed]
            missing = host.snapctl("pull", "--id", "0" * 64, "--store", store)
            assert missing.code == 10
            # What has not been sent yet is sent at the end.
            assert daemon.stop() == 0
        spans = collector.wait_for(8)
    pulls = {attributes_of(span)["snapsync.job_id"]: span for span in spans if span.name == "pull"}
    assert len(pulls) == 2
    done = pulls.pop(job_id)
    assert attributes_of(done)["snapsync.snapshot_id"] == pushed
    assert attributes_of(done)["snapsync.objects.fetched"] == 20
    steps = [span for span in spans if span.parent_span_id == done.span_id]
    assert [
        span.name for span in sorted(steps, key=lambda span: int(span.start_time_unix_nano))
    ] == [
        "queued",
        "reading_manifest",
        "planning",
        "fetching",
        "publishing",
    ]
    assert all(span.trace_id == done.trace_id for span in steps)
    (failed,) = pulls.values()
    assert attributes_of(failed)["error.type"] == "no_such_snapshot"
    assert failed.status.code == 2


def test_every_line_about_a_pull_names_its_job(host: Host, store: str, tmp_path: Path) -> None:
    """Those too that are written in worker threads, far below the pull."""
    files = {"kept": b"kept " * 1000, "a": b"a"}
    ids = []
    for name, held in (("one", files), ("two", files), ("unlike", {})):
        source = write_files(tmp_path / name, held | {"own": name.encode()})
        ids.append(host.snapctl("push", source, "--store", store).stdout.strip())
    one, two, unlike = ids
    with host.daemon("--store", store) as daemon:
        tree = Path(host.snapctl("pull", "--id", one, "--store", store).stdout.strip())
        # It begins with what is left to do of the one before, which else might find the damage.
        assert host.snapctl("pull", "--id", unlike, "--store", store).code == 0
        damaged = tree / "kept"
        damaged.chmod(0o644)
        damaged.write_bytes(b"somebody wrote here")
        assert host.snapctl("pull", "--id", two, "--store", store).code == 0
        assert host.snapctl("pull", "--id", "0" * 64, "--store", store).code == 10
        of = jobs(host)
        assert daemon.stop() == 0
    lines = [json.loads(line) for line in daemon.log_text().splitlines()]
    said = {
        job_id: [line["message"] for line in lines if line.get("job_id") == job_id]
        for job_id in of.values()
    }
    assert f"pull of {one}" in said[of[one]][-1]
    assert any("is damaged; it goes to the quarantine" in text for text in said[of[two]])
    assert f"pull of {two}" in said[of[two]][-1]
    assert "failed" in said[of["0" * 64]][-1]
    anonymous = [line["message"] for line in lines if "job_id" not in line]
    assert not [text for text in anonymous if one in text or two in text or "is damaged" in text]
