"""What a row found: figures of every tool, and targets with what was measured beside them."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.compare import Sample, Samples


@dataclass(frozen=True)
class Verdict:
    """One target, what was measured, and whether that meets it; None: could not be measured."""

    work: str
    against: str
    measured: str
    target: str
    met: bool | None


@dataclass
class Result:
    """One row: tools and their samples, other lines for the reader, verdicts."""

    title: str
    samples: Samples = field(default_factory=dict)
    facts: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    took_seconds: float = 0.0
    failed: bool = False
    """Whether the row ended before its time: a defect of the benchmark or of ours."""


def ratio(work: str, ours: Sample, against: str, theirs: Sample, at_most: float) -> Verdict:
    """Compare median wall times: ours may take `at_most` times theirs."""
    target = f"at most {_times(at_most)}"
    if not ours.runs:
        return Verdict(work, against, "ours failed", target, met=False)
    if not theirs.runs:
        return Verdict(work, against, f"{against} failed", target, met=None)
    measured = ours.wall_seconds / theirs.wall_seconds
    return Verdict(work, against, _times(measured), target, met=measured <= at_most)


def below(work: str, measured: float, limit: float, unit: str, digits: int = 2) -> Verdict:
    """Compare a figure with what it must stay under."""
    return Verdict(
        work,
        "-",
        f"{measured:.{digits}f} {unit}",
        f"under {limit:g} {unit}",
        met=measured < limit,
    )


def unmeasured(work: str, why: str) -> Result:
    """Say that a row could not be measured here, and why."""
    return Result(work, notes=[why], verdicts=[Verdict(work, "-", "not measured", "-", met=None)])


def _times(value: float) -> str:
    """Say `0.31x (1/3.2)` for less than one, `1.42x` for more."""
    return f"{value:.2f}x" if value >= 1 else f"{value:.2f}x (1/{1 / value:.1f})"
