"""Runs recorded through the installed commands, on a directory and a real server."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from snapd.model.receipts import parse_moment
from tests.e2e.installed import BIN, Host, Ran, files_below, ids_in, write_files
from tests.e2e.run_steps import done, push, refused
from tests.servers.seaweed import Seaweed

pytestmark = pytest.mark.usefixtures("forked_commands")

SCHEMA = Path(__file__).parents[2] / "docs" / "registry" / "run.schema.json"
TRAIN = """
import json, os, subprocess, sys
pull = ["snapctl", "pull", "--id", "iris@v1.0.0", "data", *sys.argv[1:]]
subprocess.run(pull, check=True, stdout=subprocess.DEVNULL)
os.makedirs("model", exist_ok=True)
with open("model/weights", "w") as file:
    file.write(open("data/labels").read().upper())
with open(os.environ["SNAPSYNC_RUN_FILE"], "w") as file:
    file.write("params: {lr: 0.1, optimizer: adam}\\nmetrics: {accuracy: 0.93, loss: .nan}\\n")
print(os.environ["SNAPSYNC_RUN_ID"])
"""


def in_directory(host: Host, directory: Path, *words: str, **extra: str) -> Ran:
    line = f"cd {shlex.quote(str(directory))} && exec {shlex.join(words)}"
    return host.command("sh", "-c", line, extra=extra)


def project(host: Host, tmp_path: Path) -> tuple[Path, str]:
    """Make a repository with code to be run; give it and its commit."""
    made = write_files(
        tmp_path / "project",
        {"code/train.py": TRAIN.encode(), "uv.lock": b"pinned", ".gitignore": b"data\nmodel\n"},
    )
    who = ("-c", "user.name=ann", "-c", "user.email=ann@example.org")
    for words in (
        ("init", "--quiet"),
        ("remote", "add", "origin", "https://ann:sesame@git.example.org/iris.git"),
        ("add", "."),
        ("commit", "--quiet", "--message", "first"),
    ):
        assert in_directory(host, made, "git", *who, *words).code == 0
    return made, in_directory(host, made, "git", "rev-parse", "HEAD").stdout.strip()


def test_a_training_is_recorded_by_itself_and_becomes_a_model(
    cloud_host: Host, s3_store: Callable[[], str], tmp_path: Path
) -> None:
    host, store = cloud_host, s3_store()
    data = push(host, tmp_path, store, "petals", "--dataset", "iris@v1.0.0")
    made, commit = project(host, tmp_path)
    extra = {
        "SNAPSYNC_STORE": store,
        "DB_PASSWORD": "open-sesame",
        "SNAPSYNC_IMAGE": "img@sha256:1",
    }
    words = ("--output", "model", "--param", "batch=32", "--seed", "7", "--save", "record.json")
    command = ("python", "train.py", "--receipt", "open-sesame")
    with host.daemon("--store", store):
        ran = in_directory(host, made / "code", "snapctl", "run", *words, "--", *command, **extra)
        assert ran.code == 0, ran.stderr
    run_id = ran.stdout.strip()
    assert f"run {run_id} is recorded in {store}" in ran.stderr
    record = done(host, "run", "show", run_id, store=store)
    jsonschema.validate(record, json.loads(SCHEMA.read_text()))
    assert record == json.loads((made / "code" / "record.json").read_text())
    assert record["code"] == {
        "commit": commit,
        "dirty": False,
        "repository": "https://git.example.org/iris.git",
        "untracked": 0,
        "directory": "code",
    }
    assert record["data"] == [{"snapshot_id": data, "reference": "iris@v1.0.0", "path": "data"}]
    [output] = record["outputs"]
    assert output["path"] == "model"
    assert record["parameters"] == {"lr": 0.1, "optimizer": "adam", "batch": 32}
    assert record["metrics"] == {"accuracy": 0.93, "loss": "NaN"}
    environment = record["environment"]
    assert (environment["lock_file"], environment["image"]) == ("uv.lock", "img@sha256:1")
    assert environment["lock_hash"].startswith("sha256:")
    assert record["command"] == ["python", "train.py", "--receipt", "***"]
    assert (record["seed"], record["exit_status"]) == (7, 0)
    assert record["started_at"] <= record["ended_at"] <= record["at"]
    assert "sesame" not in json.dumps(record)

    listed = done(host, "run", "ls", "--data", "iris@v1.0.0", store=store)["runs"]
    assert [each["run_id"] for each in listed] == [run_id]
    out = tmp_path / "out"
    wanted = ("pull", "--id", output["snapshot_id"], "--standalone", out)
    assert done(host, *wanted, store=store)["id"] == output["snapshot_id"]
    assert files_below(out) == {"weights": b"PETALS"}
    model = ("model", "add", "clf@v0.1.0", "--id", output["snapshot_id"], "--run", run_id)
    assert done(host, *model, store=store)["run"] == run_id


def test_leases_tell_what_is_in_use_around_a_run(
    host: Host, file_store: str, tmp_path: Path
) -> None:
    extra = {"SNAPSYNC_STORE": file_store}
    data = push(host, tmp_path, file_store, "petals", "--dataset", "iris@v1.0.0")
    with host.daemon("--store", file_store):
        held = ("exec", "--id", "iris@v1.0.0", "--store", file_store, "--")
        wrapped = ("snapctl", "run", "--run-id", "r1", "--", "sh", "-c", "test -d $SNAPSYNC_TREE")
        ran = host.snapctl(*held, "env", "-u", "SNAPSYNC_ID", *wrapped, extra=extra)
        assert ran.code == 0, ran.stderr
        below = ("run", "--run-id", "r2", "--", "snapctl", *held, "true")
        assert host.snapctl(*below, extra=extra).code == 0
    for run_id in ("r1", "r2"):
        [use] = done(host, "run", "show", run_id, store=file_store)["data"]
        assert use["snapshot_id"] == data


def test_a_run_is_accepted_as_people_write_it(host: Host, file_store: str, tmp_path: Path) -> None:
    store = file_store
    data = push(host, tmp_path, store, "petals", "--dataset", "iris@v1.0.0")
    made = push(host, tmp_path, store, "weights")
    simple = {
        "run_id": "iris-7",
        "code_commit": "9f3c5e01",
        "data_snapshot": "iris@v1.0.0",
        "params": {"lr": 0.1},
        "env": {"python": "3.11.9", "cuda": "12.4"},
        "outputs": {"model": made},
        "metrics": {"accuracy": 0.93},
    }
    record = done(host, "run", "record", "-", store=store, given=json.dumps(simple))
    jsonschema.validate(record, json.loads(SCHEMA.read_text()))
    assert record["data"] == [{"snapshot_id": data, "reference": "iris@v1.0.0"}]
    assert record["outputs"] == [{"snapshot_id": made, "path": "model"}]
    document = tmp_path / "store" / "registry" / "runs" / "iris-7"
    before = files_below(tmp_path / "store")
    for form in ("--yaml", "--json"):
        printed = host.snapctl("run", "show", "iris-7", form, "--store", store).stdout
        again = host.snapctl("run", "record", "-", "--store", store, given=printed)
        assert (again.code, again.stdout) == (0, "iris-7\n"), again.stderr
    as_yaml = f"""
