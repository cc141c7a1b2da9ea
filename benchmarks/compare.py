"""Several tools at one task, in turn: rounds in which each follows another one than before."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.measure import Failed, Figures

Measured = Callable[[], Figures]


@dataclass
class Sample:
    """What one tool did in all its rounds; `failure` says why there are no more."""

    runs: list[Figures] = field(default_factory=list)
    failure: str = ""

    @property
    def walls(self) -> list[float]:
        return [each.wall_seconds for each in self.runs]

    @property
    def wall_seconds(self) -> float:
        return statistics.median(self.walls)

    @property
    def cpu_seconds(self) -> float:
        return statistics.median(each.cpu_seconds for each in self.runs)

    @property
    def peak_rss_bytes(self) -> int:
        return max(each.peak_rss_bytes for each in self.runs)


Samples = dict[str, Sample]


@dataclass(frozen=True)
class Rounds:
    """How often each tool runs: `count` times, or less if that took it more than its budget."""

    count: int
    budget_seconds: float

    def go_on(self, sample: Sample) -> bool:
        """Tell whether one more run fits; everybody has one."""
        if sample.failure:
            return False
        spent = sum(sample.walls)
        return not sample.runs or spent + sample.walls[-1] <= self.budget_seconds


def compare(row: str, rounds: Rounds, tools: Mapping[str, Measured]) -> Samples:
    """Let every tool do its task once a round, each round beginning with another tool."""
    samples = {name: Sample() for name in tools}
    for number in range(rounds.count):
        for name in _rotated(list(tools), number):
            if rounds.go_on(samples[name]):
                _run_once(row, number, name, tools[name], samples[name])
    return samples


def _run_once(row: str, number: int, name: str, tool: Measured, sample: Sample) -> None:
    try:
        figures = tool()
    except Failed as failed:
        sample.failure = str(failed)
        told = f"failed: {failed}"
    else:
        sample.runs.append(figures)
        told = (
            f"{figures.wall_seconds:.2f} s, CPU {figures.cpu_seconds:.2f} s, "
            f"{figures.peak_rss_bytes / 2**20:.0f} MiB"
        )
    print(f"  {row} round {number + 1}: {name}: {told}", file=sys.stderr, flush=True)


def _rotated(names: list[str], by: int) -> list[str]:
    return names[by % len(names) :] + names[: by % len(names)]
