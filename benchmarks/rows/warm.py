"""Warm pull: what is complete in the cache is answered without the store."""

from __future__ import annotations

import math
from pathlib import Path

from benchmarks.compare import Rounds, compare
from benchmarks.contenders import OURS, Task, pulled
from benchmarks.results import Result, Verdict, below
from benchmarks.server import serving
from benchmarks.workshop import BUCKET, Workshop

RUNS = 10
SECONDS_LIMIT = 0.3


def measure(workshop: Workshop) -> Result:
    """Pull S, then pull it again and count what the server was asked meanwhile."""
    made = workshop.made("S")
    title = "warm pull of S to the shared tree"
    with workshop.row_room() as room, workshop.run_room(room) as scratch:
        asked = room / "asked"
        with serving(workshop.served, room / "nginx", asked=asked) as endpoint:
            task = Task(made.manifest, endpoint, BUCKET, scratch, workshop.floor.program)
            with task.daemon() as daemon:
                pulled(task, daemon)
                before = _lines(asked)
                rounds = Rounds(RUNS, math.inf)
                samples = compare(title, rounds, {OURS: lambda: pulled(task, daemon)})
                requests = _lines(asked) - before
    result = Result(title, samples, [("requests to the store", str(requests))])
    verdict = Verdict(title, "-", f"{requests} requests", "0 requests", met=requests == 0)
    result.verdicts = [below(title, samples[OURS].wall_seconds, SECONDS_LIMIT, "s"), verdict]
    return result


def _lines(asked: Path) -> int:
    return len(asked.read_bytes().splitlines())
