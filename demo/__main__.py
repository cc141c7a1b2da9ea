"""Run the tour with a real S3 server and a real daemon; nothing is left running afterwards."""

from __future__ import annotations

import json
import os
import random
import tempfile
import time
from pathlib import Path

from demo.stage import BIN, metrics_of, run, running_daemon, say
from tests.servers.seaweed import Seaweed, running_seaweed


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


def show_metrics(url: str) -> None:
    """Print the few metrics that tell the tour's story."""
    for line in metrics_of(url):
        if line.startswith(("snapd_bytes_total", "snapd_objects_total", "snapd_snapshots")):
            print(line)


if __name__ == "__main__":
    main()
