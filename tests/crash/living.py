"""Real daemons and commands for crash tests: started at once, killed at a step, looked at after."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from snapctl.client import Client
from snapd.model.ids import Digest, SnapshotId
from snapd.model.jobs import JobView, PullRequest
from tests.caching import assert_sound, assert_tree
from tests.crash.nursery import PROGRAMS, Born, Nursery
from tests.e2e.installed import BIN, Host
from tests.samples import Sample
from tests.servers.faultproxy import FaultProxy

REPOSITORY = Path(__file__).parents[2]
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Doom:
    """Where a process is to die: the `time`-th time that it comes to a step."""

    step: str
    time: int


def doomed(program: str, *arguments: str, doom: Doom | None = None, note: str = "") -> list[str]:
    """Make the command line of a program that dies at a step, or notes its steps."""
    order = {
        "program": program,
        "arguments": arguments,
        "note": note,
        "step": doom.step if doom else "",
        "time": doom.time if doom else 0,
    }
    return [sys.executable, "-m", "tests.crash.doomed", json.dumps(order)]


def environment(host: Host) -> dict[str, str]:
    return host.environment({"PYTHONPATH": str(REPOSITORY)})


def launch(
    host: Host, command: Sequence[str], *, log: Path, variables: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes] | Born:
    """Start a command, or have it forked; all that it says goes into a log."""
    env = {**environment(host), **(variables or {})}
    words = command[2:] if command[:2] == [sys.executable, "-m"] else command
    program = Path(words[0]).name
    with log.open("ab") as said:
        if Living.nursery is not None and program in PROGRAMS:
            return Living.nursery.start(program, words[1:], env, host.root, said.fileno())
        return subprocess.Popen(command, env=env, cwd=host.root, stdout=said, stderr=said)


@dataclass
class Living:
    """A running daemon and a client of it."""

    host: Host
    process: subprocess.Popen[bytes] | Born

    nursery: ClassVar[Nursery | None] = None
    """Set by the fixture `forked`: programs are forked, not started."""

    @property
    def client(self) -> Client:
        return Client([str(self.host.socket)], silence_max_seconds=PATIENCE_SECONDS)

    def pull(self, snapshot_id: SnapshotId, store: str) -> JobView:
        """Pull to an end, a good or a bad one, and give the last view."""
        *_, last = self.client.pull(PullRequest(snapshot_id, store))
        return last

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def wait(self) -> int:
        return self.process.wait(timeout=PATIENCE_SECONDS)


@contextmanager
def starting(host: Host, config: str, command: Sequence[str] = ()) -> Iterator[Living]:
    """Start a daemon, which may die at any time; at the end it must be dead or stop by itself.

    Inside the block it is ready, or dead already.
    """
    host.environment()
    settings = host.root / "snapd.toml"
    settings.write_text(f'[daemon]\nstores = ["*"]\nlisten = ""\n{config}', encoding="utf-8")
    chosen = command or [str(BIN / "snapd")]
    notices = host.root / "notices"
    notices.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.bind(str(notices))
        variables = {"SNAPSYNC_CONFIG": str(settings), "NOTIFY_SOCKET": str(notices)}
        process = launch(host, chosen, log=host.root / "snapd.log", variables=variables)
        try:
            _until_ready(process, supervisor)
            yield Living(host, process)
            if process.poll() is None:
                process.terminate()
                assert process.wait(timeout=PATIENCE_SECONDS) == 0
        finally:
            process.kill()
            process.wait()


def _until_ready(process: subprocess.Popen[bytes] | Born, supervisor: socket.socket) -> None:
    ended = os.pidfd_open(process.pid)
    try:
        while True:
            told, _, _ = select.select([supervisor.fileno(), ended], [], [], PATIENCE_SECONDS)
            assert told, "the daemon is neither ready nor dead"
            if ended in told or b"READY=1" in supervisor.recv(4096):
                return
    finally:
        os.close(ended)


@dataclass(frozen=True)
class Place:
    """A store behind a counting proxy."""

    store: str
    proxy: FaultProxy

    @contextmanager
    def counting(self) -> Iterator[Counter[str]]:
        """Count the GETs of the block by the last part of their keys, objects and manifests."""
        counted: Counter[str] = Counter()
        before = len(self.proxy.seen)
        yield counted
        for seen in self.proxy.seen[before:]:
            path = seen.target.partition("?")[0]
            if seen.method == "GET" and ("/.objects/" in path or "/.manifests/" in path):
                counted["".join(path.split("/")[-4:])] += 1


def steps_in(note: Path) -> dict[str, int]:
    """Read what a noting process made: each distinct step and how often it came."""
    return dict(Counter(note.read_text(encoding="utf-8").splitlines()))


def dooms(steps: dict[str, int]) -> list[Doom]:
    """Choose where to die: each distinct step at its first time, and once in the middle."""
    chosen = [Doom(step, 1) for step in steps]
    return chosen + [Doom(step, times // 2 + 1) for step, times in steps.items() if times > 2]


def blobs_in(root: Path) -> set[Digest]:
    """List the objects at final names."""
    return {Digest(path.name.partition(".")[0]) for path in root.glob("blobs/*/*")}


def assert_whole_or_absent(living: Living, sample: Sample) -> bool:
    """Check that the daemon reports a snapshot only if it is all there; tell whether it does."""
    listed = {view.snapshot_id: view for view in living.client.snapshots()}
    if sample.id in listed:
        assert_tree(Path(listed[sample.id].tree), sample.manifest)
    return sample.id in listed


def staged_by_the_dead(root: Path) -> list[str]:
    """List what lies in staging beside one live process's empty directory."""
    found = [path for path in (root / "staging").rglob("*") if path.name != "marker"]
    return [str(path) for path in found if path.parent.name != "staging"] + [
        str(path) for path in found[1:] if path.parent.name == "staging"
    ]


def sound_after_a_crash(root: Path) -> None:
    if (root / "trees").exists() and (root / "manifests").exists():
        assert_sound(root, just_crashed=True)


def assert_killed(code: int) -> None:
    assert code in (0, -signal.SIGKILL), code
