"""`snapctl status`: how long a person or a probe waits for a new process's answer."""

from __future__ import annotations

import math

from benchmarks.compare import Rounds, compare
from benchmarks.daemons import BIN, client_environment, running_daemon
from benchmarks.measure import run
from benchmarks.results import Result, below
from benchmarks.workshop import Workshop

RUNS = 20
LIMIT_MILLISECONDS = 100


def measure(workshop: Workshop) -> Result:
    """Ask an idle daemon twenty times, each time by a new process."""
    title = "cold start of `snapctl status`"
    command = [str(BIN / "snapctl"), "status"]
    with workshop.row_room() as room:
        environment = client_environment(room, "http://127.0.0.1:9")
        with running_daemon(room, environment):
            tools = {"ours": lambda: run(command, environment, log=room / "status.log")}
            samples = compare(title, Rounds(RUNS, math.inf), tools)
    result = Result(title, samples)
    milliseconds = 1000 * samples["ours"].wall_seconds
    result.verdicts = [below(title, milliseconds, LIMIT_MILLISECONDS, "ms", 0)]
    return result
