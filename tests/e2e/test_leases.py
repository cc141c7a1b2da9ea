"""Who holds a snapshot keeps it, until whatever holds it has ended in whatever way."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from snapd.disk.locks import snapshot_lock
from tests.e2e.installed import Daemon, Host, files_below
from tests.samples import Sample

FILES = {"a": b"hello", "d/b": b"x" * 30_000}
UID = "0a1b2c3d-0000-4000-8000-00000000abcd"
WAIT = ("sh", "-c", "echo up; exec cat")
"""A command that says when it runs and ends with its stdin."""


@pytest.fixture
def pods(tmp_path: Path) -> Path:
    (tmp_path / "kubelet" / "pods" / UID).mkdir(parents=True)
    return tmp_path / "kubelet" / "pods"


@pytest.fixture
def config(store: str, pods: Path) -> str:
    """A daemon that keeps nothing only because it was used lately."""
    return (
        f'[daemon]\nlisten = "127.0.0.1:0"\nstores = ["{store}"]\n'
        f'[cache]\nlease_seconds = 0\nkubelet_directory = "{pods.parent}"\n'
    )


def pull(host: Host, made: Sample, store: str, *more: str | Path) -> None:
    ran = host.snapctl("pull", "--id", made.id, "--store", store, "--quiet", *more)
    assert ran.code == 0, ran.stderr


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(host: Host, made: Sample) -> Iterator[Start]:
    """Start a command on the snapshot; return when it runs."""
    with ExitStack() as started:

        def begin(*more: str) -> subprocess.Popen[str]:
            words = ("snapctl", "exec", "--id", made.id, *more, "--", *WAIT)
            process = started.enter_context(host.start(*words, stdin=subprocess.PIPE))
            started.callback(process.kill)
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said == "up\n", process.communicate()
            return process

        yield begin


def kinds(host: Host, *more: str) -> list[str]:
    return [each["kind"] for each in leases(host, *more)]


def leases(host: Host, *more: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = host.snapctl("leases", "--json", *more).document["leases"]
    return found


def assert_held(host: Host, made: Sample, holder: str) -> None:
    """Check that neither eviction nor a sweep takes the snapshot, and that both say why."""
    refused = host.snapctl("cache", "evict", made.id, "--json")
    assert refused.code == 1, refused.stdout
    assert refused.error["code"] == "snapshot_in_use"
    assert holder in refused.error["message"]
    swept = host.snapctl("cache", "gc", "--free", "1G", "--why", "--json")
    assert holder in swept.stdout
    assert files_below(host.cache / "trees" / made.id) == FILES


def assert_free(host: Host, made: Sample) -> None:
    """Check that nobody holds the snapshot, by evicting it."""
    evicted = host.snapctl("cache", "evict", made.id)
    assert evicted.code == 0, evicted.stderr
    assert not (host.cache / "trees" / made.id).exists()


@pytest.mark.parametrize("end", ["ends", signal.SIGTERM, signal.SIGKILL])
def test_a_command_holds_its_snapshot_until_it_has_ended(
    host: Host, made: Sample, store: str, config: str, start: Start, end: signal.Signals | str
) -> None:
    with host.daemon(config=config):
        process = start("--store", store)
        (lease,) = leases(host)
        assert (lease["kind"], lease["process"]["pid"]) == ("process", process.pid)
        assert_held(host, made, f"process {process.pid}")
        if isinstance(end, signal.Signals):
            process.send_signal(end)
        process.communicate(timeout=60)
        assert process.returncode == (-end if isinstance(end, signal.Signals) else 0)
        assert leases(host) == []
        assert_free(host, made)


def test_a_command_holds_through_a_crash_of_the_daemon_and_the_loss_of_the_index(
    host: Host, made: Sample, store: str, config: str, start: Start
) -> None:
    with host.daemon(config=config) as daemon:
        process = start("--store", store)
        daemon.kill()
    for path in host.cache.glob("index.sqlite3*"):
        path.unlink()
    with host.daemon(config=config):
        assert_held(host, made, f"process {process.pid}")
    process.kill()
    process.communicate()
    with host.daemon(config=config):
        assert_free(host, made)


def test_a_killed_snapctl_that_still_pulls_holds_nothing(
    host: Host, made: Sample, store: str, config: str
) -> None:
    with host.daemon(config=config):
        lock = snapshot_lock(host.cache / "locks", made.id)
        assert lock.try_acquire()
        process = host.start("snapctl", "exec", "--id", made.id, "--store", store, "--", *WAIT)
        assert process.stderr is not None
        assert "queued" in process.stderr.readline()
        assert kinds(host) == ["process"]
        process.kill()
        out, _ = process.communicate(timeout=60)
        lock.release()
        assert out == ""
        assert leases(host) == []


def test_a_standalone_command_holds_against_the_daemon_on_the_same_cache(
    host: Host, made: Sample, store: str, config: str, start: Start
) -> None:
    with host.daemon(config=config):
        process = start("--standalone", "--store", store)
        assert kinds(host) == ["process"]
        assert_held(host, made, f"process {process.pid}")
        process.kill()
        process.communicate()
        assert_free(host, made)


def test_a_command_without_a_daemon(host: Host, made: Sample, store: str, start: Start) -> None:
    words = ("exec", "--standalone", "--id", made.id, "--store", store, "--")
    ran = host.snapctl(*words, "sh", "-c", 'cat "$SNAPSYNC_TREE/a"; exit 5')
    assert (ran.code, ran.stdout) == (5, "hello")
    process = start("--standalone")
    assert kinds(host, "--standalone") == ["time", "process"]
    process.kill()
    process.communicate()
    assert kinds(host, "--standalone") == ["time"]


def test_each_of_many_commands_holds(
    host: Host, made: Sample, store: str, config: str, start: Start
) -> None:
    with host.daemon(config=config):
        pull(host, made, store)
        running = [start() for _ in range(5)]
        assert kinds(host) == ["process"] * 5
        for process in running[1:]:
            process.kill()
            process.communicate()
        assert_held(host, made, f"process {running[0].pid}")
        running[0].communicate()
        assert_free(host, made)


Link = Callable[[Host, Sample, str, Path], None]


def by_pull(host: Host, made: Sample, store: str, link: Path) -> None:
    pull(host, made, store, link, "--mode", "symlink")


def by_checkout(host: Host, made: Sample, store: str, link: Path) -> None:
    pull(host, made, store)
    ran = host.snapctl("checkout", "--id", made.id, link, "--mode", "symlink", "--quiet")
    assert (ran.code, ran.stderr) == (0, "")


@pytest.mark.parametrize("lay_out", [by_pull, by_checkout])
def test_a_link_holds_as_long_as_it_points_at_the_tree(
    host: Host, made: Sample, store: str, config: str, tmp_path: Path, lay_out: Link
) -> None:
    link = tmp_path / "current"
    with host.daemon(config=config):
        lay_out(host, made, store, link)
        lay_out(host, made, store, link)
        assert kinds(host) == ["link"]
        assert_held(host, made, str(link))
        assert files_below(link.resolve()) == FILES
        link.unlink()
        link.symlink_to("/elsewhere")
        assert_free(host, made)


def test_copies_hold_nothing(
    host: Host, made: Sample, store: str, config: str, tmp_path: Path
) -> None:
    with host.daemon(config=config):
        pull(host, made, store, tmp_path / "copy", "--mode", "copy")
        pull(host, made, store, tmp_path / "hard", "--mode", "hardlink")
        assert leases(host) == []
        assert_free(host, made)
    assert files_below(tmp_path / "copy") == files_below(tmp_path / "hard") == FILES


def test_a_pod_holds_until_the_kubelet_has_removed_it(
    host: Host, made: Sample, store: str, config: str, pods: Path
) -> None:
    with host.daemon(config=config):
        pull(host, made, store, "--pod", UID)
        pull(host, made, store, "--pod", UID)
        assert kinds(host) == ["pod"]
        assert_held(host, made, f"pod {UID}")
        (pods / UID).rmdir()
        assert_free(host, made)
        words = ("pull", "--id", made.id, "--store", store, "--json", "--pod")
        for uid in (UID, "../../etc"):
            refused = host.snapctl(*words, uid)
            assert (refused.code, refused.error["code"]) == (2, "usage")
        assert not (host.cache / "trees" / made.id).exists()


def test_a_pin_holds_until_it_is_taken_back_whatever_happens_to_the_index(
    host: Host, made: Sample, store: str, config: str
) -> None:
    def crash(daemon: Daemon) -> None:
        daemon.kill()
        (host.cache / "index.sqlite3").write_bytes(b"garbage" * 100)

    with host.daemon(config=config) as daemon:
        absent = host.snapctl("cache", "pin", made.id, "--json")
        assert (absent.code, absent.error["code"]) == (10, "no_such_snapshot")
        pull(host, made, store)
        assert host.snapctl("cache", "pin", made.id, "--reason", "baseline").code == 0
        crash(daemon)
    with host.daemon(config=config):
        assert_held(host, made, "(baseline)")
        shown = host.snapctl("leases").stdout.splitlines()[1]
        assert shown.startswith(made.id[:12])
        assert shown.endswith("baseline")
        assert host.snapctl("cache", "unpin", made.id).code == 0
        assert host.snapctl("cache", "unpin", made.id).code == 1
        assert_free(host, made)


def test_a_path_given_out_is_held_for_its_time_and_each_pull_renews_it(
    host: Host, made: Sample, store: str, config: str
) -> None:
    with host.daemon(config=config.replace("lease_seconds = 0", "lease_seconds = 600")):
        pull(host, made, store)
        (first,) = leases(host)
        pull(host, made, store)
        (second,) = leases(host)
        assert (first["kind"], first["until"] - first["since"]) == ("time", 600)
        assert first["until"] < second["until"]
        assert_held(host, made, "its path was given out")
