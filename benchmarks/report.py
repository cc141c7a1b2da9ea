"""The results as Markdown: targets first, then the figures behind them."""

from __future__ import annotations

from datetime import datetime

from benchmarks.compare import Sample
from benchmarks.results import Result, Verdict

MET = {True: "met", False: "**missed**", None: "-"}


def markdown(
    results: list[Result], machine: list[tuple[str, str]], now: datetime, remarks: list[str]
) -> str:
    """Write the whole report."""
    lines = [f"# Measured, {now:%Y-%m-%d %H:%M} UTC", ""]
    lines += ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in machine), ""]
    lines += [*(f"{remark}\n" for remark in remarks)]
    lines += ["## Targets", "", *_verdicts([each for one in results for each in one.verdicts]), ""]
    for result in results:
        lines += [*_section(result), ""]
    return "\n".join(lines).rstrip() + "\n"


def _verdicts(verdicts: list[Verdict]) -> list[str]:
    lines = ["| work | against | measured | target | |", "| --- | --- | --- | --- | --- |"]
    for each in verdicts:
        cells = (each.work, each.against, each.measured, each.target, MET[each.met])
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _section(result: Result) -> list[str]:
    lines = [f"## {result.title[0].upper()}{result.title[1:]}", ""]
    if result.samples:
        lines += ["| | wall s, median (min-max) | runs | times ours | CPU s | peak RSS MiB |"]
        lines += ["| --- | --- | --- | --- | --- | --- |"]
        first = next(iter(result.samples.values()))
        lines += [_row(name, sample, first) for name, sample in result.samples.items()]
        lines += [""]
    if result.facts:
        lines += ["| | |", "| --- | --- |"]
        lines += [f"| {name} | {value} |" for name, value in result.facts]
        lines += [""]
    lines += [f"{note}\n" for note in result.notes]
    lines.append(f"(This row took {result.took_seconds:.0f} s.)")
    return lines


def _row(name: str, sample: Sample, ours: Sample) -> str:
    if not sample.runs:
        return f"| {name} | failed: {_short(sample.failure)} | 0 | - | - | - |"
    walls, wall = sample.walls, sample.wall_seconds
    times = f"{wall / ours.wall_seconds:.2f}" if ours.runs else "-"
    runs = f"{len(walls)}" + (f", then failed: {_short(sample.failure)}" if sample.failure else "")
    return (
        f"| {name} | {wall:.2f} ({min(walls):.2f}-{max(walls):.2f}) | {runs} | {times} "
        f"| {sample.cpu_seconds:.2f} | {sample.peak_rss_bytes / 2**20:.0f} |"
    )


def _short(text: str) -> str:
    words = " ".join(text.split()).replace("|", "/")
    return words if len(words) <= 200 else f"{words[:80]} ... {words[-100:]}"
