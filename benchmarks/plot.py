"""The results as a picture: a panel for each row that compares tools, a dot for each tool."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.compare import Sample
from benchmarks.results import Result

COLUMNS = 3
PANEL_INCHES = (4.6, 1.9)
TITLE = (
    "Wall time in seconds, median and range (logarithmic; left is faster)\n"
    "* a part of the files, multiplied"
)
OURS_COLOR, PEER_COLOR = "#0b6e4f", "#5b6770"


def draw(results: list[Result], path: Path) -> None:
    """Write an SVG of the median wall times, whiskers from the fastest to the slowest run.

    The axes are logarithmic, so equal ratios are equal distances.
    """
    compared = [each for each in results if len(_shown(each)) > 1]
    if not compared:
        return
    mpl.rcParams.update({"svg.hashsalt": "snapsync", "svg.fonttype": "none", "font.size": 9})
    lines = -(-len(compared) // COLUMNS)
    figure = Figure(figsize=(PANEL_INCHES[0] * COLUMNS, PANEL_INCHES[1] * lines))
    for place, result in enumerate(compared, start=1):
        _panel(figure.add_subplot(lines, COLUMNS, place), result)
    figure.suptitle(TITLE)
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})


def _shown(result: Result) -> dict[str, Sample]:
    return {name: sample for name, sample in result.samples.items() if sample.runs}


def _panel(axes: Axes, result: Result) -> None:
    samples = _shown(result)
    for height, (name, sample) in enumerate(reversed(samples.items())):
        wall = sample.wall_seconds
        color = OURS_COLOR if name.startswith("ours") else PEER_COLOR
        axes.plot(
            [min(sample.walls), max(sample.walls)], [height, height], color=color, linewidth=2
        )
        axes.plot([wall], [height], marker="o", color=color)
        axes.annotate(
            f"{wall:.2f}", (wall, height), (0, 5), textcoords="offset points", ha="center"
        )
    axes.set_xscale("log")
    axes.set_xlim(
        min(min(each.walls) for each in samples.values()) / 2,
        max(max(each.walls) for each in samples.values()) * 2,
    )
    axes.set_ylim(-0.6, len(samples) - 0.1)
    axes.set_yticks(range(len(samples)), [_short(name) for name in reversed(samples)])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(result.title.partition(":")[0], fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", which="major", color="#dddddd")


def _short(name: str) -> str:
    return name.partition(", 1/")[0] + ("*" if ", 1/" in name else "")
