"""Run the tour with a real S3 server and a real daemon; nothing is left running afterwards."""

from __future__ import annotations

import json
import os
import random
import shlex
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.seaweed import Seaweed, running_seaweed

BIN = Path(sys.executable).parent
READY_SECONDS = 30.0


def main() -> None:
    """Show the whole way once, in a temporary directory."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="snapsync-demo-") as scratch:
        root = Path(scratch)
        say("Starting a real S3 server (SeaweedFS) and the node daemon (snapd)")
        with running_seaweed(root / "s3") as seaweed:
            store = f"s3://{seaweed.make_bucket('demo')}/datasets"
            environment = prepare(root, seaweed, store)
            with running_daemon(root, environment) as metrics_url:
                tour(root, environment, store, metrics_url)
    say(f"Everything is stopped and removed again ({time.monotonic() - started:.0f} s in all)")


def tour(root: Path, environment: dict[str, str], store: str, metrics_url: str) -> None:
    """Push, pull twice, check out, compare."""
    say("A small dataset: 300 files and one of 40 MiB")
    make_dataset(root / "cats-and-dogs")
    say("Push it: the objects, then the manifest; stdout is the snapshot's ID and nothing else")
    snapshot_id = run(environment, "snapctl", "push", "cats-and-dogs", "--store", store)
    say("Pin that ID beside your hyperparameters:   data_snapshot: " + snapshot_id[:16] + "...")
    say("Pull it on a node: every byte is hashed on its way into the shared cache")
    first = pull(environment, snapshot_id, store)
    say(f"from the store: {first['bytes_fetched']:,} bytes in {first['objects_fetched']} objects")
    say("Pull it again, as the next job on this node would")
    second = pull(environment, snapshot_id, store)
    say(f"from the store: {second['bytes_fetched']} bytes; the node's one copy serves everybody")
    say("A private, writable copy for whoever needs one, and the proof that it is the same data")
    run(environment, "snapctl", "checkout", "--id", snapshot_id, "checkout")
    checkout_id = run(environment, "snapctl", "id", "checkout")
    tree_id = run(environment, "snapctl", "id", str(second["tree"]))
    if {checkout_id, tree_id} != {snapshot_id} or second["bytes_fetched"] != 0:
        raise SystemExit("the IDs differ: this should never happen")
    say("pushed = shared tree = checkout: the three IDs are equal")
    run(environment, "snapctl", "cache", "ls")
    say("What Prometheus sees")
    show_metrics(metrics_url)
    say("Where to look next: README.md, `snapctl --help`, config.example.toml, docs/")


def prepare(root: Path, seaweed: Seaweed, store: str) -> dict[str, str]:
    """Write the daemon's configuration; give the environment of every command of the tour."""
    (root / "snapd.toml").write_text(
        f'[daemon]\nlisten = "127.0.0.1:0"\nstores = ["{store}"]\n', encoding="utf-8"
    )
    return {
        **os.environ,
        **seaweed.environment(),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "SNAPSYNC_SOCKET": str(root / "snapd.sock"),
        "SNAPSYNC_CACHE_DIR": str(root / "cache"),
        "XDG_CACHE_HOME": str(root / "xdg-cache"),
        "PWD": str(root),
    }


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


def make_dataset(directory: Path) -> None:
    """Write some hundred small files, two of them alike, and a large one."""
    chooser = random.Random(7)
    for kind in ("cat", "dog"):
        (directory / kind).mkdir(parents=True)
        for number in range(150):
            picture = directory / kind / f"{kind}-{number:03}.jpg"
            picture.write_bytes(chooser.randbytes(chooser.randrange(2_000, 60_000)))
    (directory / "cat" / "copy-of-000.jpg").write_bytes(
        (directory / "cat" / "cat-000.jpg").read_bytes()
    )
    (directory / "weights.bin").write_bytes(chooser.randbytes(40 * 1024 * 1024))


def pull(environment: dict[str, str], snapshot_id: str, store: str) -> dict[str, object]:
    """Pull through the daemon and give the report."""
    report = run(
        environment, "snapctl", "pull", "--id", snapshot_id, "--store", store, "--json", quiet=True
    )
    document: dict[str, object] = json.loads(report)
    print(document["tree"])
    return document


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


def show_metrics(url: str) -> None:
    """Print the few metrics that tell the tour's story."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(("snapd_bytes_total", "snapd_objects_total", "snapd_snapshots")):
                print(line)


def say(text: str) -> None:
    """Tell what happens next."""
    print("\n" + in_color("36", f"# {text}"), flush=True)


def in_color(code: str, text: str) -> str:
    """Color a line on a terminal only."""
    return f"\033[{code}m{text}\033[0m" if sys.stdout.isatty() else text


if __name__ == "__main__":
    main()
