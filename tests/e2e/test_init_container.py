"""What an init container relies on: its daemon may be late or missing, its mounts may differ."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.installed import Host, files_below, write_files
from tests.samples import Sample
from tests.servers.faultproxy import Fault, FaultProxy

FILES = {"a": b"hello", "d/b": b"x" * 300_000}


@pytest.fixture
def host(tmp_path: Path, made: Sample, store: str) -> Host:
    """A pod's environment: every word comes from it, as in the examples."""
    log = tmp_path / "termination-log"
    return Host(
        tmp_path / "host",
        {
            "SNAPSYNC_ID": made.id,
            "SNAPSYNC_STORE": store,
            "SNAPSYNC_WAIT_FOR_DAEMON": "1m",
            "SNAPSYNC_TIMEOUT": "2m",
            "SNAPSYNC_TERMINATION_LOG": str(log),
        },
    )


def awaited(process: subprocess.Popen[str]) -> None:
    """Return when it says that it waits for the daemon."""
    assert process.stderr is not None
    assert "daemon: waiting" in process.stderr.readline()


def test_a_daemon_that_starts_later_is_waited_for(host: Host, made: Sample, store: str) -> None:
    process = host.start("snapctl", "pull")
    awaited(process)
    with host.daemon("--store", store):
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert files_below(Path(output.strip())) == FILES
        assert "done in" in errors


def test_a_missing_daemon_ends_in_its_exit_code_and_the_next_action(
    host: Host, tmp_path: Path
) -> None:
    ran = host.snapctl("pull", "--wait-for-daemon", "300ms")
    assert ran.code == 14
    words = (tmp_path / "termination-log").read_text().splitlines()
    assert words[0].startswith("snapctl: no daemon: there is no socket")
    assert words[1] == "exit code: 14 (daemon not running, daemon_not_running)"
    assert words[2].startswith("next: Start snapd")
    late = host.snapctl("pull", "--timeout", "300ms", "--json")
    assert (late.code, late.error["code"]) == (16, "timed_out")


def test_after_the_wait_it_pulls_itself_if_asked(host: Host) -> None:
    ran = host.snapctl("pull", "--standalone=auto", "--wait-for-daemon", "300ms")
    assert ran.code == 0, ran.stderr
    assert files_below(Path(ran.stdout.strip())) == FILES
    assert "pulling in this process" in ran.stderr


def test_a_daemon_that_comes_in_time_is_preferred(host: Host, store: str) -> None:
    process = host.start(
        "snapctl", "pull", "--standalone=auto", extra={"SNAPSYNC_CACHE_DIR": "/no"}
    )
    awaited(process)
    with host.daemon("--store", store):
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "pulling in this process" not in errors


def test_a_pull_that_does_not_get_on_is_left(
    cloud_host: Host, s3_store: Callable[[], str], fault_proxy: FaultProxy, tmp_path: Path
) -> None:
    """The store takes the requests and never answers, which the daemon bears for long."""
    store, log = s3_store(), tmp_path / "log"
    source = write_files(tmp_path / "source", {"large": b"x" * 400_000, "small": b"y"})
    made = cloud_host.snapctl("push", source, "--store", store).stdout.strip()
    words = ("pull", "--id", made, "--store", store, "--stall-timeout", "1s")
    cloud_host.variables |= {
        "AWS_ENDPOINT_URL_S3": fault_proxy.url,
        "SNAPSYNC_TERMINATION_LOG": str(log),
    }
    with cloud_host.daemon("--store", store):
        fault_proxy.plan(Fault("hang", path=r"\.objects", times=None))
        for more in ((), ("--standalone", "--cache-dir", tmp_path / "own")):
            ran = cloud_host.snapctl(*words, *more)
            assert ran.code == 16, ran.stderr
            assert "has not got on for" in ran.stderr
            assert "(timed out or stalled, stalled)" in log.read_text()
        fault_proxy.plan()
        assert cloud_host.snapctl(*words[:-2]).code == 0


def test_the_trees_may_be_mounted_elsewhere(
    host: Host, made: Sample, store: str, tmp_path: Path
) -> None:
    """A copy stands in for the mount: nothing but the trees is there, under another name."""
    mapped = tmp_path / "snapshots"
    # No cache of one's own is named, as in a pod.
    extra = {"SNAPSYNC_TREES": str(mapped), "SNAPSYNC_CACHE_DIR": ""}
    with host.daemon("--store", store):
        pulled = host.snapctl("pull", extra=extra)
        assert pulled.stdout == f"{mapped}/{made.id}\n"
        unmounted = host.snapctl("pull", "--json", tmp_path / "own", extra=extra)
        assert (unmounted.code, unmounted.error["code"]) == (1, "cache_unusable")
        assert "SNAPSYNC_TREES" in unmounted.error["hint"]
        shutil.copytree(host.cache / "trees", mapped)
        for words in (("pull",), ("checkout", "--id", made.id)):
            dest = tmp_path / words[0]
            laid_out = host.snapctl(*words, dest, "--json", extra=extra)
            assert laid_out.code == 0, laid_out.stderr
            assert files_below(dest) == FILES
        link = tmp_path / "link"
        linked = host.snapctl("checkout", "--id", made.id, "--mode", "symlink", link, extra=extra)
        assert linked.code == 0, linked.stderr
        assert os.readlink(link) == f"{mapped}/{made.id}"
        ran = host.snapctl(
            "exec", "--id", made.id, "--", "sh", "-c", "echo $SNAPSYNC_TREE", extra=extra
        )
        assert ran.stdout == f"{mapped}/{made.id}\n"
        receipt = tmp_path / "receipt.json"
        assert host.snapctl("pull", "--receipt", receipt, extra=extra).code == 0
        assert f"{mapped}/{made.id}" in receipt.read_text()
    relative = host.snapctl("status", "--json", extra={"SNAPSYNC_TREES": "trees"})
    assert (relative.code, relative.error["code"]) == (2, "usage")


def test_a_sidecar_holds_until_it_is_ended(host: Host, made: Sample, store: str) -> None:
    with host.daemon("--store", store):
        process = host.start("snapctl", "hold", "--reason", "training")
        assert process.stdout is not None
        assert process.stdout.readline().strip().endswith(made.id)

        def holders() -> list[str]:
            leases = host.snapctl("leases", "--json").document["leases"]
            return [lease["reason"] for lease in leases if lease["kind"] == "process"]

        assert holders() == ["training"]
        process.terminate()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert holders() == []
