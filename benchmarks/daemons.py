"""Our daemon, run for a measurement: empty cache, a user's environment, started in full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import KEPT_CHARACTERS, Failed, cpu_seconds_of

BIN = Path(sys.executable).parent
READY_SECONDS = 30.0
REST_SECONDS = 0.3
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "benchmark", "AWS_SECRET_ACCESS_KEY": "benchmark"}


@dataclass(frozen=True)
class Daemon:
    """A running daemon, and the environment in which `snapctl` finds it."""

    process_id: int
    environment: dict[str, str]
    state: Path
    log: Path


def client_environment(
    scratch: Path,
    endpoint: str,
    ca_file: Path | None = None,
    credentials: Mapping[str, str] = CREDENTIALS,
) -> dict[str, str]:
    """Give what any of the tools needs to reach a store, and a home and caches of its own.

    Ours and s5cmd trust `AWS_CA_BUNDLE`, snapdir `SSL_CERT_FILE`.
    """
    home = scratch / "home"
    home.mkdir(parents=True, exist_ok=True)
    trusted = {} if ca_file is None else dict.fromkeys(("AWS_CA_BUNDLE", "SSL_CERT_FILE"), ca_file)
    return {
        **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
        **{name: str(value) for name, value in trusted.items()},
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_RUNTIME_DIR": str(home),
        "SNAPSYNC_SOCKET": str(scratch / "snapd.sock"),
        "SNAPSYNC_CACHE_DIR": str(scratch / "state"),
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_EC2_METADATA_DISABLED": "true",
        "SNAPDIR_S3_STORE_ENDPOINT_URL": endpoint,
        **credentials,
    }


@contextmanager
def running_daemon(scratch: Path, environment: dict[str, str], *arguments: str) -> Iterator[Daemon]:
    """Run `snapd` with its cache below `scratch` until the end of the block.

    The block begins when the daemon has started in full, as one that has run for days has: it
    answers, and its transfer processes have nothing left to load.
    """
    command = [str(BIN / "snapd"), "--store", "*", "--listen", "", *arguments]
    log = scratch / "snapd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stderr=output)
    try:
        _wait(environment, process, log)
        _await_rest(process)
        yield Daemon(process.pid, environment, scratch / "state", log)
    finally:
        process.terminate()
        process.wait(timeout=READY_SECONDS)


def _await_rest(process: subprocess.Popen[bytes]) -> None:
    """Wait until a process and its children have used no processor for a moment."""
    deadline = time.monotonic() + READY_SECONDS
    used_seconds = -1.0
    while (now_seconds := cpu_seconds_of(process.pid)) != used_seconds:
        if time.monotonic() > deadline:
            raise Failed("snapd has started and does not come to rest")
        used_seconds = now_seconds
        time.sleep(REST_SECONDS)
    if process.poll() is not None:
        raise Failed(f"snapd has ended with {process.returncode}")


def _wait(environment: dict[str, str], process: subprocess.Popen[bytes], log: Path) -> None:
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
    raise Failed(f"snapd did not start: {log.read_text(encoding='utf-8')[-KEPT_CHARACTERS:]}")
