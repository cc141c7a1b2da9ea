"""Names, stages and rollback through the installed commands, on a directory and a real server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.installed import Host, Ran, files_below, write_files
from tests.servers.seaweed import Seaweed

pytestmark = pytest.mark.usefixtures("forked_commands")

WRITERS = 16
FILES = {"weights": b"w" * 1000, "d/config": b"{}"}


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, s3_store: Callable[[], str]) -> str:
    return f"file://{tmp_path}/store" if request.param == "file" else s3_store()


def done(host: Host, *words: str | Path, store: str) -> Any:
    """Run a command that must succeed and give its JSON document."""
    ran = host.snapctl(*words, "--store", store, "--json")
    assert ran.code == 0, ran.stderr
    return ran.document


def refused(ran: Ran, exit_code: int, code: str, *words: str) -> None:
    assert (ran.code, ran.error["code"]) == (exit_code, code), ran.stderr
    assert ran.error["exit_code"] == exit_code
    assert ran.error["hint"]
    for word in words:
        assert word in ran.error["message"]
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr


def push(host: Host, tmp_path: Path, store: str, text: str, *more: str) -> str:
    source = write_files(tmp_path / f"source-{text}", {**FILES, "version": text.encode()})
    snapshot_id: str = done(host, "push", source, *more, store=store)["id"]
    return snapshot_id


def test_two_versions_a_promotion_and_a_rollback(
    cloud_host: Host, s3_store: Callable[[], str], tmp_path: Path
) -> None:
    host, store = cloud_host, s3_store()
    old, new = (push(host, tmp_path, store, text) for text in ("old", "new"))
    told = ("--metric", "accuracy=0.93", "--param", "lr=0.1", "--param", "opt=adam", "--run", "r7")
    done(host, "run", "record", "--run-id", "r7", "--output", new, store=store)
    card = tmp_path / "CARD.md"
    card.write_text("# Iris\n\nFor flowers.\n")
    done(host, "model", "add", "iris_clf@v0.1.0", "--id", old, store=store)
    added = done(
        host, "model", "add", "iris_clf@0.2.0", "--id", new, *told, "--card", card, store=store
    )
    assert (added["version"], added["stage"], added["snapshot_id"]) == ("v0.2.0", "dev", new)
    assert added["metrics"] == {"accuracy": 0.93}
    assert added["parameters"] == {"lr": 0.1, "opt": "adam"}
    assert added["card"] == "# Iris\n\nFor flowers.\n"

    done(host, "model", "promote", "iris_clf@v0.1.0", "--to", "production", store=store)
    step = done(host, "model", "promote", "iris_clf@v0.2.0", store=store)
    assert (step["stage"], step["archived"]) == ("staging", None)
    words = ("--note", "passed review", "--by", "ann@example.org")
    step = done(host, "model", "promote", "iris_clf@staging", *words, store=store)
    assert (step["version"], step["stage"], step["archived"]) == ("v0.2.0", "production", "v0.1.0")
    again = done(host, "model", "promote", "iris_clf@v0.2.0", "--to", "production", store=store)
    assert again["changed"] is False
    assert done(host, "model", "show", "iris_clf@production", store=store)["snapshot_id"] == new

    back = done(host, "model", "rollback", "iris_clf", "--note", "accuracy fell", store=store)
    assert (back["version"], back["archived"], back["snapshot_id"]) == ("v0.1.0", "v0.2.0", old)
    events = done(host, "model", "history", "iris_clf", store=store)["events"]
    assert [event["number"] for event in events] == list(range(len(events), 0, -1))
    assert (events[0]["action"], events[0]["note"]) == ("rollback", "accuracy fell")
    assert {event["by"] for event in events if event["note"] == "passed review"} == {
        "ann@example.org"
    }
    [listed] = done(host, "model", "ls", store=store)["models"]
    assert (listed["name"], listed["production"], listed["versions"]) == ("iris_clf", "v0.1.0", 2)
    simple = done(host, "model", "show", "iris_clf", store=store)
    assert [(each["version"], each["stage"]) for each in simple["versions"]] == [
        ("v0.1.0", "production"),
        ("v0.2.0", "archived"),
    ]


def test_people_read_tables(host: Host, file_store: str, tmp_path: Path) -> None:
    snapshot_id = push(host, tmp_path, file_store, "a")
    extra = {"SNAPSYNC_STORE": file_store, "SNAPSYNC_BY": "ann"}

    def said(*words: str) -> list[str]:
        ran = host.snapctl(*words, extra=extra)
        assert ran.code == 0, ran.stderr
        return ran.stdout.splitlines()

    assert said("dataset", "add", "imagenet@v1.2.0", "--id", snapshot_id, "--note", "a\nb") == [
        f"imagenet@v1.2.0 is {snapshot_id}"
    ]
    heading, row = said("dataset", "show", "imagenet")
    assert heading.split() == ["VERSION", "SNAPSHOT", "AT", "BY", "NOTE"]
    assert row.split()[0:2] == ["v1.2.0", snapshot_id]
    assert row.split()[3:] == ["ann", "a", "b"]
    assert said("dataset", "deprecate", "imagenet@v1.2.0", "--note", "labels") == [
        "imagenet@v1.2.0 is deprecated"
    ]
    assert "DEPRECATED labels (a b)" in said("dataset", "show", "imagenet@v1.2.0")[1]
    assert said("dataset", "ls")[1].split() == ["imagenet", "1", "-", "-"]
    said("model", "add", "iris@v1.0.0", "--id", snapshot_id, "--alias", "best", "--metric", "f1=1")
    assert said("model", "promote", "iris@best", "--to", "production") == [
        "iris@v1.0.0 is in production"
    ]
    assert said("model", "ls")[1].split()[:3] == ["iris", "1", "v1.0.0"]
    assert "metric f1  1" in said("model", "show", "iris@best")
    assert said("model", "alias", "iris@v1.0.0", "champion") == ["iris@champion is v1.0.0"]
    assert said("model", "alias", "iris", "best", "--remove") == ["iris@best is no more"]
    assert said("model", "archive", "iris@v1.0.0") == ["iris@v1.0.0 is in archived"]
    assert said("model", "deprecate", "iris@v1.0.0") == ["iris@v1.0.0 is deprecated"]
    shown = said("model", "history", "iris", "--limit", "2")
    assert [line.split()[0] for line in shown] == ["#", "7", "6"]
    ran = host.snapctl("pull", "--id", "imagenet@v1.2.0", "--standalone", extra=extra)
    assert ran.code == 0
    assert f"imagenet@v1.2.0 is {snapshot_id}" in ran.stderr
    assert "imagenet@v1.2.0 is deprecated: labels" in ran.stderr


def test_a_push_may_give_the_name_too(host: Host, file_store: str, tmp_path: Path) -> None:
    store = file_store
    source = write_files(tmp_path / "data", FILES)
    both = ("--dataset", "iris@v1.0.0", "--model", "iris_clf@v0.1.0", "--note", "first")
    dry = done(host, "push", source, *both, "--dryrun", store=store)
    assert host.snapctl("dataset", "show", "iris", "--store", store).code == 10
    pushed = done(host, "push", source, *both, store=store)
    assert (pushed["dataset"], pushed["model"]) == ("iris@v1.0.0", "iris_clf@v0.1.0")
    assert dry["id"] == pushed["id"]
    version = done(host, "dataset", "show", "iris@v1.0.0", store=store)
    assert (version["snapshot_id"], version["note"]) == (pushed["id"], "first")
    model = done(host, "model", "show", "iris_clf@dev", store=store)
    assert model["snapshot_id"] == pushed["id"]

    changed = write_files(tmp_path / "more", {"new": b"never uploaded"})
    ran = host.snapctl("push", changed, "--dataset", "iris@v1.0.0", "--store", store, "--json")
    refused(ran, 1, "version_exists", "iris@v1.0.0")
    unseen = host.snapctl("id", changed).stdout.strip()
    assert host.snapctl("verify", "--id", unseen, "--store", store).code == 10


def test_a_daemon_resolves_for_who_has_no_credentials(
    cloud_host: Host, seaweed: Seaweed, s3_store: Callable[[], str], tmp_path: Path
) -> None:
    store = s3_store()
    snapshot_id = push(cloud_host, tmp_path, store, "a", "--model", "iris_clf@v0.1.0")
    stranger = dict.fromkeys(seaweed.environment(), "") | {"AWS_EC2_METADATA_DISABLED": "true"}
    with cloud_host.daemon("--store", store):
        ran = cloud_host.snapctl(
            "pull", "--id", "iris_clf@dev", "--store", store, tmp_path / "dest", extra=stranger
        )
        assert ran.code == 0, ran.stderr
        assert f"iris_clf@dev is v0.1.0, {snapshot_id}\n" in ran.stderr
        assert files_below(tmp_path / "dest") == {**FILES, "version": b"a"}
        for words, code, said in (
            ("iris_clf@production", "no_such_version", "production"),
            ("iris_cfl@dev", "no_such_name", "iris_clf"),
        ):
            wrong = cloud_host.snapctl(
                "pull", "--id", words, "--store", store, "--json", extra=stranger
            )
            refused(wrong, 10, code, said)
        other = cloud_host.snapctl(
            "pull", "--id", "iris_clf@dev", "--store", "s3://other/x", "--json", extra=stranger
        )
        refused(other, 15, "store_not_allowed", "s3://other/x")


def test_a_reference_stands_wherever_an_id_does(
    host: Host, file_store: str, tmp_path: Path
) -> None:
    one = push(host, tmp_path, file_store, "a", "--dataset", "data@v1.0.0")
    push(host, tmp_path, file_store, "b", "--dataset", "data@v2.0.0")
    extra = {"SNAPSYNC_STORE": file_store}
    source = tmp_path / "source-a"
    with host.daemon("--store", file_store):
        for words in (
            ("plan", "--id", "data@v1.0.0"),
            ("pull", "--id", "data@v1.0.0"),
            ("exec", "--id", "data@v1.0.0", "--", "sh", "-c", f"test $SNAPSYNC_ID = {one}"),
            ("checkout", "--id", "data@v1.0.0", str(tmp_path / "out")),
            ("verify", "--id", "data@v1.0.0"),
            ("verify", "--id", "data@v1.0.0", str(source)),
            ("verify", "--deep", "data@v1.0.0"),
            ("watch", "--id", "data@v1.0.0"),
            ("receipt", "data@v1.0.0"),
            ("attest", "data@v1.0.0"),
            ("attest", str(tmp_path / "out"), "--id", "data@v1.0.0"),
            ("leases", "--id", "data@v1.0.0"),
            ("cache", "pin", "data@v1.0.0"),
            ("cache", "unpin", "data@v1.0.0"),
            ("push", str(source), "--parent", "data@v1.0.0"),
        ):
            ran = host.snapctl(*words, extra=extra)
            assert ran.code == 0, (words, ran.stderr)
            assert f"data@v1.0.0 is {one}" in ran.stderr, words
        differs = host.snapctl("diff", "data@v1.0.0", "data@v2.0.0", extra=extra)
        assert differs.stdout == "M\t./version\n"
        ran = host.snapctl("cache", "evict", "data@v1.0.0", "--given-out-too", extra=extra)
        assert f"data@v1.0.0 is {one}" in ran.stderr
    listed = host.snapctl("manifest", "--id", "data@v1.0.0", extra=extra)
    assert listed.stdout == host.snapctl("manifest", source).stdout
    nowhere = host.snapctl("pull", "--id", "data@v1.0.0", "--json")
    assert nowhere.code == 2


def corrupt(document: Path, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """Edit a document by hand, and give what is there then."""
    parsed = json.loads(document.read_bytes())
    change(parsed)
    document.write_text(json.dumps(parsed))
    return document.read_bytes()


def test_what_is_wrong_is_said_and_nothing_is_written(
    host: Host, file_store: str, tmp_path: Path
) -> None:
    one = push(host, tmp_path, file_store, "a")
    root = tmp_path / "store"
    extra = {"SNAPSYNC_STORE": file_store}

    def run(*words: str) -> Ran:
        return host.snapctl(*words, "--json", extra=extra)

    run("dataset", "add", "imagenet@v1.0.0", "--id", one)
    run("model", "add", "iris@v1.0.0", "--id", one)
    run("model", "add", "iris@v2.0.0", "--id", one)
    run("model", "deprecate", "iris@v2.0.0", "--note", "licence")
    before = files_below(root)
    long = "x" * 10_000
    other = write_files(tmp_path / "other", {"unpushed": b"unpushed"})
    absent = host.snapctl("id", other).stdout.strip()
    for words, exit_code, code, said in (
        (("dataset", "show", "imagnet"), 10, "no_such_name", "imagenet"),
        (("dataset", "show", "imagenet@v1.0.1"), 10, "no_such_version", "v1.0.0"),
        (("model", "show", "iris@production"), 10, "no_such_version", "production"),
        (("model", "show", "iris@champion"), 10, "no_such_version", "champion"),
        (("model", "promote", "iris@v1.0.0", "--to", "prod"), 10, "no_such_version", "production"),
        (("model", "promote", "iris@v9.0.0"), 10, "no_such_version", "v9.0.0"),
        (("model", "promote", "iris@v2.0.0"), 1, "version_deprecated", "licence"),
        (("model", "promote", "iris"), 2, "usage", "say which"),
        (("model", "rollback", "iris"), 1, "nothing_to_roll_back", "iris"),
        (("model", "rollback", "iris@v1.0.0"), 2, "usage", "iris"),
        (("dataset", "add", "imagenet@v1.0.0", "--id", one), 1, "version_exists", "imagenet"),
        (("model", "add", "iris@v1.0.0", "--id", one), 1, "version_exists", "iris"),
        (("dataset", "add", "new@v1.0.0", "--id", absent), 10, "no_such_snapshot", absent),
        (("model", "add", "new@v1.0.0", "--id", absent), 10, "no_such_snapshot", absent),
        (("dataset", "add", "new@1.0", "--id", one), 2, "invalid_name", "1.0"),
        (("dataset", "add", "new@latest", "--id", one), 2, "invalid_reference", "version"),
        (("dataset", "add", "new", "--id", one), 2, "invalid_reference", "new"),
        (("dataset", "add", "../x@v1.0.0", "--id", one), 2, "invalid_name", "../x"),
        (("dataset", "add", "a/b@v1.0.0", "--id", one), 2, "invalid_name", "a/b"),
        (("dataset", "add", "a\x1b[2J@v1.0.0", "--id", one), 2, "invalid_name", "\\x1b"),
        (("dataset", "add", f"{long}@v1.0.0", "--id", one), 2, "invalid_reference", "10007"),
        (("dataset", "show", long), 2, "invalid_name", "10000"),
        (("model", "add", "n@v1.0.0", "--id", one, "--alias", "v1"), 2, "invalid_name", "v1"),
        (("model", "add", "n@v1.0.0", "--id", one, "--note", long), 2, "invalid_name", "10000"),
        (("model", "add", "n@v1.0.0", "--id", one, "--by", "a\nb"), 2, "invalid_name", "a"),
        (("model", "add", "n@v1.0.0", "--id", one, "--metric", "a=b"), 2, "usage", "no number"),
        (("model", "add", "n@v1.0.0", "--id", one, "--metric", "a=NaN"), 2, "usage", "no number"),
        (("model", "add", "n@v1.0.0", "--id", one, "--param", "a"), 2, "usage", "NAME=VALUE"),
        (("model", "add", "n@v1.0.0", "--id", one, "--card", "/nowhere"), 2, "usage", "/nowhere"),
        (("model", "add", "n@v1.0.0", "--id", one, "--stages", "a,b"), 2, "invalid_name", "a, b"),
        (("model", "add", "iris@v3.0.0", "--id", one, "--stages", "a,b,c"), 1, "registry_refused",
         "dev"),
        (("push", str(other), "--note", "why"), 2, "usage", "--note"),
    ):  # fmt: skip
        refused(run(*words), exit_code, code, said)
        assert files_below(root) == before, words


def test_only_what_is_whole_gets_a_name(host: Host, file_store: str, tmp_path: Path) -> None:
    one = push(host, tmp_path, file_store, "a")
    manifest = next(path for path in (tmp_path / "store/.manifests").rglob("*") if path.is_file())
    objects = {
        path.stat().st_size: path
        for path in (tmp_path / "store/.objects").rglob("*")
        if path.is_file()
    }
    largest = objects[1000]
    add = ("add", "iris@v1.0.0", "--id", one, "--store", file_store, "--json")
    whole = largest.read_bytes()
    largest.chmod(0o600)
    largest.write_bytes(whole[:-1])
    refused(host.snapctl("model", *add), 12, "digest_mismatch", "weights")
    largest.unlink()
    refused(host.snapctl("dataset", *add), 12, "object_missing", "weights", "1 of 3")
    largest.write_bytes(whole[:-1] + b"x")
    refused(host.snapctl("model", *add, "--deep"), 12, "digest_mismatch", "weights")
    largest.write_bytes(whole)
    manifest.chmod(0o600)
    text = manifest.read_bytes()
    manifest.write_bytes(text.replace(b"weights", b"wEights"))
    refused(host.snapctl("model", *add), 12, "digest_mismatch")
    assert not (tmp_path / "store" / "registry" / "models").exists()
    manifest.write_bytes(text)
    assert host.snapctl("model", *add, "--deep").code == 0


def test_a_document_that_is_not_understood_stays_as_it_is(
    host: Host, file_store: str, tmp_path: Path
) -> None:
    one = push(host, tmp_path, file_store, "a", "--dataset", "d@v1.0.0", "--model", "m@v1.0.0")
    push(host, tmp_path, file_store, "b", "--model", "good@v1.0.0")
    registry = tmp_path / "store" / "registry"
    document = registry / "models" / "m" / "registry.json"
    extra = {"SNAPSYNC_STORE": file_store}
    for change, code in (
        (lambda it: it.update(schema="snapsync.model/2"), "registry_too_new"),
        (lambda it: it.update(schema="snapsync.model/1", extra=1), "registry_damaged"),
    ):
        left = corrupt(document, change)
        for words in (
            ("model", "show", "m"),
            ("model", "promote", "m@v1.0.0"),
            ("model", "add", "m@v2.0.0", "--id", one),
            ("pull", "--id", "m@dev", "--standalone"),
        ):
            ran = host.snapctl(*words, "--json", extra=extra)
            refused(ran, 1, code, "registry/models/m/registry.json")
            assert document.read_bytes() == left
        models = host.snapctl("model", "ls", "--json", extra=extra).document["models"]
        assert [each["name"] for each in models] == ["good", "m"]
        assert models[1]["error"]["code"] == code
        assert "m: " in host.snapctl("model", "ls", extra=extra).stderr


def test_a_clock_that_is_far_behind_is_refused(host: Host, file_store: str, tmp_path: Path) -> None:
    push(host, tmp_path, file_store, "a", "--model", "m@v1.0.0")
    document = tmp_path / "store" / "registry" / "models" / "m" / "registry.json"

    def later(it: dict[str, Any]) -> None:
        it["history"][-1]["at"] = "2999-01-01T00:00:00.000Z"

    left = corrupt(document, later)
    ran = host.snapctl("model", "promote", "m@v1.0.0", "--store", file_store, "--json")
    refused(ran, 1, "clock_behind", "2999-01-01")
    assert document.read_bytes() == left


def test_a_writer_without_permission_is_told_so(
    cloud_host: Host, seaweed: Seaweed, s3_store: Callable[[], str], tmp_path: Path
) -> None:
    store = s3_store()
    one = push(cloud_host, tmp_path, store, "a", "--model", "m@v1.0.0")
    reader = seaweed.reader_environment()
    for words in (
        ("model", "promote", "m@v1.0.0"),
        ("model", "add", "m@v2.0.0", "--id", one),
        ("dataset", "add", "d@v2.0.0", "--id", one),
    ):
        ran = cloud_host.snapctl(*words, "--store", store, "--json", extra=reader)
        refused(ran, 15, "access_denied")
    ran = cloud_host.snapctl("model", "show", "m", "--store", store, "--json", extra=reader)
    assert [each["stage"] for each in ran.document["versions"]] == ["dev"]
    assert ran.document["versions"][0]["snapshot_id"] == one


@pytest.mark.slow
def test_many_processes_that_promote_at_once_lose_nothing(
    cloud_host: Host, store: str, tmp_path: Path
) -> None:
    host = cloud_host
    push(host, tmp_path, store, "a", "--model", "m@v0.0.1")
    numbers = range(1, WRITERS // 2 + 1)
    for number in numbers:
        push(host, tmp_path, store, "a", "--model", f"m@v{number}.0.0")

    def start(*words: str) -> subprocess.Popen[str]:
        return host.start("snapctl", *words, "--store", store, "--json")

    def finish(started: list[subprocess.Popen[str]]) -> list[Any]:
        ended = [(process, *process.communicate(timeout=90)) for process in started]
        for process, _, errors in ended:
            assert process.returncode == 0, errors
        return [json.loads(output) for _, output, _ in ended]

    promoting = [start("model", "promote", f"m@v{n}.0.0", "--to", "production") for n in numbers]
    aliasing = [start("model", "alias", "m@v0.0.1", f"alias{n}") for n in numbers]
    answers = finish(promoting)
    finish(aliasing)

    model = done(host, "model", "show", "m", store=store)
    events = done(host, "model", "history", "m", store=store)["events"]
    assert len(model["versions"]) == len(numbers) + 1
    assert len(model["aliases"]) == len(numbers)
    stages = [each["stage"] for each in model["versions"]]
    assert sorted(stages) == ["archived"] * (len(numbers) - 1) + ["dev", "production"]
    promoted = [event["version"] for event in events if event["action"] == "promote"]
    assert sorted(promoted) == sorted(f"v{n}.0.0" for n in numbers)
    assert model["production"] == promoted[0]
    archived = {answer["archived"] for answer in answers}
    assert archived == {None, *promoted[1:]}
