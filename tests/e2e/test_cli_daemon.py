"""The verbs that talk to the daemon, against a real one."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snapd.disk.locks import snapshot_lock
from tests.e2e.installed import Host, files_below
from tests.samples import Sample

FILES = {"a": b"hello", "d/b": b"x" * 300_000, "d/same": b"hello"}


@contextmanager
def held(host: Host, made: Sample) -> Iterator[None]:
    """Keep the daemon from getting on with a pull, as another process on its cache would."""
    lock = snapshot_lock(host.cache / "locks", made.id)
    assert lock.try_acquire()
    try:
        yield
    finally:
        lock.release()


def start_pull(host: Host, made: Sample, store: str, *more: str) -> subprocess.Popen[str]:
    """Start a pull and return once the daemon has accepted it."""
    process = host.start("snapctl", "pull", "--id", made.id, "--store", store, *more)
    assert process.stderr is not None
    assert "queued" in process.stderr.readline()
    return process


def only_job(host: Host, *more: str) -> dict[str, object]:
    jobs = host.snapctl("jobs", "--json", *more).document["jobs"]
    assert len(jobs) == 1
    found: dict[str, object] = jobs[0]
    return found


def test_a_pull_and_what_every_verb_says_afterwards(host: Host, made: Sample, store: str) -> None:
    with host.daemon("--store", store):
        words = ("pull", "--id", made.id, "--store", store)
        cold = host.snapctl(*words, "--json")
        assert cold.code == 0, cold.stderr
        tree = cold.document["tree"]
        assert (cold.document["objects_fetched"], cold.document["objects_cached"]) == (2, 0)
        assert cold.document["bytes_fetched"] == 300_005
        assert files_below(Path(tree)) == FILES
        warm = host.snapctl(*words, "--quiet")
        assert (warm.stdout, warm.stderr) == (f"{tree}\n", "")
        events = [json.loads(line) for line in host.snapctl(*words, "--events").stdout.splitlines()]
        assert events[-1]["state"] == "done"
        assert events[-1]["objects_cached"] == 2

        status = host.snapctl("status", "--json").document
        assert status["snapshots"] == 1
        assert status["stores"] == [store]
        assert host.snapctl("status").code == 0
        assert host.snapctl("jobs", "--json").document == {"jobs": []}
        ended = host.snapctl("jobs", "--all", "--json").document["jobs"]
        assert [job["state"] for job in ended] == ["done"] * 3
        watched = host.snapctl("watch", "--id", made.id, "--json")
        assert watched.document["tree"] == tree
        listed = host.snapctl("cache", "ls", "--json").document["snapshots"]
        assert [found["snapshot_id"] for found in listed] == [made.id]
        assert made.id in host.snapctl("cache", "ls").stdout


def test_a_destination_is_laid_out_mirrored_and_previewed(
    host: Host, made: Sample, store: str, tmp_path: Path
) -> None:
    dest = tmp_path / "dest"
    words = ("pull", "--id", made.id, "--store", store, dest)
    with host.daemon("--store", store):
        ran = host.snapctl(*words, "--json")
        assert ran.code == 0, ran.stderr
        assert ran.document["dest"] == str(dest)
        assert ran.document["checkout"]["files"] == 3
        (dest / "extra").write_text("mine")
        (dest / "a").unlink()
        preview = host.snapctl(*words, "--delete", "--dryrun")
        assert preview.stdout.splitlines() == ["A ./a", "D ./extra"]
        assert (dest / "extra").exists()
        assert host.snapctl(*words, "--delete").stdout == f"{dest}\n"
        assert files_below(dest) == FILES
        inside = host.snapctl(*words[:-1], host.cache / "trees" / "mine", "--json")
        assert inside.code == 2
        assert inside.error["code"] == "dangerous_destination"


def test_cancel_ends_the_pull_for_those_who_wait(host: Host, made: Sample, store: str) -> None:
    with host.daemon("--store", store), held(host, made):
        waiting = start_pull(host, made, store, "--json")
        job = only_job(host)
        assert (job["waiters"], job["snapshot_id"]) == (1, made.id)
        cancelled = host.snapctl("cancel", str(job["job_id"]), "--json")
        assert cancelled.document["state"] == "cancelled"
        out, err = waiting.communicate(timeout=60)
        assert waiting.returncode == 130
        assert out == ""
        assert json.loads(err.splitlines()[-1])["code"] == "job_cancelled"
        unknown = host.snapctl("cancel", "nosuchjob", "--json")
        assert (unknown.code, unknown.error["code"]) == (1, "no_such_job")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_leaves_alone_ends_the_job(
    host: Host, made: Sample, store: str, number: signal.Signals
) -> None:
    with host.daemon("--store", store), held(host, made):
        waiting = start_pull(host, made, store)
        job_id = str(only_job(host)["job_id"])
        waiting.send_signal(number)
        out, err = waiting.communicate(timeout=60)
        assert (waiting.returncode, out) == (130, "")
        assert "goes on only if others wait" in err
        assert host.snapctl("watch", job_id).code == 130
        assert only_job(host, "--all")["state"] == "cancelled"


def test_a_timeout_leaves_the_job_to_the_others(host: Host, made: Sample, store: str) -> None:
    with host.daemon("--store", store):
        with held(host, made):
            patient = start_pull(host, made, store)
            words = ("pull", "--id", made.id, "--store", store, "--timeout", "300ms", "--json")
            hasty = host.snapctl(*words)
            assert (hasty.code, hasty.error["code"]) == (16, "timed_out")
        out, _ = patient.communicate(timeout=60)
        assert patient.returncode == 0
        assert out.strip().endswith(made.id)
        assert only_job(host, "--all")["state"] == "done"


def test_a_detached_pull_goes_on_alone(host: Host, made: Sample, store: str) -> None:
    with host.daemon("--store", store):
        with held(host, made):
            words = ("pull", "--id", made.id, "--store", store, "--detach")
            job_id = host.snapctl(*words, "--priority", "prefetch").stdout.strip()
            assert only_job(host)["job_id"] == job_id
            assert only_job(host)["priority"] == "prefetch"
        watched = host.snapctl("watch", job_id, "--json")
        assert watched.document["state"] == "done"


def test_exit_codes_come_from_the_daemon(host: Host, made: Sample, store: str) -> None:
    with host.daemon("--store", store):
        words = ("pull", "--json", "--store")
        elsewhere = host.snapctl(*words, "file:///elsewhere", "--id", made.id)
        assert (elsewhere.code, elsewhere.error["code"]) == (15, "store_not_allowed")
        unknown = host.snapctl(*words, store, "--id", "0" * 64)
        assert (unknown.code, unknown.error["code"]) == (10, "no_such_snapshot")
        for path in Path(store.removeprefix("file://")).glob(".objects/*/*/*/*"):
            path.write_bytes(b"other")
        damaged = host.snapctl(*words, store, "--id", made.id)
        assert damaged.code == 12
        assert damaged.stdout == ""


def test_a_daemon_that_dies_is_waited_for_and_its_successor_resumes(
    host: Host, made: Sample, store: str
) -> None:
    with host.daemon("--store", store) as daemon, held(host, made):
        waiting = start_pull(host, made, store, "--json", "--timeout", "5s")
        daemon.kill()
        _, err = waiting.communicate(timeout=60)
        assert waiting.returncode == 16
        assert json.loads(err.splitlines()[-1])["code"] == "timed_out"
        gone = host.snapctl("status", "--json")
        assert (gone.code, gone.error["code"]) == (14, "daemon_not_running")
    with host.daemon("--store", store):
        assert host.snapctl("pull", "--id", made.id, "--store", store).code == 0


def test_status_costs_little_from_a_cold_start(host: Host, store: str) -> None:
    """In CPU time, because the wall clock of a busy machine says little about the command.

    A slow machine, or a busy one, takes longer for a Python that does nothing, too.
    """

    def cpu_seconds(*words: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        ran = host.run(*words)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert ran.code == 0, ran.stderr
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    with host.daemon("--store", store):
        status = min(cpu_seconds("snapctl", "status") for _ in range(5))
        nothing = min(cpu_seconds("python", "-c", "pass") for _ in range(5))
    assert status < max(0.15, 7 * nothing)
