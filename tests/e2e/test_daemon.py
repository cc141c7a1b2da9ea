"""`snapd` as a process: its defaults, its signals, its exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snapctl.client import Client
from snapd.disk.locks import RangeLock, snapshot_lock
from snapd.model.errors import DaemonNotRunning
from snapd.model.ids import SnapshotId, parse_snapshot_id
from snapd.model.jobs import PullRequest
from tests.e2e.installed import COMMAND_SECONDS, READY_SECONDS, Daemon, Host, write_files
from tests.ordinary_user import NOBODY, nobodys_directory

OTHERS_SECONDS = 20.0

ORDINARY = """
import os, sys
# All that is imported late, while root still can: the interpreter may lie in a private place.
import anyio._backends._asyncio, concurrent.futures.thread, uvloop
import encodings.ascii, encodings.idna, encodings.latin_1, encodings.unicode_escape
import importlib.readers, snapd.daemon
import snapd.remote.aws_chain, snapd.remote.directory, snapd.remote.opening, snapd.remote.s3
from snapd.__main__ import main
if os.geteuid() == 0:
    os.setgroups([]); os.setgid({uid}); os.setuid({uid})
sys.exit(main(sys.argv[1:]))
"""


@contextmanager
def ordinary_daemon(
    environment: dict[str, str], log: Path, *arguments: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `snapd` as somebody who is not root."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", ORDINARY.format(uid=NOBODY), *arguments],
            env=environment,
            cwd="/",
            stderr=output,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def client_when_ready(path: Path, process: subprocess.Popen[bytes], log: Path) -> Client:
    client = Client([str(path)])
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            client.status()
        except DaemonNotRunning:
            time.sleep(0.02)
        else:
            return client
    raise AssertionError(log.read_text())


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"file://{tmp_path}/store"


@pytest.fixture
def pushed(host: Host, tmp_path: Path, store: str) -> SnapshotId:
    source = write_files(tmp_path / "source", {"a": b"alpha", "d/b": b"beta" * 1000})
    ran = host.snapctl("push", source, "--store", store)
    assert ran.code == 0, ran.stderr
    return parse_snapshot_id(ran.stdout)


def test_no_configuration_at_all_as_an_ordinary_user() -> None:
    with nobodys_directory() as home:
        runtime = home / "runtime"
        runtime.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(runtime, NOBODY, NOBODY)
        environment = {
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(runtime),
            "XDG_CACHE_HOME": str(home / "cache"),
        }
        log = home / "log"
        path = runtime / "snapsync" / "snapd.sock"
        with ordinary_daemon(environment, log) as process:
            status = client_when_ready(path, process, log).status()
            assert status["state_directory"] == str(home / "cache" / "snapsync")
            assert status["stores"] == ["*"]
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            with urllib.request.urlopen(f"http://{status['listen']}/readyz") as reply:
                assert reply.status == 200
            process.terminate()
            assert process.wait(READY_SECONDS) == 0
        assert not path.exists()


def take_the_default_address(first: socket.socket) -> None:
    """Listen there; a daemon of another test, which runs beside this one, ends before long."""
    deadline = time.monotonic() + OTHERS_SECONDS
    while True:
        try:
            first.bind(("127.0.0.1", 9477))
            first.listen()
        except OSError:
            # Whoever has it for that long is a daemon of this machine: the same to ours.
            if time.monotonic() > deadline:
                return
            time.sleep(0.1)
        else:
            return


def test_two_users_daemons_share_one_machine() -> None:
    """The default address is taken by the first; the second serves health at another."""
    with nobodys_directory() as home, socket.socket() as first:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        take_the_default_address(first)
        environment = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
        path = home / "snapsync" / "snapd.sock"
        with ordinary_daemon(environment, home / "log") as process:
            status = client_when_ready(path, process, home / "log").status()
            assert not status["listen"].endswith(":9477")


def wait_for_log(daemon: Daemon, message: str) -> dict[str, str]:
    """Wait for a log line and give it."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        for line in daemon.log_text().splitlines():
            document: dict[str, str] = json.loads(line)
            if message in document["message"]:
                return document
        time.sleep(0.02)
    raise AssertionError(daemon.log_text())


def held(host: Host, snapshot_id: SnapshotId) -> RangeLock:
    """While it is held, pulls of the snapshot wait, as for another process that pulls it."""
    return snapshot_lock(host.cache / "locks", snapshot_id)


def test_sigterm_waits_for_a_running_pull(host: Host, store: str, pushed: SnapshotId) -> None:
    with host.daemon("--store", store) as daemon:
        lock = held(host, pushed)
        assert lock.try_acquire()
        views = Client([str(host.socket)]).pull(PullRequest(pushed, store))
        next(views)
        daemon.process.send_signal(signal.SIGTERM)
        wait_for_log(daemon, "draining")
        refused = host.snapctl("pull", "--id", "0" * 64, "--store", store, "--detach", "--json")
        assert (refused.code, refused.error["code"]) == (14, "daemon_stopping")
        words = ("--id", "0" * 64, "--store", store, "--timeout", "1s", "--json")
        waiting = host.snapctl("pull", *words)
        assert (waiting.code, waiting.error["code"]) == (16, "timed_out")
        lock.release()
        assert list(views)[-1].state == "done"
        assert daemon.process.wait(READY_SECONDS) == 0


