from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from snapd.disk.leases import Leases
from snapd.model.ids import SnapshotId
from tests.unit.snapctl.running import IN_BACKGROUND, environment_of, snapctl
from tests.unit.snapctl.scripted import Exchange, scripted_daemon, view

ID = SnapshotId("a" * 64)
LEASE = {"lease_id": "x", "snapshot_id": ID, "kind": "process", "since": 1.0}
SHOW = "import os; print(os.getpid(), os.environ['SNAPSYNC_TREE'], os.environ['SNAPSYNC_ID'])"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache that has the snapshot, as far as `exec` looks at it."""
    (tmp_path / "cache" / "snapsync" / "trees" / ID).mkdir(parents=True)
    (tmp_path / "cache" / "snapsync" / "version").write_text("1\n")
    return tmp_path / "cache" / "snapsync"


def start(home: Path, *words: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*before, sys.executable, "-m", "snapctl", "exec", "--standalone", "--id", ID, *words],
        env=environment_of(home),
        cwd=home,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("dashes", [("--",), ()])
def test_the_command_has_tree_id_and_the_process(
    tmp_path: Path, cache: Path, dashes: tuple[str, ...]
) -> None:
    process = start(tmp_path, *dashes, sys.executable, "-c", SHOW)
    out, err = process.communicate(timeout=60)
    assert out.split() == [str(process.pid), str(cache / "trees" / ID), ID]
    assert (err, process.returncode) == ("", 0)


@pytest.mark.usefixtures("cache")
def test_options_after_the_command_are_the_command_s(tmp_path: Path) -> None:
    words = (sys.executable, "-c", "import sys; print(sys.argv[1:])", "--json", "--id", "--", "-q")
    ran = snapctl("exec", "--standalone", "--id", ID, *words, home=tmp_path)
    assert ran.stdout == "['--json', '--id', '--', '-q']\n"


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("code", [0, 1, 2, 10, 77, 255])
def test_the_exit_code_is_the_command_s(tmp_path: Path, code: int) -> None:
    ran = snapctl(
        "exec", "--standalone", "--id", ID, "--", "sh", "-c", f"exit {code}", home=tmp_path
    )
    assert ran.returncode == code


@pytest.mark.usefixtures("cache")
def test_standard_streams_are_the_command_s(tmp_path: Path) -> None:
    words = ("exec", "--standalone", "--id", ID, "--", "sh", "-c", "cat; echo b >&2")
    ran = snapctl(*words, home=tmp_path, stdin="a")
    assert (ran.stdout, ran.stderr) == ("a", "b\n")


def test_the_snapshot_is_held_while_the_command_runs_and_then_no_more(
    tmp_path: Path, cache: Path
) -> None:
    leases = Leases(cache, now=lambda: 1.0)
    process = start(tmp_path, "--reason", "night run", "--", "sh", "-c", "echo up; exec cat")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    (lease,) = leases.holding(ID)
    assert lease.describe() == f"process {process.pid} (night run)"
    process.communicate()
    assert leases.holding(ID) == []


def test_the_reason_is_the_name_alone_because_arguments_may_be_secret(
    tmp_path: Path, cache: Path
) -> None:
    process = start(tmp_path, "--", "sh", "-c", "echo up; exec cat", "sh", "--token=1234")
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    (lease,) = Leases(cache, now=lambda: 1.0).holding(ID)
    assert lease.reason == "sh"
    process.communicate()


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("before", [(), IN_BACKGROUND])
def test_the_command_starts_with_the_signals_that_snapctl_was_given(
    tmp_path: Path, before: tuple[str, ...]
) -> None:
    program = ("sh", "-c", "grep -E 'Sig(Blk|Ign)' /proc/self/status")
    direct = subprocess.run([*before, *program], capture_output=True, text=True, check=True)
    process = start(tmp_path, "--", *program, before=before)
    out, _ = process.communicate(timeout=60)
    assert out == direct.stdout


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_reach_the_command(tmp_path: Path, number: signal.Signals) -> None:
    program = f"trap 'echo got; exit 9' {int(number)}; echo up; while :; do read line; done"
    process = start(tmp_path, "--", "bash", "-c", program)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    out, _ = process.communicate("\n", timeout=60)
    assert (out, process.returncode) == ("got\n", 9)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no-such-command"], "no such command"),
        (["./script"], "#!/bin/sh"),
        ([], "Missing argument"),
        (["--events", "--", "true"], "--events"),
    ],
)
def test_what_can_not_run_is_a_usage_error(tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "script").write_text("echo no first line")
    (tmp_path / "script").chmod(0o755)
    ran = snapctl("exec", "--standalone", "--id", ID, *words, home=tmp_path)
    assert ran.returncode == 2
    assert said in ran.stderr


def test_what_is_not_here_needs_a_store(tmp_path: Path, cache: Path) -> None:
    other = "b" * 64
    ran = snapctl("exec", "--standalone", "--id", other, "--", "echo", "ran", home=tmp_path)
    assert (ran.returncode, ran.stdout) == (10, "")
    assert "--store" in ran.stderr
    assert Leases(cache, now=lambda: 1.0).holding(SnapshotId(other)) == []


def _scripts(tree: Path) -> dict[tuple[str, str], Callable[[Exchange], None]]:
    done = view("done", tree=str(tree))
    status = {"trees_directory": str(tree.parent)}
    return {
        ("GET", "/v1/status"): lambda it: it.reply(200, status),
        ("POST", "/v1/leases"): lambda it: it.reply(201, LEASE),
        ("POST", "/v1/pulls"): lambda it: it.stream(view("queued"), done),
    }


def test_with_a_daemon_it_is_held_before_it_is_pulled(tmp_path: Path, cache: Path) -> None:
    at, tree = tmp_path / "s", cache / "trees" / ID
    words = ("exec", "--id", ID, "--store", "s3://bucket/prefix", "--socket", str(at), "--")
    with scripted_daemon(at, _scripts(tree)) as daemon:
        ran = snapctl(*words, sys.executable, "-c", SHOW, home=tmp_path)
    assert ran.stdout.split()[1:] == [str(tree), ID]
    asked = [(method, path) for method, path, _ in daemon.requests]
    assert asked == [("POST", "/v1/leases"), ("POST", "/v1/pulls")]
    body = {"id": ID, "kind": "process", "subject": "", "reason": sys.executable}
    assert daemon.requests[0][2] == body


def test_a_pull_that_fails_runs_nothing(tmp_path: Path, cache: Path) -> None:
    at = tmp_path / "s"
    error = {"code": "no_such_snapshot", "message": "none", "hint": ""}
    failed = view("failed", error=error)
    scripts = _scripts(cache / "trees" / ID)
    scripts["POST", "/v1/pulls"] = lambda it: it.stream(failed)
    words = ("exec", "--id", ID, "--store", "s3://b/p", "--socket", str(at), "--", "echo", "ran")
    with scripted_daemon(at, scripts):
        ran = snapctl(*words, home=tmp_path)
    assert (ran.returncode, ran.stdout) == (10, "")


def test_without_a_daemon_nothing_runs(tmp_path: Path) -> None:
    ran = snapctl("exec", "--id", ID, "--json", "--", "echo", "ran", home=tmp_path,
                  extra={"SNAPSYNC_SOCKET": str(tmp_path / "absent")})  # fmt: skip
    assert (ran.returncode, ran.stdout) == (14, "")
    assert json.loads(ran.stderr)["code"] == "daemon_not_running"


@pytest.mark.usefixtures("cache")
def test_the_environment_is_handed_on(tmp_path: Path) -> None:
    words = ("exec", "--standalone", "--id", ID, "--", "sh", "-c", 'echo "$MINE $HOME"')
    ran = snapctl(*words, home=tmp_path, extra={"MINE": "kept"})
    assert ran.stdout == f"kept {tmp_path}\n"
