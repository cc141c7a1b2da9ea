"""How an overview of a node looks in a terminal, and drawing it again and again."""

from __future__ import annotations

import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from snapd.model.errors import DaemonNotRunning, SnapsyncError, TimedOut
from snapd.model.overview import FailedPull, HeldSnapshot, Hold, Overview, RateSeries, RunningPull
from snapd.model.units import format_duration, format_size

BLOCKS = " ▁▂▃▄▅▆▇█"
CHART_ROWS = 5
_STATE_STYLES = {"ready": "green", "draining": "yellow", "starting": "yellow"}


def chart(rates: RateSeries, columns: int, rows: int = CHART_ROWS) -> list[str]:
    """Draw the latest rates as columns of eighths of a sign, the first row on top."""
    values = list(rates.bytes_per_second[-columns:])
    values = [0.0] * (columns - len(values)) + values
    peak = max([*values, 1.0])
    eighths = [round(value / peak * rows * 8) for value in values]
    return [
        "".join(BLOCKS[min(8, max(0, height - row * 8))] for height in eighths)
        for row in reversed(range(rows))
    ]


def picture(seen: Overview, *, width: int, height: int, lost: str = "") -> RenderableType:
    """Compose everything for a screen of this size; `lost` says why nothing newer is known."""
    failures = seen.failures[: max(1, height // 12)]
    left = height - 13 - 2 * len(seen.pulls[:10]) - 3 * len(failures)
    parts: list[RenderableType] = [_headline(seen, lost), _rates(seen, width), _pulls(seen)]
    if failures:
        parts.append(_failures(failures, seen.now))
    parts.append(_snapshots(seen, rows=max(3, left)))
    return Group(*parts)


def _headline(seen: Overview, lost: str) -> RenderableType:
    line = Table.grid(expand=True)
    line.add_column(no_wrap=True)
    line.add_column(justify="right", no_wrap=True)
    state = Text.assemble(
        (seen.host, "bold"),
        "  ",
        (f"● {lost or seen.state}", "red" if lost else _STATE_STYLES.get(seen.state, "red")),
    )
    quota = f" of {format_size(seen.cache_bytes_max)}" if seen.cache_bytes_max else ""
    disk = (
        f"cache {format_size(seen.cache_bytes)}{quota}, disk {format_size(seen.disk_free_bytes)}"
        f" free of {format_size(seen.disk_total_bytes)}"
    )
    line.add_row(state, Text(f"snapsync {seen.version}, up {format_duration(seen.uptime_seconds)}"))
    line.add_row(
        Text(f"{seen.pulls_running} running, {seen.pulls_queued} queued", style="dim"),
        Text(disk, style="dim"),
    )
    return line


def _rates(seen: Overview, width: int) -> RenderableType:
    rates = seen.rates.bytes_per_second
    columns = max(20, min(width - 4, 150))
    shown = rates[-columns:]
    minutes = columns * seen.rates.interval_seconds / 60
    title = (
        f"fetched: now {format_size(_rate(seen))}/s, at most "
        f"{format_size(max(shown, default=0.0))}/s in {minutes:.0f} min"
    )
    drawn = Text("\n".join(chart(seen.rates, columns)), style="cyan", no_wrap=True)
    return Panel(drawn, title=title, title_align="left", box=box.ROUNDED, border_style="dim")


def _rate(seen: Overview) -> float:
    """Tell how fast the pulls are over the last seconds, which a pause between batches leaves."""
    return sum(pull.bytes_per_second for pull in seen.pulls if pull.state == "fetching")


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        expand=True,
        pad_edge=False,
        header_style="dim",
    )


def _pulls(seen: Overview) -> RenderableType:
    if not seen.pulls:
        return Text("Nothing is being pulled.\n", style="dim")
    table = _table("Pulls")
    for name in ("snapshot", "state", "done", "", "rate", "left", "store"):
        table.add_column(name, no_wrap=True, ratio=3 if name == "store" else None)
    for pull in seen.pulls[:10]:
        table.add_row(*_pull_row(pull))
    if len(seen.pulls) > 10:
        table.caption = f"and {len(seen.pulls) - 10} more"
    return table


def _pull_row(pull: RunningPull) -> Sequence[RenderableType]:
    place = f" ({pull.queue_position})" if pull.queue_position else ""
    eta = "-" if pull.eta_seconds is None else format_duration(pull.eta_seconds)
    return (
        Text(pull.snapshot_id[:12], style="bold"),
        Text(f"{pull.state.replace('_', ' ')}{place}"),
        ProgressBar(total=max(1, pull.bytes_total), completed=pull.bytes_done, width=20),
        Text(f"{format_size(pull.bytes_done)}/{format_size(pull.bytes_total)}"),
        Text(f"{format_size(pull.bytes_per_second)}/s"),
        Text(eta),
        Text(pull.store, style="dim"),
    )


def _failures(failures: Sequence[FailedPull], now: float) -> RenderableType:
    lines: list[RenderableType] = [Text("Recent failures", style="bold")]
    for each in failures:
        ago = format_duration(max(0.0, now - each.ended_at))
        lines.append(Text.assemble((f"{ago} ago ", "dim"), (each.code, "red"), f" {each.message}"))
        lines.append(Text(f"  {each.hint}", style="dim"))
    return Group(*lines, Text())


def _snapshots(seen: Overview, *, rows: int) -> RenderableType:
    if not seen.snapshots:
        return Text("No snapshot yet.", style="dim")
    table = _table(f"Snapshots ({seen.snapshots_total})")
    for name in ("snapshot", "size", "files", "age", "used", "held by", "store"):
        right = name in ("size", "files", "age", "used")
        table.add_column(
            name,
            no_wrap=True,
            justify="right" if right else "left",
            ratio=3 if name == "store" else None,
        )
    for each in seen.snapshots[:rows]:
        table.add_row(*_snapshot_row(each, seen.now))
    hidden = seen.snapshots_total - min(rows, len(seen.snapshots))
    if hidden:
        table.caption = f"and {hidden} more"
    return table


def _snapshot_row(each: HeldSnapshot, now: float) -> Sequence[RenderableType]:
    return (
        Text(each.snapshot_id[:12], style="bold"),
        Text(format_size(each.size_bytes)),
        Text(str(each.files)),
        Text(format_duration(max(0.0, now - each.completed_at))),
        Text(format_duration(max(0.0, now - each.used_at))),
        Text(", ".join(_hold(hold, now) for hold in each.holds) or "-"),
        Text(each.store, style="dim"),
    )


def _hold(hold: Hold, now: float) -> str:
    if hold.until is not None:
        return f"given out, {format_duration(max(0.0, hold.until - now))} left"
    return f"{hold.count} {hold.kind}" if hold.count > 1 else hold.kind


def draw_for_ever(look: Callable[[], Overview], console: Console, interval_seconds: float) -> None:
    """Draw the node in place until `q` or Ctrl-C; a daemon that is away is waited for."""
    seen, lost = look(), ""
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            size = console.size
            live.update(
                picture(seen, width=size.width, height=size.height, lost=lost), refresh=True
            )
            if pressed(interval_seconds) in ("q", "Q", "\x1b"):
                return
            try:
                seen, lost = look(), ""
            except (DaemonNotRunning, TimedOut) as error:
                lost = _first_words(error)


def _first_words(error: SnapsyncError) -> str:
    return error.message.partition(":")[0][:60]


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Give a way to wait so many seconds for a key, which is empty if none came."""
    if not sys.stdin.isatty():
        yield _no_key
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([fd], [], [], seconds)
        return sys.stdin.read(1) if ready else ""

    try:
        tty.setcbreak(fd)
        yield pressed
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
