"""A bad model reaches production, and `snapctl model rollback` takes it back on every node.

    python -m demo.rollback [ROUNDS]

A real S3 server, three daemons that follow `iris_clf@production` at a 5 s poll, two versions.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from demo.drill import Round, await_live, timed
from demo.stage import BIN, metrics_of, run, running_daemon, say
from tests.servers.seaweed import running_seaweed

NODES = 3
POLL = "5s"
ROUNDS = 10
WEIGHTS_BYTES = 8 * 1024 * 1024
REFERENCE = "iris_clf@production"


def main() -> None:
    """Show the drill once in full, then measure it some more times."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="snapsync-drill-") as scratch, ExitStack() as stack:
        root = Path(scratch)
        say(f"Starting a real S3 server (SeaweedFS) and {NODES} node daemons that follow a model")
        seaweed = stack.enter_context(running_seaweed(root / "s3"))
        store = f"s3://{seaweed.make_bucket('drill')}/models"
        environment = {
            **os.environ,
            **seaweed.environment(),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "SNAPSYNC_STORE": store,
            "XDG_CACHE_HOME": str(root / "xdg-cache"),
            "PWD": str(root),
        }
        nodes = [
            Node(root / f"node-{number}", environment, store) for number in range(1, NODES + 1)
        ]
        urls = [stack.enter_context(node.running()) for node in nodes]
        drill(root, environment, nodes, urls, rounds)
    say(f"Everything is stopped and removed again ({time.monotonic() - started:.0f} s in all)")


class Node:
    """One machine of the cluster: a state directory, a socket, a place where the model is live."""

    def __init__(self, root: Path, environment: dict[str, str], store: str) -> None:
        self.root = root
        self.dest = root / "models" / "iris_clf"
        self.dest.parent.mkdir(parents=True)
        self.environment = {
            **environment,
            "SNAPSYNC_SOCKET": str(root / "snapd.sock"),
            "SNAPSYNC_CACHE_DIR": str(root / "cache"),
        }
        (root / "snapd.toml").write_text(
            f'[daemon]\nlisten = "127.0.0.1:0"\nstores = ["{store}"]\n\n'
            f'[[follow]]\nref = "{REFERENCE}"\ndest = "{self.dest}"\npoll_seconds = "{POLL}"\n',
            encoding="utf-8",
        )

    def running(self) -> AbstractContextManager[str]:
        """Run the node's daemon; gives the URL of its metrics."""
        return running_daemon(self.root, self.environment)

    def status(self) -> str:
        """Show what the node follows, as a person sees it."""
        return run(self.environment, "snapctl", "follow", "status")


def drill(
    root: Path, environment: dict[str, str], nodes: list[Node], urls: list[str], rounds: int
) -> None:
    """Promote a good version, then a bad one, and roll back; then the same again and again."""
    dests = [node.dest for node in nodes]
    say("Two versions of a model; v0.1.0 goes to production, and every node serves it")
    good = publish(root, environment, "v0.1.0", "accuracy=0.93")
    bad = publish(root, environment, "v0.2.0", "accuracy=0.41")
    promote(environment, "v0.1.0", "passed review")
    await_live(dests, good)
    nodes[0].status()
    say("A bad promotion: v0.2.0 is everywhere within seconds, too")
    promote(environment, "v0.2.0", "looked fine to me")
    await_live(dests, bad)
    show_follow(urls)
    say("Roll back: v0.1.0 is in every node's cache still, so nothing is downloaded")
    results = [timed(dests, good, lambda: roll_back(environment))]
    show_round(1, results[0])
    say("What the nodes say, and who did what and why")
    nodes[0].status()
    show_follow(urls)
    run(environment, "snapctl", "model", "history", "iris_clf", "--limit", "4")
    say(f"The same {rounds - 1} more times, at any moment between two polls")
    for number in range(2, rounds + 1):
        promote(environment, "v0.2.0", "again", quiet=True)
        await_live(dests, bad)
        time.sleep(random.uniform(0, 5))
        results.append(timed(dests, good, lambda: roll_back(environment, quiet=True)))
        show_round(number, results[-1])
    say(f"From the command to the last of {NODES} nodes, at a {POLL} poll, {rounds} rounds")
    last = [each.last_seconds for each in results]
    every = [seconds for each in results for seconds in each.switched_seconds]
    for what, seconds in (("last node", last), ("each node", every)):
        print(
            f"{what}: min {min(seconds):.2f} s, median {statistics.median(seconds):.2f} s,"
            f" max {max(seconds):.2f} s"
        )
    commands = [each.command_seconds for each in results]
    print(f"the command itself: median {statistics.median(commands):.2f} s (within these times)")


def publish(root: Path, environment: dict[str, str], version: str, metric: str) -> str:
    """Push a model and add it as a version; gives its ID."""
    source = root / f"iris_clf-{version}"
    source.mkdir()
    (source / "weights.bin").write_bytes(random.Random(version).randbytes(WEIGHTS_BYTES))
    (source / "config.json").write_text(f'{{"version": "{version}"}}\n', encoding="utf-8")
    name = f"iris_clf@{version}"
    pushed = run(environment, "snapctl", "push", source.name, "--quiet")
    run(environment, "snapctl", "model", "add", name, "--id", pushed, "--metric", metric)
    return pushed


def promote(environment: dict[str, str], version: str, note: str, *, quiet: bool = False) -> None:
    """Put a version into production."""
    words = ("model", "promote", f"iris_clf@{version}", "--to", "production", "--note", note)
    run(environment, "snapctl", *words, quiet=quiet)


def roll_back(environment: dict[str, str], *, quiet: bool = False) -> None:
    """Take back what is in production."""
    words = ("model", "rollback", "iris_clf", "--note", "accuracy fell", "--by", "ann@example.org")
    run(environment, "snapctl", *words, quiet=quiet)


def show_round(number: int, result: Round) -> None:
    """Print when each node had switched."""
    each = ", ".join(f"{seconds:.2f}" for seconds in result.switched_seconds)
    print(
        f"round {number}: nodes switched after {each} s; the command took"
        f" {result.command_seconds:.2f} s",
        flush=True,
    )


def show_follow(urls: list[str]) -> None:
    """Print what Prometheus is told of what is live where."""
    for number, url in enumerate(urls, start=1):
        for line in metrics_of(url):
            if line.startswith(("snapd_follow_info{", "snapd_follow_behind_seconds{")):
                print(f"node {number}: {line}")


if __name__ == "__main__":
    main()
