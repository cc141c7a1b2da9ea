"""Prolog, task prolog and epilog, run as slurmd runs them around the jobs of one node."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.installed import BIN, Host, Ran, write_files

SCRIPTS = Path(__file__).parents[2] / "deploy" / "slurm"


@dataclass
class Slurm:
    """A node of a cluster; jobs come with a number and a comment."""

    host: Host

    @property
    def jobs(self) -> Path:
        return self.host.root / "jobs"

    def run(self, script: str, job: int, comment: str = "") -> Ran:
        variables = {
            "SLURM_JOB_ID": str(job),
            "SLURM_JOB_COMMENT": comment,
            "SNAPSYNC_JOBS_DIR": str(self.jobs),
            "SNAPSYNC_PATH": f"{BIN}:/usr/bin:/bin",
            "SNAPSYNC_PROLOG_TIMEOUT": "60s",
        }
        return self.host.command(str(SCRIPTS / script), extra=variables)

    def task_variables(self, job: int) -> dict[str, str]:
        """What slurmstepd takes from the output of a task prolog."""
        ran = self.run("task_prolog.sh", job)
        assert ran.code == 0, ran
        lines = [line.removeprefix("export ") for line in ran.stdout.splitlines()]
        return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path / "host")


@pytest.fixture
def slurm(host: Host) -> Slurm:
    return Slurm(host)


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"file://{tmp_path}/store"


@pytest.fixture
def ids(host: Host, tmp_path: Path, store: str) -> list[str]:
    found = []
    for name in ("data", "model"):
        source = write_files(tmp_path / name, {"a": name.encode(), "d/b": b"x" * 9000})
        ran = host.snapctl("push", source, "--store", store)
        assert ran.code == 0, ran.stderr
        found.append(ran.stdout.strip())
    return found


def test_jobs_find_their_snapshots_and_hold_them_until_they_end(
    slurm: Slurm, store: str, ids: list[str]
) -> None:
    data, model = ids
    comment = f"of the baseline snapsync:data={data}@{store},my-model={model}@{store} please"
    with slurm.host.daemon("--store", store):
        for job in (7, 8):
            ran = slurm.run("prolog.sh", job, comment)
            assert (ran.code, ran.stderr) == (0, ""), ran
        variables = slurm.task_variables(7)
        assert set(variables) == {"SNAPSYNC_DATA", "SNAPSYNC_MY_MODEL"}
        assert (Path(variables["SNAPSYNC_DATA"]) / "a").read_bytes() == b"data"
        assert (Path(variables["SNAPSYNC_MY_MODEL"]) / "a").read_bytes() == b"model"

        def held() -> int:
            leases = slurm.host.snapctl("leases", "--json").document["leases"]
            return sum(lease["kind"] == "link" for lease in leases)

        def evict() -> Ran:
            return slurm.host.snapctl("cache", "evict", data, "--given-out-too")

        assert held() == 4
        assert evict().code == 1
        assert slurm.run("epilog.sh", 7).code == 0
        assert held() == 2
        assert evict().code == 1, "the other job still needs it"
        assert os.listdir(slurm.jobs) == ["8"]
        # A second prolog of a job, after a requeue say, begins anew.
        assert slurm.run("prolog.sh", 8, comment).code == 0
        assert slurm.run("epilog.sh", 8).code == 0
        assert slurm.run("epilog.sh", 8).code == 0
        assert held() == 0
        assert evict().code == 0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("data={absent}@{store}", "no such|not in|has no"),
        ("data=abc@{store}", "write name=ID@store"),
        ("../x={id}@{store}", "write name=ID@store"),
        ("data={id}@s3://elsewhere/x", "may not read"),
    ],
)
def test_a_job_that_asks_for_the_wrong_thing_fails_and_the_node_stays(
    slurm: Slurm, store: str, ids: list[str], words: str, reason: str
) -> None:
    asked = words.format(absent="0" * 64, id=ids[0], store=store)
    with slurm.host.daemon("--store", store):
        ran = slurm.run("prolog.sh", 9, f"snapsync:{asked}")
        assert ran.code == 0, "a failing prolog would drain the node"
        task = slurm.run("task_prolog.sh", 9)
        assert task.code == 1
        assert task.stdout.startswith("print snapsync: ")
        assert any(word in task.stdout for word in reason.split("|")), task.stdout
        assert slurm.run("epilog.sh", 9).code == 0
    assert not list(slurm.jobs.iterdir())


def test_a_node_without_its_daemon_is_to_blame_itself(
    slurm: Slurm, store: str, ids: list[str]
) -> None:
    ran = slurm.run("prolog.sh", 10, f"snapsync:data={ids[0]}@{store}")
    assert ran.code == 1
    assert "no daemon" in ran.stderr
    assert slurm.run("epilog.sh", 10).code == 0


def test_jobs_that_ask_for_nothing_cost_nothing(slurm: Slurm) -> None:
    for comment in ("", "just a job", "unsnapsync:x"):
        assert slurm.run("prolog.sh", 11, comment).code == 0
        assert slurm.task_variables(11) == {}
        assert slurm.run("epilog.sh", 11).code == 0
    assert not slurm.jobs.exists()
