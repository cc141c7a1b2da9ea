"""Hours in the life of a node: pulls, faults of the store, a small quota, kills; all checked.

    python -m benchmarks.soak [--minutes 60] [--seed 1]

A daemon lives for a while under callers that come and go, on a cache too small for all snapshots,
behind a proxy that fails by chance. Then it is stopped or killed, every byte at a final name is
read, and the next one begins. At the end: what happened, and how memory and descriptors grew.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import peak_rss_bytes_of
from snapd.model.errors import SnapsyncError
from snapd.model.jobs import PullRequest
from tests.caching import assert_sound, assert_tree
from tests.crash.faulty import CASES, PATIENCE
from tests.crash.living import Living, staged_by_the_dead, starting
from tests.e2e.installed import Host
from tests.samples import Sample, sample
from tests.servers.faultproxy import Fault, FaultProxy
from tests.servers.seaweed import Seaweed, running_seaweed

SNAPSHOTS = 12
CALLERS = 8
LIFE_SECONDS = 20.0
KIB = 1024
POOL = [os.urandom(20 * KIB) for _ in range(60)]
CONFIG = f"""
{PATIENCE}
[cache]
max_bytes = "4M"
min_free_bytes = 0
lease_seconds = 1.0
orphan_seconds = 5.0
sweep_interval_seconds = 2.0
[scrub]
bytes_per_second = "2M"
interval_seconds = 5.0
"""
PASSING = tuple(case for case in CASES if not case.ends_once)


@dataclass
class Tally:
    """What happened so far, and what the last daemons took."""

    events: Counter[str] = field(default_factory=Counter)
    rss_bytes: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)


def snapshots(dice: random.Random) -> list[Sample]:
    """Make snapshots that share many objects and have some of their own."""
    made = []
    for number in range(SNAPSHOTS):
        chosen = dice.sample(POOL, 25)
        files = {f"d{n % 5}/{n}": body for n, body in enumerate(chosen)}
        made.append(sample({**files, "own": b"%d" % number, "large": os.urandom(300 * KIB)}))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    dice, tally = random.Random(arguments.seed), Tally()
    made = snapshots(dice)
    until = time.monotonic() + 60 * arguments.minutes
    with tempfile.TemporaryDirectory(prefix="snapsync-soak-") as scratch:
        root = Path(scratch)
        with (
            running_seaweed(root / "seaweed") as seaweed,
            FaultProxy.running(seaweed.endpoint_url) as proxy,
        ):
            store = _upload(seaweed, made)
            host = Host(root / "host", {**seaweed.environment(), "AWS_ENDPOINT_URL_S3": proxy.url})
            while time.monotonic() < until:
                _live(host, proxy, store, made, dice, tally)
                _check(host, made)
    _report(tally)


def _upload(seaweed: Seaweed, made: list[Sample]) -> str:
    bucket = seaweed.make_bucket("soak")
    with closing(seaweed.client()) as client:
        for each in made:
            for key, body in each.keys().items():
                client.put_object(Bucket=bucket, Key=f"p/{key}", Body=body)
    return f"s3://{bucket}/p"


def _live(
    host: Host,
    proxy: FaultProxy,
    store: str,
    made: list[Sample],
    dice: random.Random,
    tally: Tally,
) -> None:
    """One life of a daemon, with callers in threads, to a clean end or a violent one."""
    with starting(host, CONFIG) as living:
        end = time.monotonic() + dice.uniform(0.2, 1.0) * LIFE_SECONDS
        callers = [
            threading.Thread(
                target=_call, args=(living, store, made, random.Random(dice.random()), end, tally)
            )
            for _ in range(CALLERS)
        ]
        for each in callers:
            each.start()
        while time.monotonic() < end:
            proxy.plan(_fault(dice))
            time.sleep(0.3)
        proxy.plan()
        tally.rss_bytes.append(peak_rss_bytes_of(living.process.pid))
        tally.descriptors.append(len(os.listdir(f"/proc/{living.process.pid}/fd")))
        if dice.random() < 0.6:
            living.kill()
            tally.events["killed"] += 1
        for each in callers:
            each.join()
    tally.events["lives"] += 1


def _fault(dice: random.Random) -> Fault:
    case = dice.choice(PASSING)
    return case.once() if dice.random() < 0.8 else case.always()


def _call(
    living: Living,
    store: str,
    made: list[Sample],
    dice: random.Random,
    end: float,
    tally: Tally,
) -> None:
    """Pull one snapshot after the other; some callers lose their patience."""
    while time.monotonic() < end and living.process.poll() is None:
        wanted = dice.choice(made)
        patience = 0.2 if dice.random() < 0.2 else 30.0
        request = PullRequest(wanted.id, store)
        try:
            *_, view = living.client.pull(request, deadline=time.monotonic() + patience)
        except SnapsyncError as error:
            tally.events[error.code] += 1
        else:
            tally.events[view.error["code"] if view.error else view.state] += 1


def _check(host: Host, made: list[Sample]) -> None:
    """Read everything between two lives, after the next daemon has put the cache in order."""
    with starting(host, "[scrub]\nbytes_per_second = 0\n[cache]\nmin_free_bytes = 0") as living:
        assert_sound(host.cache)
        assert staged_by_the_dead(host.cache) == []
        listed = {view.snapshot_id: view for view in living.client.snapshots()}
        for each in made:
            if each.id in listed:
                assert_tree(Path(listed[each.id].tree), each.manifest)


def _report(tally: Tally) -> None:
    print("| what | how often |\n| --- | --- |")
    for name, times in tally.events.most_common():
        print(f"| {name} | {times} |")
    for name, figures, unit in (
        ("peak RSS of a life", [size >> 20 for size in tally.rss_bytes], " MiB"),
        ("descriptors at its end", tally.descriptors, ""),
    ):
        print(f"| {name}, least to most | {min(figures)} to {max(figures)}{unit} |")


if __name__ == "__main__":
    main()
