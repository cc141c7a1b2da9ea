"""The workflows of `docs/ci.md`: their own steps are run, against the real S3 server."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.installed import Host, Ran, write_files

pytestmark = pytest.mark.usefixtures("forked_commands")

DOCS = Path(__file__).parents[2] / "docs"
TRAIN = b"""
import argparse, hashlib, json, os, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--data", type=pathlib.Path)
parser.add_argument("--model", type=pathlib.Path)
options = parser.parse_args()
rows = b"".join(path.read_bytes() for path in sorted(options.data.rglob("*")) if path.is_file())
options.model.mkdir()
(options.model / "weights").write_text(hashlib.sha256(rows).hexdigest())
log = pathlib.Path("model-log")
log.mkdir()
(log / "loss").write_text("2")
metrics = {"accuracy": 0.93, "loss": 2, "worst loss": 3, "f1": float("nan")}
with open(os.environ["SNAPSYNC_RUN_FILE"], "w") as file:
    json.dump({"params": {"lr": 0.1}, "metrics": metrics, "outputs": {"log": "model-log"}}, file)
"""
REPOSITORY = {
    "train.py": TRAIN,
    "data.ref": b"iris@v1.0.0\n",
    "requirements.txt": b"",
    ".gitignore": b"data/\nmodel/\nmodel-log/\nrun.json\n",
    "ci/release.sh": (DOCS / "ci/release.sh").read_bytes(),
}
WRITER = {
    f"GIT_{who}_{what}": f"{who}@example.org"
    for who in ("AUTHOR", "COMMITTER")
    for what in ("NAME", "EMAIL")
}
Job = tuple[list[str], dict[str, str]]


def workflows() -> list[Any]:
    """Read the blocks of YAML in the page."""
    blocks = re.findall(r"```yaml\n(.*?)```", (DOCS / "ci.md").read_text("utf-8"), re.DOTALL)
    return [yaml.safe_load(block) for block in blocks]


def github(known: Mapping[str, str]) -> Job:
    """Give the commands of the workflow but for the installing one, and their variables."""
    [job] = workflows()[0]["jobs"].values()
    steps = [each for each in job["steps"] if "run" in each and each["name"] != "Install"]
    [step] = steps
    variables = {
        name: re.sub(r"\$\{\{ (\S+) \}\}", lambda found: known[found[1]], text)
        for name, text in step["env"].items()
    }
    return [step["run"]], variables


def gitlab(known: Mapping[str, str]) -> Job:
    job = workflows()[1]["release"]
    named = {
        "STORE": known["vars.SNAPSYNC_STORE"],
        "GITLAB_USER_LOGIN": known["github.actor"],
        "CI_COMMIT_TAG": known["github.ref_name"],
        "CI_JOB_ID": known["github.run_attempt"],
        "CI_JOB_URL": "https://gitlab.example.org/ml/iris/-/jobs/7",
    }
    variables = {
        name: re.sub(r"\$(\w+)", lambda found: named[found[1]], text)
        for name, text in job["variables"].items()
    }
    return job["script"], variables


@dataclass
class Forge:
    """A repository whose tags are built as a CI server does: in a clone at the tag."""

    host: Host
    root: Path
    store: str
    attempts: int = 0

    def git(self, *words: str) -> str:
        ran = self.host.command("git", "-C", str(self.root / "iris"), *words, extra=WRITER)
        assert ran.code == 0, ran.stderr
        return ran.stdout.strip()

    def tag(self, version: str) -> str:
        self.git("add", ".")
        self.git("commit", "-q", "--allow-empty", "-m", version)
        self.git("tag", version)
        return self.git("rev-parse", "HEAD")

    def build(self, version: str, workflow: Callable[[Mapping[str, str]], Job] = github) -> Ran:
        self.attempts += 1
        known = {
            "vars.SNAPSYNC_STORE": self.store,
            "github.actor": "ann",
            "github.ref_name": version,
            "github.run_attempt": str(self.attempts),
            "github.server_url": "https://github.example.org",
            "github.repository": "ml/iris",
            "github.run_id": "77",
        }
        commands, variables = workflow(known)
        clone = self.root / f"build-{self.attempts}"
        self.git("clone", "-q", "--branch", version, str(self.root / "iris"), str(clone))
        done = subprocess.run(
            ["sh", "-ec", "\n".join(commands)],
            cwd=clone,
            env=self.host.environment(variables),
            capture_output=True,
            text=True,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def ask(self, *words: str) -> Any:
        ran = self.host.snapctl(*words, "--store", self.store, "--json")
        assert ran.code == 0, ran.stderr
        return ran.document


@pytest.fixture
def forge(cloud_host: Host, s3_store: Callable[[], str], tmp_path: Path) -> Forge:
    forge = Forge(cloud_host, tmp_path, s3_store())
    write_files(tmp_path / "iris", REPOSITORY)
    forge.git("init", "-q", "-b", "main")
    source = write_files(tmp_path / "source", {"a.csv": b"1,2", "d/b.csv": b"3,4"})
    words = ("push", str(source), "--dataset", "iris@v1.0.0")
    assert cloud_host.snapctl(*words, "--store", forge.store).code == 0
    return forge


@pytest.mark.slow
def test_a_tag_becomes_a_model_in_staging(forge: Forge) -> None:
    commit = forge.tag("v1.0.0")
    ran = forge.build("v1.0.0")
    assert ran.code == 0, ran.stderr
    version = forge.ask("model", "show", "iris_clf@v1.0.0")
    assert (version["stage"], version["by"]) == ("staging", "ann")
    assert version["metrics"] == {"accuracy": 0.93, "loss": 2}
    assert version["run"] == "iris_clf-v1.0.0-1"
    assert version["note"] == "https://github.example.org/ml/iris/actions/runs/77"
    run = forge.ask("run", "show", version["run"])
    assert (run["code"]["commit"], run["code"]["dirty"]) == (commit, False)
    assert "untracked" not in run["code"] or run["code"]["untracked"] == 0
    [data] = run["data"]
    assert data["reference"] == "iris@v1.0.0"
    made = {each["path"]: each["snapshot_id"] for each in run["outputs"]}
    assert (set(made), made["model"]) == ({"model", "log"}, version["snapshot_id"])
    assert run["environment"]["lock_file"] == "requirements.txt"

    # The same tag again, on another forge, makes a run of its own; the version stays where it is.
    forge.ask("model", "promote", "iris_clf@v1.0.0", "--to", "production")
    version = forge.ask("model", "show", "iris_clf@v1.0.0")
    again = forge.build("v1.0.0", gitlab)
    assert again.code == 0, again.stderr
    assert forge.ask("run", "show", "iris_clf-v1.0.0-2")["outputs"] == run["outputs"]
    assert forge.ask("model", "show", "iris_clf@v1.0.0") == version
    (forge.root / "iris/train.py").write_bytes(TRAIN.replace(b"hexdigest()", b"hexdigest() * 2"))
    forge.git("tag", "-d", "v1.0.0")
    forge.tag("v1.0.0")
    moved = forge.build("v1.0.0")
    assert moved.code == 1
    assert "iris_clf@v1.0.0 exists already" in moved.stderr
    assert forge.ask("model", "show", "iris_clf@v1.0.0") == version


def test_what_fails_adds_no_version(forge: Forge) -> None:
    (forge.root / "iris/train.py").write_bytes(TRAIN + b"raise SystemExit(3)\n")
    forge.tag("v1.0.0")
    ran = forge.build("v1.0.0")
    assert ran.code == 3, ran.stderr
    assert forge.ask("run", "show", "iris_clf-v1.0.0-1")["exit_status"] == 3
    (forge.root / "iris/train.py").write_bytes(TRAIN)
    (forge.root / "iris/data.ref").write_text("iris@v1.0.1\n")
    forge.tag("v1.0.1")
    ran = forge.build("v1.0.1")
    assert ran.code == 10
    assert "v1.0.0" in ran.stderr
    assert not (forge.root / "build-2/model").exists()
    assert forge.ask("model", "ls")["models"] == []


def test_the_page_shows_what_is_run() -> None:
    on_github, on_gitlab = workflows()
    [pattern] = on_github[True]["push"]["tags"]  # `on` is a boolean to YAML 1.1
    assert pattern == "v[0-9]+.[0-9]+.[0-9]+"
    assert "CI_COMMIT_TAG" in on_gitlab["release"]["rules"][0]["if"]
    subprocess.run(["sh", "-n", str(DOCS / "ci/release.sh")], check=True)
