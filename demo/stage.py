"""What the demos share: the installed commands, a daemon of one's own, lines that tell a story."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BIN = Path(sys.executable).parent
READY_SECONDS = 30.0


@contextmanager
def running_daemon(root: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run snapd until the end of the block; give the URL of its metrics."""
    command = [str(BIN / "snapd"), "--config", str(root / "snapd.toml")]
    with (root / "snapd.log").open("wb") as log:
        daemon = subprocess.Popen(command, env=environment, cwd=root, stderr=log)
    try:
        listen = wait_until_ready(root, environment, daemon)
        yield f"http://{listen}/metrics"
    finally:
        daemon.terminate()
        daemon.wait(timeout=READY_SECONDS)


def wait_until_ready(
    root: Path, environment: dict[str, str], daemon: subprocess.Popen[bytes]
) -> str:
    """Ask for the daemon's status until it answers; give the address of its TCP side."""
    deadline = time.monotonic() + READY_SECONDS
    while daemon.poll() is None and time.monotonic() < deadline:
        asked = subprocess.run(
            [str(BIN / "snapctl"), "status", "--json"],
            env=environment,
            capture_output=True,
            check=False,
        )
        if asked.returncode == 0:
            return str(json.loads(asked.stdout)["listen"])
        time.sleep(0.1)
    raise SystemExit(f"snapd did not start:\n{(root / 'snapd.log').read_text(encoding='utf-8')}")


def run(environment: dict[str, str], *command: str, quiet: bool = False) -> str:
    """Run one command of the tour as a user would, and show it with its output."""
    print(in_color("1", f"$ {shlex.join(command)}"), flush=True)
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]],
        env=environment,
        cwd=environment["PWD"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} ended with exit code {done.returncode}")
    if not quiet and done.stdout:
        print(done.stdout, end="", flush=True)
    return done.stdout.strip()


def metrics_of(url: str) -> list[str]:
    """Read what Prometheus would."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode()).splitlines()


def say(text: str) -> None:
    """Tell what happens next."""
    print("\n" + in_color("36", f"# {text}"), flush=True)


def in_color(code: str, text: str) -> str:
    """Color a line on a terminal only."""
    return f"\033[{code}m{text}\033[0m" if sys.stdout.isatty() else text