run_id: iris-7
code_commit: 9f3c5e01
data_snapshot: [{data}]
params: {{lr: 0.1}}
env: {{python: 3.11.9, cuda: 12.4}}
outputs: {{model: {made}}}
metrics: {{accuracy: 0.93}}
"""
    other = host.snapctl("run", "record", "-", "--store", store, "--json", given=as_yaml)
    refused(other, 1, "run_exists", "iris-7", "other data")
    assert files_below(tmp_path / "store") == before
    assert json.loads(document.read_bytes()) == record

    # An ID of ours tells its second only, and what is later is to be seen to be.
    recorded_at = parse_moment(record["at"])
    while int(time.time()) <= recorded_at:
        time.sleep(0.05)
    options = ("--commit", "abc", "--data", f"train={data}", "--output", made, "--param", "a=1")
    more = ("--metric", "f1=0.5", "--seed", "x7", "--note", "by hand", "--by", "ann")
    lock = write_files(tmp_path, {"uv.lock": b""}) / "uv.lock"
    record = done(host, "run", "record", *options, *more, "--lock", lock, store=store)
    assert record["data"] == [{"snapshot_id": data, "path": "train"}]
    assert (record["seed"], record["note"], record["by"]) == ("x7", "by hand", "ann")
    listed = done(host, "run", "ls", store=store)
    assert [each["run_id"] for each in listed["runs"]] == [record["run_id"], "iris-7"]
    assert done(host, "run", "ls", "--since", "1h", "--limit", "1", store=store)["more"] is True
    assert done(host, "run", "ls", "--since", "2999-01-01T00:00:00Z", store=store)["runs"] == []
    shown = host.snapctl("run", "show", "iris-7", "--store", store).stdout
    assert "metric accuracy" in shown
    table = host.snapctl("run", "ls", "--output", made, "--store", store).stdout.splitlines()
    assert [line.split()[0] for line in table] == ["RUN", record["run_id"], "iris-7"]
    done(host, "run", "record", "--data", data, store=store)
    both = ("run", "ls", "--data", data, "--output", made, "--limit", "1")
    found = done(host, *both, store=store)
    assert [each["run_id"] for each in found["runs"]] == [record["run_id"]]
    assert found["more"] is True, "the limit counts what is asked for, not what is passed over"


def test_data_may_lie_in_another_store(host: Host, file_store: str, tmp_path: Path) -> None:
    other = f"file://{tmp_path}/datasets"
    data = push(host, tmp_path, other, "petals", "--dataset", "iris@v1.0.0")
    push(host, tmp_path, file_store, "weights")
    words = ("run", "record", "--run-id", "r1", "--data", "iris@v1.0.0")
    refused(host.snapctl(*words, "--store", file_store, "--json"), 10, "no_such_name", "iris")
    alone = host.snapctl("run", "record", "--data", data, "--store", file_store, "--json")
    refused(alone, 10, "no_such_snapshot", data)
    record = done(host, *words, "--data-store", other, store=file_store)
    assert record["data"] == [{"snapshot_id": data, "reference": "iris@v1.0.0", "store": other}]
    # What a run pulls says by itself where it came from.
    pull = ("snapctl", "pull", "--id", data, "--store", other, "--standalone")
    ran = host.snapctl("run", "--run-id", "r2", "--store", file_store, "--", *pull)
    assert ran.code == 0, ran.stderr
    record = done(host, "run", "show", "r2", store=file_store)
    assert (record["data"][0]["snapshot_id"], record["data"][0]["store"]) == (data, other)


def test_who_has_no_credentials_of_the_data_records_what_the_daemon_pulled(
    cloud_host: Host, seaweed: Seaweed, s3_store: Callable[[], str], tmp_path: Path
) -> None:
    host, data_store, store = cloud_host, s3_store(), f"file://{tmp_path}/store"
    data = push(host, tmp_path, data_store, "petals", "--dataset", "iris@v1.0.0")
    stranger = dict.fromkeys(seaweed.environment(), "")
    pull = ("snapctl", "pull", "--id", "iris@v1.0.0", "--store", data_store)
    held = ("snapctl", "exec", "--id", data, "--", "true")
    with host.daemon("--store", data_store):
        for run_id, words in (("r1", pull), ("r2", held)):
            wrapped = ("run", "--run-id", run_id, "--store", store, "--", *words)
            ran = host.snapctl(*wrapped, extra=stranger)
            assert (ran.code, "NOT RECORDED" in ran.stderr) == (0, False), ran.stderr
            [use] = done(host, "run", "show", run_id, store=store)["data"]
            assert (use["snapshot_id"], use["store"]) == (data, data_store)
            assert use["path"].endswith(data)
            assert use.get("reference") == ("iris@v1.0.0" if run_id == "r1" else None)


@pytest.mark.parametrize("name", ["TERM", "INT"])
def test_a_command_that_fails_is_recorded_and_its_end_is_ours(
    host: Host, file_store: str, tmp_path: Path, name: str
) -> None:
    push(host, tmp_path, file_store, "petals")
    extra = {"SNAPSYNC_STORE": file_store}
    script = "mkdir out; echo 'metrics: {loss: 3}' > $SNAPSYNC_RUN_FILE; exit 7"
    words = ("run", "--run-id", "r7", "--output", "out", "--", "sh", "-c", script)
    ran = host.snapctl(*words, extra=extra)
    assert (ran.code, ran.stdout) == (7, "")
    assert "which ended with 7" in ran.stderr
    record = done(host, "run", "show", "r7", store=file_store)
    assert (record["exit_status"], record["metrics"]) == (7, {"loss": 3})
    assert "outputs" not in record

    waits = "trap 'exit 9' TERM INT; echo ready; while :; do sleep 0.05; done"
    process = host.start("snapctl", "run", "--run-id", "r9", "--", "sh", "-c", waits, extra=extra)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    subprocess.run(["kill", f"-{name}", str(process.pid)], check=True)
    process.communicate(timeout=60)
    assert process.returncode == 9
    assert done(host, "run", "show", "r9", store=file_store)["exit_status"] == 9


def test_what_could_not_be_recorded_is_kept_and_recorded_later(
    host: Host, file_store: str, tmp_path: Path
) -> None:
    store, runs = file_store, tmp_path / "store" / "registry" / "runs"
    data = push(host, tmp_path, store, "petals", "--dataset", "iris@v1.0.0")
    script = f"mkdir -p out && echo w > out/w && touch {runs}"
    words = ("run", "--data", "iris@v1.0.0", "--output", "model=out", "--store", store)
    ran = host.snapctl(*words, "--run-id", "r1", "--quiet", "--", "sh", "-c", script)
    assert ran.code == 0
    assert "the run r1 is NOT RECORDED" in ran.stderr
    kept = host.root / "home" / ".local" / "state" / "snapsync" / "runs" / "r1.json"
    assert f"snapctl run record {kept} --store {store}" in ran.stderr
    strict = host.snapctl(*words, "--run-id", "r2", "--strict", "--", "sh", "-c", script)
    assert strict.code != 0

    runs.unlink()
    record = done(host, "run", "record", kept, store=store)
    assert (record["run_id"], record["exit_status"]) == ("r1", 0)
    assert record["data"] == [{"snapshot_id": data, "reference": "iris@v1.0.0"}]
    assert [each["path"] for each in record["outputs"]] == ["model"]
    assert record["command"][:2] == ["sh", "-c"]

    # An output that is not there is named, and what the command said is kept beside.
    says = "echo 'metrics: {a: 1}' > $SNAPSYNC_RUN_FILE"
    ran = host.snapctl(*words, "--run-id", "r3", "--output", "absent", "--", "sh", "-c", says)
    assert (ran.code, "absent" in ran.stderr) == (0, True)
    again = host.snapctl("run", "record", kept.with_name("r3.json"), "--store", store, "--json")
    refused(again, 2, "usage", "'absent' without an ID")
    ran = host.snapctl(*words, "--run-id", "r4", "--", "sh", "-c", "echo '{' > $SNAPSYNC_RUN_FILE")
    assert (ran.code, "NOT RECORDED" in ran.stderr) == (0, True)
    assert kept.with_name("r4.reported").read_text() == "{\n"

    # A second try hides no first one, and without a home nothing of the user's is written over.
    mine = write_files(tmp_path / "mine", {"r4.json": b"mine"}) / "r4.json"
    unread = ("--run-id", "r4", "--", "sh", "-c", "echo '{' > $SNAPSYNC_RUN_FILE")
    homeless = {"HOME": "/dev/null", "XDG_STATE_HOME": ""}
    ran = in_directory(host, mine.parent, "snapctl", *words, *unread, **homeless)
    assert ran.code == 0
    assert mine.read_bytes() == b"mine"
    [place] = (each for each in mine.parent.glob("r4-*.json"))
    assert json.loads(place.read_bytes())["run_id"] == "r4"
    assert place.stat().st_mode & 0o777 == 0o600
    assert f"kept in {place}" in ran.stderr


def test_whatever_the_command_did_to_its_surroundings_the_run_is_recorded_or_kept(
    host: Host, file_store: str, tmp_path: Path
) -> None:
    data = push(host, tmp_path, file_store, "petals")
    notes = ("not a reference", "iris@v1.0.0\x1b", "")
    lines = [json.dumps({"snapshot_id": data, "path": "in", "reference": each}) for each in notes]
    script = f"printf '%s\\n' {shlex.join(lines)} > $SNAPSYNC_RUN_DATA; rm -r \"$PWD\""
    for run_id, more, homeless in (
        ("r1", "", {}),
        ("r2", "; echo { > $SNAPSYNC_RUN_FILE", {"HOME": "/dev/null", "TMPDIR": str(tmp_path)}),
    ):
        gone = write_files(tmp_path / run_id, {"x": b""})
        words = ("run", "--run-id", run_id, "--store", file_store, "--", "sh", "-c", script + more)
        ran = in_directory(host, gone, "snapctl", *words, **homeless)
        assert (ran.code, "Traceback" in ran.stderr) == (0, False), ran.stderr
        assert ("NOT RECORDED" in ran.stderr) == bool(more)
    assert done(host, "run", "show", "r1", store=file_store)["data"] == [
        {"snapshot_id": data, "path": "in"}
    ]
    assert json.loads((tmp_path / "r2.json").read_bytes())["data"][0]["snapshot_id"] == data


def test_many_processes_that_record_at_once_lose_nothing(
    cloud_host: Host, s3_store: Callable[[], str], tmp_path: Path
) -> None:
    host, store = cloud_host, s3_store()
    one = push(host, tmp_path, store, "petals")
    record = ("run", "record", "--data", one, "--store", store, "--json")
    started = [
        host.start("snapctl", *record, "--run-id", run_id, "--param", f"n={number}")
        for number in range(4)
        for run_id in (f"own-{number}", "same")
    ]
    ended = [(process, *process.communicate(timeout=90)) for process in started]
    codes = [process.returncode for process, _, _ in ended]
    assert sorted(codes) == [0] * 5 + [1] * 3
    for process, _, errors in ended:
        assert process.returncode == 0 or "run_exists" in errors
    rows = done(host, "run", "ls", "--data", one, store=store)["runs"]
    assert {row["run_id"] for row in rows} == {"same", *(f"own-{number}" for number in range(4))}


def test_the_help_says_how_to_run_a_command(host: Host) -> None:
    text = host.snapctl("run", "--help").stdout
    assert "-- CMD [ARGS]..." in text
    assert "snapctl run --data imagenet@v1.2.0 --output model -- python train.py" in text
    assert ids_in(text) == []
    assert (BIN / "snapctl").exists()
