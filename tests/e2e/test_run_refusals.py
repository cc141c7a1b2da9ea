"""What is not recorded as a run: what is wrong, damaged or not allowed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.installed import Host, files_below, write_files
from tests.e2e.run_steps import done, push, refused
from tests.servers.seaweed import Seaweed

pytestmark = pytest.mark.usefixtures("forked_commands")


def test_what_is_wrong_is_said_and_nothing_is_written(
    host: Host, file_store: str, tmp_path: Path
) -> None:
    one = push(host, tmp_path, file_store, "petals", "--dataset", "iris@v1.0.0")
    done(host, "run", "record", "--run-id", "iris-7", "--commit", "abc", store=file_store)
    extra = {"SNAPSYNC_STORE": file_store}
    other = write_files(tmp_path / "other", {"unpushed": b"unpushed"})
    absent = host.snapctl("id", other).stdout.strip()
    files = write_files(
        tmp_path / "given",
        {
            "typo": b"run_id: a\nmetrcs: {a: 1}\n",
            "huge": b"note: " + b"x" * 2_000_000,
            "bytes": b"\xff\xfe\x00",
            "deep": b"[" * 100_000,
            "object": b"a: !!python/object/apply:os.system [id]",
            "lie": f"run_id: a\ndata_snapshot: {{iris@v1.0.0: {absent}}}\n".encode(),
            "future": b"run_id: a\nended_at: 2999-01-01T00:00:00Z\n",
            "order": b"run_id: a\nstarted_at: 2026-01-02T00:00:00Z\nended_at: 2026-01-01T00:00:00Z",
            "full": b"run_id: a\nparams:\n" + b"".join(b"  k%d: 1\n" % n for n in range(20_000)),
            "path": b"run_id: a\noutputs: ./model\n",
        },
    )
    before = files_below(tmp_path / "store")
    record = ("run", "record")
    for words, exit_code, code, said in (
        (("run", "show", "iris-8"), 10, "no_such_run", "did you mean iris-7"),
        (("run", "show", "../../datasets/iris"), 2, "invalid_name", "datasets"),
        (("run", "show", "x" * 10_000), 2, "invalid_name", "10000"),
        (("run", "show", "a\x1b[2J"), 2, "invalid_name", "\\x1b"),
        ((*record,), 2, "usage", "nothing to record"),
        ((*record, "/nowhere"), 2, "usage", "/nowhere"),
        ((*record, "--run-id", "a/b", "--commit", "abc"), 2, "invalid_name", "a/b"),
        ((*record, "--run-id", "iris-7", "--commit", "abd"), 1, "run_exists", "other code"),
        ((*record, "--commit", "a b"), 2, "invalid_name", "a b"),
        ((*record, "--data", "iris@v9.0.0"), 10, "no_such_version", "v1.0.0"),
        ((*record, "--data", "irs@v1.0.0"), 10, "no_such_name", "iris"),
        ((*record, "--data", "./data"), 2, "invalid_id", "./data"),
        ((*record, "--data", absent), 10, "no_such_snapshot", absent),
        ((*record, "--output", absent), 10, "no_such_snapshot", absent),
        ((*record, "--metric", "a=b"), 2, "usage", "no number"),
        ((*record, "--lock", "/nowhere"), 2, "usage", "/nowhere"),
        ((*record, f"{files}/typo"), 2, "invalid_name", "did you mean metrics"),
        ((*record, f"{files}/huge"), 2, "usage", "1048576"),
        ((*record, f"{files}/bytes"), 2, "usage", "UTF-8"),
        ((*record, f"{files}/deep"), 2, "usage", "deep"),
        ((*record, f"{files}/object"), 2, "usage", "neither YAML nor JSON"),
        ((*record, f"{files}/lie"), 1, "registry_refused", one),
        ((*record, f"{files}/future"), 1, "clock_behind", "2999"),
        ((*record, f"{files}/order"), 2, "invalid_name", "before its started_at"),
        ((*record, f"{files}/full"), 2, "usage", "10000 values"),
        ((*record, f"{files}/path"), 2, "invalid_id", "./model"),
        (("run", "ls", "--since", "yesterday"), 2, "usage", "yesterday"),
        (("run", "ls", "--data", "irs@v1.0.0"), 10, "no_such_name", "iris"),
        (("run", "exec", "--run-id", "iris-7", "--", "false"), 1, "run_exists", "iris-7"),
        (("run", "--data", "irs@v1.0.0", "--", "false"), 10, "no_such_name", "iris"),
        (("run", "--", "no-such-command"), 2, "usage", "no-such-command"),
        (("run", "python", "train.py"), 2, "usage", "snapctl run -- python"),
        (("model", "add", "m@v1.0.0", "--id", one, "--run", "iris-8"), 10, "no_such_run", "iris-7"),
    ):
        json_first = ("--json", *words) if "--" in words else (*words, "--json")
        refused(host.snapctl(*json_first, extra=extra), exit_code, code, said)
        assert files_below(tmp_path / "store") == before, words


def test_only_what_is_whole_is_recorded(host: Host, file_store: str, tmp_path: Path) -> None:
    one = push(host, tmp_path, file_store, "petals")
    objects = tmp_path / "store" / ".objects"
    [largest] = [path for path in objects.rglob("*") if path.is_file()]
    whole = largest.read_bytes()
    largest.chmod(0o600)
    words = ("run", "record", "--run-id", "r1", "--data", one, "--store", file_store, "--json")
    largest.write_bytes(b"PETALS")
    refused(host.snapctl(*words, "--deep"), 12, "digest_mismatch", "labels")
    largest.unlink()
    refused(host.snapctl(*words), 12, "object_missing", "labels")
    assert not (tmp_path / "store" / "registry" / "runs").exists()
    largest.write_bytes(whole)
    assert host.snapctl(*words, "--deep").code == 0


def test_a_record_that_is_not_understood_hides_no_other(
    host: Host, file_store: str, tmp_path: Path
) -> None:
    one = push(host, tmp_path, file_store, "petals")
    for run_id in ("good", "bad"):
        facts = ("--data", one, "--metric", f"n={'9' * 400}")
        done(host, "run", "record", "--run-id", run_id, *facts, store=file_store)
    document = tmp_path / "store" / "registry" / "runs" / "bad"
    whole = document.read_text()
    for broken, code in (
        (whole.replace("snapsync.run/1", "snapsync.run/2"), "registry_too_new"),
        (whole.replace('"by"', '"who"'), "registry_damaged"),
        (whole[:-10], "registry_damaged"),
    ):
        document.write_text(broken)
        for words in (("show", "bad"), ("record", "--run-id", "bad", "--data", one)):
            ran = host.snapctl("run", *words, "--store", file_store, "--json")
            refused(ran, 1, code, "registry/runs/bad")
            assert document.read_text() == broken
        for more in ((), ("--data", one)):
            rows = done(host, "run", "ls", *more, store=file_store)["runs"]
            assert {row["run_id"]: "error" in row for row in rows} == {"good": False, "bad": True}
    ran = host.snapctl("run", "ls", "--store", file_store)
    assert "bad: " in ran.stderr
    assert "n=999999... (400 digits)" in ran.stdout


def test_who_may_not_write_is_told_before_the_command_begins(
    cloud_host: Host, seaweed: Seaweed, s3_store: Callable[[], str], tmp_path: Path
) -> None:
    host, store = cloud_host, s3_store()
    one = push(host, tmp_path, store, "petals")
    done(host, "run", "record", "--run-id", "r1", "--data", one, store=store)
    reader = seaweed.reader_environment()
    words = ("run", "record", "--run-id", "r2", "--data", one, "--store", store, "--json")
    refused(host.snapctl(*words, extra=reader), 15, "access_denied")
    wrapped = ("--json", "run", "--store", store, "--", "touch", str(tmp_path / "started"))
    refused(host.snapctl(*wrapped, extra=reader), 15, "access_denied")
    assert not (tmp_path / "started").exists()
    ran = host.snapctl("run", "ls", "--data", one, "--store", store, "--json", extra=reader)
    assert [each["run_id"] for each in ran.document["runs"]] == ["r1"]
