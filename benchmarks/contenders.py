"""Those who pull: ours through the daemon and without it, the real snapdir, s5cmd.

Each starts cold (an empty cache, on the same file system) and is done when the files lie in a
usable directory. What is not the tool's work (starting our daemon, writing s5cmd's list of keys) is
not timed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Figures, cpu_seconds_of, peak_rss_bytes_of, run
from snapd.model.layout import object_key
from snapd.model.manifest import Manifest

BIN = Path(sys.executable).parent
READY_SECONDS = 30.0

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
    """What is to be pulled, from where, and where there is room."""

    manifest: Manifest
    endpoint: str
    bucket: str
    scratch: Path

    @property
    def store(self) -> str:
        return f"s3://{self.bucket}"

    def environment(self) -> dict[str, str]:
        home = self.scratch / "home"
        home.mkdir(parents=True, exist_ok=True)
        return {
            **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home / "cache"),
            "XDG_RUNTIME_DIR": str(home),
            "AWS_ACCESS_KEY_ID": "benchmark",
            "AWS_SECRET_ACCESS_KEY": "benchmark",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            "SNAPDIR_S3_STORE_ENDPOINT_URL": self.endpoint,
        }


def through_the_daemon(task: Task) -> Figures:
    """`snapctl pull` with a fresh daemon: CPU of both, the larger resident set."""
    environment = task.environment()
    with _daemon(task, environment) as process_id:
        before = cpu_seconds_of(process_id)
        figures = run(_pull(task), environment, log=task.scratch / "ours.log")
        return figures.plus(cpu_seconds_of(process_id) - before, peak_rss_bytes_of(process_id))


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
    """A fast S3 client that does not hash: one `cp` a path, 64 at a time."""
    commands = task.scratch / "s5cmd.txt"
    target = task.scratch / "s5cmd-files"
    with commands.open("w", encoding="utf-8") as file:
        for entry in task.manifest:
            path = target / entry.path.removeprefix("./")
            if entry.kind == "D":
                path.mkdir(parents=True, exist_ok=True)
            else:
                file.write(f"cp {task.store}/{object_key(entry.checksum)} {path}\n")
    command = [str(BIN / "s5cmd"), "--log", "error", "--numworkers", "64"]
    command += ["--endpoint-url", task.endpoint, "run", str(commands)]
    return run(command, task.environment(), log=task.scratch / "s5cmd.log")


CONTENDERS = {
    "ours, daemon": through_the_daemon,
    "ours, standalone": standalone,
    "snapdir": snapdir,
    "s5cmd": s5cmd,
}


def _pull(task: Task) -> list[str]:
    return [str(BIN / "snapctl"), "pull", "--id", task.manifest.id, "--store", task.store]


@contextmanager
def _daemon(task: Task, environment: dict[str, str]) -> Iterator[int]:
    """Run a daemon with an empty cache; give its process ID once it answers."""
    command = [str(BIN / "snapd"), "--store", "*", "--listen", ""]
    command += ["--socket", str(task.scratch / "snapd.sock")]
    command += ["--cache-dir", str(task.scratch / "state")]
    environment["SNAPSYNC_SOCKET"] = str(task.scratch / "snapd.sock")
    with (task.scratch / "snapd.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stderr=log)
    try:
        _wait(environment, process)
        yield process.pid
    finally:
        process.terminate()
        process.wait(timeout=READY_SECONDS)


def _wait(environment: dict[str, str], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        asked = subprocess.run(
            [str(BIN / "snapctl"), "status", "--json"],
            env=environment,
            capture_output=True,
            check=False,
        )
        if asked.returncode == 0 and json.loads(asked.stdout):
            return
        time.sleep(0.05)
    raise SystemExit("snapd did not start")


def fresh(scratch: Path, *, keep_others: bool) -> Path:
    """Make an empty directory for one run; those of earlier runs stay or go."""
    if not keep_others:
        shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=scratch))
