"""Those who pull: ours through the daemon and without it, the real snapdir, s5cmd, a C program.

Each starts cold (an empty cache, on the same file system) and is done when the files lie in a
usable directory. What is not the tool's work (starting our daemon, writing lists of keys, making
the directories of s5cmd and of the C program) is not timed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.daemons import BIN, Daemon, client_environment, running_daemon
from benchmarks.measure import Figures, cpu_seconds_of, peak_rss_bytes_of, run
from benchmarks.server import HTTP, Wire
from snapd.model.layout import object_key
from snapd.model.manifest import Manifest

OURS = "ours, daemon"
STANDALONE = "ours, standalone"
SNAPDIR = "snapdir"
S5CMD = "s5cmd"
FLOOR = "C floor"

S5CMD_WORKERS, S5CMD_WORKERS_LATE = 64, 256
FLOOR_CONNECTIONS, FLOOR_CONNECTIONS_LATE = 8, 512

SNAPDIR_PULL = """
import asyncio, sys, snapdir
async def main(snapshot_id, store, dest):
    await snapdir.fetch(snapdir.SnapshotId(snapshot_id), snapdir.StoreUri(store))
    await snapdir.checkout(snapdir.SnapshotId(snapshot_id), dest)
asyncio.run(main(*sys.argv[1:]))
print("BENCH-OK", flush=True)
"""


@dataclass(frozen=True)
class Task:
    """What is to be pulled, from where and how, and where there is room."""

    manifest: Manifest
    endpoint: str
    bucket: str
    scratch: Path
    floor: Path
    wire: Wire = HTTP
    ca_file: Path | None = None

    @property
    def store(self) -> str:
        return f"s3://{self.bucket}"

    def environment(self) -> dict[str, str]:
        return client_environment(self.scratch, self.endpoint, self.ca_file)

    @contextmanager
    def daemon(self) -> Iterator[Daemon]:
        """Run a daemon with an empty cache."""
        with running_daemon(self.scratch, self.environment()) as daemon:
            yield daemon


def through_the_daemon(task: Task) -> Figures:
    """`snapctl pull` with a fresh daemon: CPU of both, the larger resident set."""
    with task.daemon() as daemon:
        return pulled(task, daemon)


def pulled(task: Task, daemon: Daemon) -> Figures:
    """Pull through a daemon that runs already."""
    before = cpu_seconds_of(daemon.process_id)
    figures = run(_pull(task), daemon.environment, log=task.scratch / "ours.log")
    after = cpu_seconds_of(daemon.process_id)
    return figures.plus(after - before, peak_rss_bytes_of(daemon.process_id))


def standalone(task: Task) -> Figures:
    """`snapctl pull --standalone`: the same engine in one process."""
    command = [*_pull(task), "--standalone"]
    return run(command, task.environment(), log=task.scratch / "standalone.log")


def snapdir(task: Task) -> Figures:
    """The reference tool: fetch into its cache, then check out."""
    command = [sys.executable, "-c", SNAPDIR_PULL, task.manifest.id, task.store]
    command.append(str(task.scratch / "snapdir-checkout"))
    return run(command, task.environment(), log=task.scratch / "snapdir.log")


def s5cmd(task: Task) -> Figures:
    """A fast S3 client that does not hash: one `cp` a path, many at a time."""
    target = _with_directories(task, "s5cmd-files")
    commands = task.scratch / "s5cmd.txt"
    with commands.open("w", encoding="utf-8") as file:
        for key, _, path in _objects(task.manifest):
            file.write(f"cp {task.store}/{key} {target / path}\n")
    workers = S5CMD_WORKERS_LATE if task.wire.delay_seconds else S5CMD_WORKERS
    command = [str(BIN / "s5cmd"), "--log", "error", "--numworkers", str(workers)]
    command += ["--endpoint-url", task.endpoint, "run", str(commands)]
    return run(command, task.environment(), log=task.scratch / "s5cmd.log")


def floor(task: Task) -> Figures:
    """The C program: keep-alive requests, hash, compare, write."""
    target = _with_directories(task, "floor-files")
    wanted = task.scratch / "floor.txt"
    with wanted.open("w", encoding="utf-8") as file:
        for key, digest, path in _objects(task.manifest):
            file.write(f"{key} {digest} {path}\n")
    address = urlsplit(task.endpoint)
    connections = FLOOR_CONNECTIONS_LATE if task.wire.delay_seconds else FLOOR_CONNECTIONS
    command = [str(task.floor), str(address.hostname), str(address.port), str(task.ca_file or "-")]
    command += [task.bucket, str(wanted), str(target), str(connections)]
    return run(command, {"PATH": os.environ["PATH"]}, log=task.scratch / "floor.log")


CONTENDERS = {
    OURS: through_the_daemon,
    STANDALONE: standalone,
    SNAPDIR: snapdir,
    S5CMD: s5cmd,
    FLOOR: floor,
}


def _pull(task: Task) -> list[str]:
    return [str(BIN / "snapctl"), "pull", "--id", task.manifest.id, "--store", task.store]


def _objects(manifest: Manifest) -> Iterator[tuple[str, str, str]]:
    """Give key, digest and path of every file."""
    for entry in manifest:
        if entry.kind == "F":
            yield object_key(entry.checksum), entry.checksum, entry.path.removeprefix("./")


def _with_directories(task: Task, name: str) -> Path:
    target = task.scratch / name
    for entry in task.manifest:
        if entry.kind == "D":
            (target / entry.path.removeprefix("./")).mkdir(parents=True, exist_ok=True)
    return target
