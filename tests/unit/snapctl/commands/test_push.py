from __future__ import annotations

import json
from pathlib import Path

import pytest

from snapd.disk.walk import walk
from tests.unit.snapctl.running import snapctl


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "d").mkdir(parents=True)
    (root / "a").write_bytes(b"alpha")
    (root / "d/b").write_bytes(b"beta")
    (root / "l").symlink_to("a")
    return root


def test_push_prints_the_id_alone_and_says_the_rest_on_stderr(tmp_path: Path, source: Path) -> None:
    ran = snapctl("push", "source", "--store", f"file://{tmp_path}/store", home=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == f"{walk(source).manifest.id}\n"
    assert "uploaded 2 objects" in ran.stderr
    again = snapctl("push", "source", "-q", "--store", f"file://{tmp_path}/store", home=tmp_path)
    assert (again.stdout, again.stderr) == (ran.stdout, "")


def test_store_comes_from_the_environment_and_path_is_the_working_directory(
    tmp_path: Path, source: Path
) -> None:
    store = tmp_path.parent / f"{tmp_path.name}-store"
    ran = snapctl("push", "--json", home=source, extra={"SNAPSYNC_STORE": f"file://{store}"})
    document = json.loads(ran.stdout)
    assert len(document["id"]) == 64
    assert (document["files"], document["objects_uploaded"], document["dryrun"]) == (3, 2, False)
    assert (store / ".manifests" / document["id"][:3]).is_dir()


def test_dryrun_writes_no_store(tmp_path: Path, source: Path) -> None:
    ran = snapctl(
        "push", "source", "--dryrun", "--store", f"file://{tmp_path}/store", home=tmp_path
    )
    assert ran.stdout == f"{walk(source).manifest.id}\n"
    assert "would upload 2 objects" in ran.stderr
    assert not (tmp_path / "store").exists()


def test_excludes_links_and_verify(tmp_path: Path, source: Path) -> None:
    store = tmp_path / "store"
    arguments = ("push", "source", "--store", f"file://{store}", "--no-follow", "--json")
    ran = snapctl(*arguments, "--exclude", "/d$,nothing", home=tmp_path)
    assert json.loads(ran.stdout)["files"] == 1
    (damaged,) = [path for path in (store / ".objects").rglob("*") if path.is_file()]
    damaged.chmod(0o644)
    damaged.write_bytes(b"ALPHA")
    ran = snapctl(*arguments, "--exclude", "/d$", "--verify", home=tmp_path)
    assert json.loads(ran.stdout)["objects_repaired"] == 1
    assert damaged.read_bytes() == b"alpha"


def test_last_push_is_remembered_in_the_cache_of_the_user(tmp_path: Path, source: Path) -> None:
    ran = snapctl("push", "source", "--store", f"file://{tmp_path}/store", home=tmp_path)
    (remembered,) = (tmp_path / "cache/snapsync/pushed").iterdir()
    assert json.loads(remembered.read_text()) == {
        "directory": str(source),
        "store": f"file://{tmp_path}/store",
        "id": ran.stdout.strip(),
        "reliances": 0,
    }


def test_events_are_lines_of_json(tmp_path: Path, source: Path) -> None:
    ran = snapctl(
        "push", "source", "--events", "--store", f"file://{tmp_path}/store", home=tmp_path
    )
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [event["event"] for event in events][-1] == "done"
    assert events[0]["event"] == "progress"
    assert events[-1]["id"] == walk(source).manifest.id


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("push", "source"), 2, "--store"),
        (("push", "source", "--store", "ftp://x/y"), 2, "ftp://x/y"),
        (("push", "missing", "--store", "file:///nowhere/x"), 1, "missing"),
        (("push", "source", "--store", "file:///tmp/x", "--parent", "abc"), 2, "abc"),
        (("push", "source", "--store", "file:///tmp/x", "--exclude", "(?=x)"), 2, "(?=x)"),
        (("push", "source", "--store", "file:///tmp/x", "--jobs", "-1"), 2, "--jobs"),
    ],
)
def test_bad_input_is_told(
    tmp_path: Path, source: Path, arguments: tuple[str, ...], code: int, told: str
) -> None:
    ran = snapctl(*arguments, home=tmp_path)
    assert ran.returncode == code
    assert ran.stdout == ""
    assert told in ran.stderr


def test_parent_that_is_not_in_the_store(tmp_path: Path, source: Path) -> None:
    store = f"file://{tmp_path}/store"
    snapctl("push", "source", "--store", store, home=tmp_path)
    (source / "new").write_bytes(b"new")
    arguments = ("push", "source", "--store", store, "--json", "--parent", "0" * 64)
    ran = snapctl(*arguments, home=tmp_path)
    assert ran.returncode == 10
    assert json.loads(ran.stderr.splitlines()[-1])["code"] == "no_such_snapshot"


@pytest.mark.parametrize("below", ["", "/store", "/deep/store"])
def test_a_store_in_what_is_pushed_is_refused(tmp_path: Path, source: Path, below: str) -> None:
    before = walk(source).manifest.id
    words = ("push", "source", "--store", f"file://{source}{below}")
    ran = snapctl(*words, home=tmp_path)
    assert ran.returncode == 2
    assert f"the store lies in the directory that is pushed: {source}{below}" in ran.stderr
    assert walk(source).manifest.id == before
    left_out = snapctl(*words, "--exclude", "/store$,/deep$", home=tmp_path)
    assert left_out.returncode == (0 if below else 2), left_out.stderr
