"""`run verify`, `run reproduce` and `run show --openlineage`, with real git and a real store."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.installed import Host, Ran, files_below, write_files

pytestmark = pytest.mark.usefixtures("forked_commands")

TRAIN = """
import hashlib, json, os, pathlib, sys
data, out = map(pathlib.Path, sys.argv[1:3])
sums = hashlib.sha256()
for path in sorted(data.rglob("*")):
    if path.is_file():
        sums.update(path.read_bytes())
out.mkdir(parents=True, exist_ok=True)
out.chmod(0o755)
weights = out / "weights"
weights.write_text(sums.hexdigest() + os.environ.get("NOISE", ""))
weights.chmod(0o644)
print("trained")
"""


@dataclass
class Project:
    """A repository with a committed training script, data in a store, and one recorded run."""

    host: Host
    root: Path
    store: str

    @property
    def repository(self) -> Path:
        return self.root / "iris"

    def git(self, *words: str) -> str:
        ran = self.host.command("git", "-C", str(self.repository), *words)
        assert ran.code == 0, ran.stderr
        return ran.stdout.strip()

    def snapctl(self, *words: str | Path, cwd: Path | None = None, **extra: str) -> Ran:
        return self.host.snapctl(*words, extra=extra, cwd=cwd or self.root)

    def done(self, *words: str | Path, cwd: Path | None = None) -> Ran:
        ran = self.snapctl(*words, cwd=cwd)
        assert ran.code == 0, ran.stderr
        return ran

    def record(self, run_id: str, **other: Any) -> None:
        """Record a run that differs from the first one in some fields."""
        known = self.done("run", "show", "r7", "--json").document
        file = self.root / f"{run_id}.json"
        file.write_text(json.dumps({**known, "run_id": run_id, **other}))
        self.done("run", "record", file)

    def state(self) -> tuple[str, str, dict[str, bytes]]:
        """Tell all that must not change in the user's repository."""
        status = self.git("status", "--porcelain")
        files = {
            name: data
            for name, data in files_below(self.repository).items()
            # The index holds times, which git renews when it likes; what it means, status says.
            if not name.startswith(".git/objects") and name != ".git/index"
        }
        return self.git("rev-parse", "HEAD"), status, files


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Give a project that no test changes."""
    root = tmp_path_factory.mktemp("recorded")
    return made(Host(root / "host"), root, f"file://{root}/store")


@pytest.fixture
def project(recorded: Project, tmp_path: Path) -> Project:
    """Give a copy of its repository and of its store, with everything else as it was."""
    for name in ("iris", "store"):
        shutil.copytree(recorded.root / name, tmp_path / name, symlinks=True)
    store = f"file://{tmp_path}/store"
    variables = {**recorded.host.variables, "SNAPSYNC_STORE": store}
    return Project(Host(tmp_path / "host", variables), tmp_path, store)


def made(host: Host, tmp_path: Path, store: str) -> Project:
    host.variables.update(
        SNAPSYNC_STORE=store,
        GIT_AUTHOR_NAME="a",
        GIT_AUTHOR_EMAIL="a@example.org",
        GIT_COMMITTER_NAME="a",
        GIT_COMMITTER_EMAIL="a@example.org",
    )
    project = Project(host, tmp_path, store)
    write_files(project.repository, {"src/train.py": TRAIN.encode(), "uv.lock": b"packages"})
    project.git("init", "-q", "-b", "main")
    project.git("add", ".")
    project.git("commit", "-qm", "one")
    source = write_files(tmp_path / "source", {"a": b"1", "d/b": b"2"})
    project.done("push", source, "--dataset", "flowers@v1.0.0")
    project.done("pull", "--standalone", "--id", "flowers@v1.0.0", tmp_path / "in")
    words = ("python", "src/train.py", "../in", "out")
    where = {"cwd": project.repository}
    project.done("run", "--run-id", "r7", "--data", "../in=flowers@v1.0.0", "--output", "out",
                 "--image", "trainer:1", "--", *words, **where)  # fmt: skip
    subprocess.run(["rm", "-r", str(project.repository / "out")], check=True)
    return project


def lines(ran: Ran) -> dict[str, str]:
    """Give the status of each check, by its subject without IDs."""
    found = {}
    for line in ran.stdout.splitlines():
        status, subject = line[:11].strip(), line[13:].split(":")[0]
        found[" ".join(word for word in subject.split() if len(word) != 12)] = status
    return found


def test_a_run_is_verified_and_what_differs_is_told(project: Project) -> None:
    ran = project.done("run", "verify", "r7", "--image", "trainer:1", cwd=project.repository)
    assert set(lines(ran).values()) == {"ok"}
    assert set(lines(ran)) == {
        *("data flowers@v1.0.0", "output out", "commit", "working tree"),
        *("python", "lock file", "image", "platform"),
    }
    assert "8 ok, 0 differs, 0 not checked" in ran.stderr

    (project.repository / "uv.lock").write_bytes(b"others")
    (project.repository / "src/train.py").write_text("")
    ran = project.snapctl("run", "verify", "r7", "--json", "--repo", project.repository)
    assert ran.code == 1
    assert (ran.error["code"], ran.error["exit_code"]) == ("run_differs", 1)
    checks = {each["subject"]: each["status"] for each in ran.document["checks"]}
    assert (checks["working tree"], checks["lock file"]) == ("differs", "differs")
    assert (checks["commit"], checks["image"]) == ("ok", "not checked")
    assert ran.document["not_checked"] == 1

    ran = project.done("run", "verify", "r7", "--only", "data", "--only", "outputs", "--deep")
    assert set(lines(ran)) == {"data flowers@v1.0.0", "output out"}
    assert "read and hashed" in ran.stdout


def test_what_was_not_checked_is_never_fine(project: Project) -> None:
    # The working directory is in no repository, and there is neither interpreter nor lock file.
    ran = project.done("run", "verify", "r7", "--python", "python-of-another-age")
    found = lines(ran)
    assert {name for name, status in found.items() if status == "not checked"} == {
        *("commit", "python", "lock file", "image"),
    }
    # What a record names is not run but for a name that PATH leads to.
    evil = write_files(project.root / "bin", {"python3": b"#!/bin/sh\ntouch was-run\necho 3.1\n"})
    (evil / "python3").chmod(0o755)
    project.record("evil", command=[str(evil / "python3"), "train.py"])
    found = lines(project.done("run", "verify", "evil"))
    assert found["python"] == "not checked"
    assert list(project.root.rglob("was-run")) == []


def test_damage_and_loss_are_found_in_the_store(project: Project) -> None:
    document = project.done("run", "show", "r7", "--json").document
    [output] = project.root.glob(f"store/.objects/**/*{sum_of_output(project)[10:]}")
    output.chmod(0o644)
    output.write_bytes(b"x" * output.stat().st_size)
    ran = project.done("run", "verify", "r7", "--only", "outputs")
    assert set(lines(ran).values()) == {"ok"}
    ran = project.snapctl("run", "verify", "r7", "--only", "outputs", "--deep")
    assert (ran.code, lines(ran)) == (1, {"output out": "differs"})
    output.unlink()
    ran = project.snapctl("run", "verify", "r7", "--only", "outputs")
    assert (ran.code, lines(ran)) == (1, {"output out": "differs"})
    assert document["outputs"][0]["path"] == "out"


def sum_of_output(project: Project) -> str:
    """Name the object that the output holds."""
    snapshot_id = project.done("run", "show", "r7", "--json").document["outputs"][0]["snapshot_id"]
    text = project.done("manifest", "--id", snapshot_id).stdout
    return text.splitlines()[1].split()[2]


def test_a_run_is_reproduced_and_the_repository_is_left_alone(project: Project) -> None:
    (project.repository / "src/train.py").write_text("raise SystemExit('not this one')\n")
    (project.repository / "mine").write_text("untracked")
    before = project.state()
    command = project.done("run", "reproduce", "r7", "--repo", project.repository)
    root = project.root / "reproduced-r7"
    assert command.stdout == f"cd {root}/code && python src/train.py ../in out\n"
    assert files_below(root / "in") == {"a": b"1", "d/b": b"2"}
    assert (root / "code/src/train.py").read_text() == TRAIN
    assert not (root / "code/mine").exists()
    ran = project.host.command("sh", "-c", command.stdout)
    assert ran.stdout == "trained\n"

    again = ("run", "reproduce", "r7", "--run", "--repo", project.repository, "--into")
    ran = project.done(*again, "b")
    assert ran.stdout.splitlines()[0] == "trained"
    assert ran.stdout.splitlines()[1].startswith("same          out ")
    assert "same outputs, 1 of 1" in ran.stderr

    ran = project.snapctl(*again, "c", "--json", NOISE="1")
    assert (ran.code, ran.error["code"]) == (1, "run_differs")
    [output] = ran.document["outputs"]
    assert (output["status"], ran.document["exit_status"]) == ("different", 0)
    assert "1 differences, the first is M ./weights" in output["detail"]
    assert "trained" in ran.stderr
    assert project.state() == before


@pytest.mark.parametrize(
    ("script", "code", "status", "word"),
    [
        ("python src/train.py ../in elsewhere", 1, "absent", "is not there"),
        ("python src/train.py ../in out && chmod 600 out/weights", 1, "different", "modes are not"),
        ("python src/train.py ../in x && echo 'outputs: {out: x}' > $SNAPSYNC_RUN_FILE", 0,
         "same", ""),
        ("test $(ls $SNAPSYNC_TREE) && exit 7", 1, "absent", ""),
    ],
)  # fmt: skip
def test_each_output_is_told_as_it_is(
    project: Project, script: str, code: int, status: str, word: str
) -> None:
    words = ("run", "reproduce", "r7", "--run", "--repo", project.repository, "--json")
    ran = project.snapctl(*words, "--", "sh", "-c", script)
    assert ran.code == code, ran.stderr
    [output] = ran.document["outputs"]
    assert output["status"] == status
    assert word in output["detail"]


def test_without_the_code_it_says_so_and_lays_out_the_data(project: Project) -> None:
    ran = project.done("run", "reproduce", "r7", "--json")
    assert any("code is not laid out" in note for note in ran.document["notes"])
    [data] = ran.document["data"]
    assert files_below(Path(data["path"])) == {"a": b"1", "d/b": b"2"}
    # A commit that no branch leads to any more is found all the same.
    project.git("commit", "-q", "--amend", "-m", "two")
    ran = project.done(
        "run", "reproduce", "r7", "--into", "b", "--run", "--repo", project.repository
    )
    assert "same" in ran.stdout


def test_what_can_not_be_run_is_refused_before(project: Project) -> None:
    def refused(words: tuple[str | Path, ...], exit_code: int, word: str) -> None:
        ran = project.snapctl("run", *words)
        assert ran.code == exit_code, ran.stderr
        assert word in ran.stderr
        assert "hint: " in ran.stderr
        assert "Traceback" not in ran.stderr

    write_files(project.root / "full", {"x": b""})
    write_files(project.root / "kept", {"weights": b"precious"})
    refused(("reproduce", "r77"), 10, "did you mean r7")
    refused(("reproduce", "../r7"), 2, "../r7")
    refused(("reproduce", "r7", "--into", "full"), 2, "not empty")
    refused(("reproduce", "r7", "--into", "full/x"), 1, "full/x")
    refused(("reproduce", "r7", "--repo", project.root), 2, "no git repository")
    assert not (project.root / "reproduced-r7").exists()
    refused(("verify", "r7", "--lock", "absent"), 2, "absent")
    refused(("reproduce", "r7", "--run", "--", "no-such-program"), 2, "no-such-program")
    kept = str(project.root / "kept")
    [output] = project.done("run", "show", "r7", "--json").document["outputs"]
    project.record("masked", command=["train", "--token", "***"])
    project.record("silent", command=[])
    project.record("outside", outputs=[{**output, "path": kept}])
    (project.repository / "link").symlink_to(kept)
    project.git("add", ".")
    project.git("commit", "-qm", "a link")
    code = {"commit": project.git("rev-parse", "HEAD").strip()}
    project.record("linked", code=code, outputs=[{**output, "path": "link"}])
    project.record("led", code={**code, "directory": "link/below"})
    refused(("reproduce", "masked", "--run"), 2, "masks a word")
    refused(("reproduce", "silent", "--run"), 2, "which command")
    refused(("reproduce", "outside", "--run"), 2, "may write to")
    by_repo = ("--repo", project.repository)
    refused(("reproduce", "linked", *by_repo, "--run"), 2, "a link in the code")
    refused(("reproduce", "led", *by_repo), 2, "a link in the code")
    assert files_below(project.root / "kept") == {"weights": b"precious"}


def test_on_a_real_server_through_a_daemon(
    cloud_host: Host, s3_store: Callable[[], str], tmp_path: Path
) -> None:
    project = made(cloud_host, tmp_path, s3_store())
    with cloud_host.daemon("--store", "*"):
        words = ("--repo", project.repository, "--into", "again", "--run")
        ran = project.done("run", "reproduce", "r7", *words)
        assert "same" in ran.stdout
        listed = project.done("cache", "ls", "--json").stdout
        assert (
            json.loads(project.done("run", "show", "r7", "--json").stdout)["data"][0]["snapshot_id"]
            in listed
        )
    ran = project.done("run", "verify", "r7", "--deep", "--repo", project.repository)
    assert lines(ran)["data flowers@v1.0.0"] == "ok"


def test_events_of_openlineage(project: Project) -> None:
    ran = project.done("run", "show", "r7", "--openlineage")
    start, end = (json.loads(line) for line in ran.stdout.splitlines())
    assert (start["eventType"], end["eventType"]) == ("START", "COMPLETE")
    assert end["inputs"][0]["name"] == "flowers"
    assert end["job"]["name"] == "src/train.py"
    both: Any = project.done("run", "show", "r7", "--openlineage", "--json").document
    assert both == [start, end]
    named = project.done("run", "show", "r7", "--openlineage", "--store", f"{project.store}/")
    assert named.stdout == ran.stdout, "a store has one name, however it is written"
