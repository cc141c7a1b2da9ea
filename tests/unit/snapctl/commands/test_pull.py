from __future__ import annotations

import json
from pathlib import Path

import pytest

from snapd.model.errors import SnapshotNotFound, StoreNotAllowed
from snapd.model.ids import SnapshotId
from snapd.model.references import Resolved
from tests.unit.snapctl.running import snapctl
from tests.unit.snapctl.scripted import Exchange, scripted_daemon, view

ID = "a" * 64
WORDS = ["pull", "--id", ID, "--store", "s3://bucket/prefix"]


@pytest.fixture
def at(tmp_path: Path) -> Path:
    return tmp_path / "s"


def _done(it: Exchange) -> None:
    it.stream(view("queued", bytes_total=0), view(), view("done"))


def _started(it: Exchange) -> None:
    it.reply(202, view("queued"))


def test_the_tree_s_path_stands_alone_on_stdout(tmp_path: Path, at: Path) -> None:
    with scripted_daemon(at, {("POST", "/v1/pulls"): _done}) as daemon:
        ran = snapctl(*WORDS, "--socket", str(at), home=tmp_path)
    assert ran.returncode == 0
    assert ran.stdout == f"/cache/trees/{ID}\n"
    assert [line.split(": ")[1].split()[0] for line in ran.stderr.splitlines()] == [
        "queued",
        "done",
    ]
    sent = {"id": ID, "store": "s3://bucket/prefix", "priority": "blocking"}
    assert daemon.requests == [("POST", "/v1/pulls", sent)]


def test_variables_stand_in_for_flags(tmp_path: Path, at: Path) -> None:
    extra = {"SNAPSYNC_ID": ID.upper(), "SNAPSYNC_STORE": "s3://bucket/prefix/"}
    extra |= {"SNAPSYNC_SOCKET": str(at), "SNAPSYNC_TIMEOUT": "1m", "SNAPSYNC_STANDALONE": "0"}
    with scripted_daemon(at, {("POST", "/v1/pulls"): _done}) as daemon:
        ran = snapctl("pull", "--priority", "prefetch", home=tmp_path, extra=extra)
    assert ran.returncode == 0, ran.stderr
    sent = {"id": ID, "store": "s3://bucket/prefix", "priority": "prefetch"}
    assert daemon.requests[0][2] == sent


def test_one_document_under_json(tmp_path: Path, at: Path) -> None:
    with scripted_daemon(at, {("POST", "/v1/pulls"): _done}):
        ran = snapctl(*WORDS, "--json", "--quiet", "--socket", str(at), home=tmp_path)
    assert ran.stderr == ""
    assert json.loads(ran.stdout) == {
        "job_id": "j1",
        "id": ID,
        "store": "s3://bucket/prefix",
        "tree": f"/cache/trees/{ID}",
        "dest": None,
        "bytes_total": 100,
        "bytes_fetched": 75,
        "bytes_cached": 25,
        "objects_total": 4,
        "objects_fetched": 3,
        "objects_cached": 1,
        "seconds": 2.5,
    }


@pytest.mark.parametrize("detach", [False, True])
def test_a_reference_and_where_it_led_are_told_under_json(
    tmp_path: Path, at: Path, detach: bool
) -> None:
    found = Resolved("iris@production", "model", "iris", "v1.0.0", SnapshotId(ID), "production")
    scripts = {
        ("POST", "/v1/resolve"): lambda it: it.reply(200, found.to_json()),
        ("POST", "/v1/pulls"): _started if detach else _done,
    }
    words = ["pull", "--id", "iris@production", "--store", "s3://bucket/prefix", "--json"]
    words += ["--detach"] if detach else []
    with scripted_daemon(at, scripts):
        ran = snapctl(*words, "--socket", str(at), home=tmp_path)
    document = json.loads(ran.stdout)
    assert (document["reference"], document["version"]) == ("iris@production", "v1.0.0")
    assert document["snapshot_id" if detach else "id"] == ID


def test_events_are_every_view_and_nothing_else(tmp_path: Path, at: Path) -> None:
    with scripted_daemon(at, {("POST", "/v1/pulls"): _done}):
        ran = snapctl(*WORDS, "--events", "--socket", str(at), home=tmp_path)
    assert ran.stderr == ""
    states = [json.loads(line)["state"] for line in ran.stdout.splitlines()]
    assert states == ["queued", "fetching", "done"]


def test_detached_prints_the_job(tmp_path: Path, at: Path) -> None:
    queued = {("POST", "/v1/pulls"): lambda it: it.reply(202, view("queued"))}
    with scripted_daemon(at, queued) as daemon:
        ran = snapctl(*WORDS, "--detach", "--socket", str(at), home=tmp_path)
        as_json = snapctl(*WORDS, "--detach", "--json", "--socket", str(at), home=tmp_path)
    assert ran.stdout == "j1\n"
    assert json.loads(as_json.stdout)["state"] == "queued"
    assert daemon.requests[0][2]["detach"] is True


def test_a_refused_store_is_exit_15(tmp_path: Path, at: Path) -> None:
    refused = StoreNotAllowed("not on the list: s3://bucket/prefix").to_json()
    with scripted_daemon(at, {("POST", "/v1/pulls"): lambda it: it.reply(403, refused)}):
        ran = snapctl(*WORDS, "--json", "--socket", str(at), home=tmp_path)
    assert ran.returncode == 15
    assert json.loads(ran.stderr) == refused


def test_a_job_that_fails_decides_the_exit_code(tmp_path: Path, at: Path) -> None:
    error = SnapshotNotFound("no such snapshot").to_json()
    failed = view("failed", error=error)
    with scripted_daemon(at, {("POST", "/v1/pulls"): lambda it: it.stream(view(), failed)}):
        ran = snapctl(*WORDS, "--socket", str(at), home=tmp_path)
    assert ran.returncode == 10
    assert ran.stdout == ""
    assert ran.stderr.splitlines()[-2] == "snapctl: no such snapshot"


def test_the_timeout_is_exit_16_and_leaves_the_job(tmp_path: Path, at: Path) -> None:
    def hold(it: Exchange) -> None:
        it.begin_stream()
        it.send_line(view())
        it.wait_until_left()

    with scripted_daemon(at, {("POST", "/v1/pulls"): hold}) as daemon:
        ran = snapctl(*WORDS, "--timeout", "300ms", "--json", "--socket", str(at), home=tmp_path)
        assert daemon.left.wait(60)
    assert ran.returncode == 16
    assert json.loads(ran.stderr.splitlines()[-1])["code"] == "timed_out"


def test_auto_goes_to_a_daemon_that_runs(tmp_path: Path, at: Path) -> None:
    scripts = {
        ("GET", "/v1/status"): lambda it: it.reply(200, {}),
        ("POST", "/v1/pulls"): _done,
    }
    with scripted_daemon(at, scripts) as daemon:
        ran = snapctl(*WORDS, "--standalone=auto", "--socket", str(at), home=tmp_path)
    assert ran.returncode == 0
    assert [request[1] for request in daemon.requests] == ["/v1/status", "/v1/pulls"]


@pytest.mark.parametrize("never", [[], ["--no-standalone"], ["--standalone=never"]])
def test_without_a_daemon_it_fails_unless_told_otherwise(
    tmp_path: Path, at: Path, never: list[str]
) -> None:
    ran = snapctl(*WORDS, *never, "--socket", str(at), home=tmp_path)
    assert ran.returncode == 14
    assert "--standalone" in ran.stderr