def test_a_second_sigterm_does_not_wait(host: Host, store: str, pushed: SnapshotId) -> None:
    # Of this patience nobody could wait for the end.
    config = f'[daemon]\nlisten = ""\nstores = ["{store}"]\ngrace_seconds = 600\n'
    with host.daemon(config=config) as daemon, held(host, pushed):
        pulling = host.start("snapctl", "pull", "--id", pushed, "--store", store, "--json")
        client = Client([str(host.socket)])
        while not client.jobs():
            time.sleep(0.02)
        daemon.process.send_signal(signal.SIGTERM)
        wait_for_log(daemon, "draining")
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(READY_SECONDS) == 0
        # Its caller waits for the next daemon.
        assert pulling.poll() is None
        pulling.terminate()
        _, errors = pulling.communicate(timeout=COMMAND_SECONDS)
        assert json.loads(errors.splitlines()[-1])["code"] == "interrupted"
        assert pulling.returncode == 130


def test_sighup_reads_the_file_again(host: Host, store: str, pushed: SnapshotId) -> None:
    with host.daemon(config="[daemon]\nlisten = ''\n") as daemon:
        arguments = ("pull", "--id", pushed, "--store", store, "--json")
        assert host.snapctl(*arguments).code == 15
        file = host.root / "snapd.toml"
        file.write_text("[daemon]\nstorse = []\n")
        daemon.process.send_signal(signal.SIGHUP)
        assert "storse" in wait_for_log(daemon, "the configuration is refused")["message"]
        file.write_text(f"[daemon]\nlisten = '127.0.0.1:0'\nstores = ['{store}']\n")
        daemon.process.send_signal(signal.SIGHUP)
        assert wait_for_log(daemon, "reloaded")["changed"] == "daemon.stores"
        assert wait_for_log(daemon, "need a restart")["keys"] == "daemon.listen"
        assert host.snapctl(*arguments).code == 0


def test_the_job_stands_on_the_lines_about_it(host: Host, store: str, pushed: SnapshotId) -> None:
    with host.daemon("--store", store) as daemon:
        client = Client([str(host.socket)])
        *_, last = client.pull(PullRequest(pushed, store))
        assert wait_for_log(daemon, "pull of")["job_id"] == last.job_id


def test_a_killed_daemon_can_be_started_again(host: Host, store: str) -> None:
    with host.daemon("--store", store) as daemon:
        daemon.kill()
        assert host.socket.exists()
        assert host.snapctl("status").code == 14
    with host.daemon("--store", store) as daemon:
        assert daemon.status["pid"] == daemon.process.pid


def test_a_second_daemon_on_one_socket_is_refused(host: Host, store: str) -> None:
    with host.daemon("--store", store) as daemon:
        second = host.run("snapd", "--log-format", "json", "--listen", "")
        assert second.code == 1
        told = json.loads(second.stderr.splitlines()[-1])
        assert (told["code"], told["level"]) == ("socket_busy", "critical")
        assert str(host.socket) in told["message"]
        assert "--socket" in told["hint"]
        assert host.snapctl("status", "--json").document["pid"] == daemon.process.pid


def test_what_keeps_it_from_starting_is_told_once(host: Host, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    unusable = host.run("snapd", "--cache-dir", str(tmp_path / "file"), "--listen", "")
    assert unusable.code == 1
    (line,) = unusable.stderr.splitlines()
    assert "critical" in line
    assert "code=cache_unusable" in line
    taken = host.run("snapd", "--listen", "127.0.0.1:99999")
    assert taken.code == 2
    assert "127.0.0.1:99999" in taken.stderr
    assert "Traceback" not in unusable.stderr + taken.stderr


def test_systemd_is_told_and_its_watchdog_fed(host: Host, store: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(READY_SECONDS)
        host.variables |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}

        def heard(what: bytes) -> None:
            while what not in systemd.recv(4096).splitlines():
                pass

        with host.daemon("--store", store) as daemon:
            heard(b"READY=1")
            heard(b"WATCHDOG=1")
            heard(b"WATCHDOG=1")
            daemon.process.terminate()
            heard(b"STOPPING=1")


def test_a_daemon_that_hangs_says_where_when_the_watchdog_ends_it(host: Host, store: str) -> None:
    with host.daemon("--store", store) as daemon:
        daemon.process.send_signal(signal.SIGABRT)
        assert daemon.process.wait(READY_SECONDS) == -signal.SIGABRT
        assert "most recent call first" in daemon.log_text()


ACTIVATE = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(os.environ["SNAPSYNC_SOCKET"])
listener.listen()
print("listening", flush=True)
os.dup2(listener.detach(), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_socket_that_was_handed_over_stays(host: Host, store: str, pushed: SnapshotId) -> None:
    """As a socket unit does it: whoever connects while the daemon is away waits for the next."""
    host.environment()
    host.socket.parent.mkdir()
    command = [sys.executable, "-c", ACTIVATE, str(host.program("snapd")), "--listen", ""]
    process = subprocess.Popen(
        [*command, "--store", store], env=host.environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "listening\n"
        done = host.snapctl("pull", "--id", pushed, "--store", store)
        assert done.code == 0, done.stderr
        assert host.snapctl("status", "--json").document["pid"] == process.pid
    finally:
        process.terminate()
        assert process.wait(READY_SECONDS) == 0
        process.stdout.close()
    assert host.socket.is_socket()


def test_a_socket_of_another_path_is_refused(host: Host, store: str, tmp_path: Path) -> None:
    host.environment()
    host.socket.parent.mkdir()
    command = [sys.executable, "-c", ACTIVATE, str(host.program("snapd")), "--listen", ""]
    refused = host.command(*command, "--store", store, "--socket", str(tmp_path / "other" / "s"))
    assert refused.code == 2
    assert str(host.socket) in refused.stderr
    assert "ListenStream" in refused.stderr
