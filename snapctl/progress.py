"""How running work is shown: a live bar on a terminal, a plain line now and then without."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from snapctl.output import Output
from snapd.model.errors import ActionFailed, Stalled, error_from_json
from snapd.model.units import format_duration, format_size

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from snapd.model.jobs import JobView

PLAIN_INTERVAL_SECONDS = 5.0


class Meter(AbstractContextManager["Meter"]):
    """Shows how far some work is; this one shows nothing."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""

    def show(
        self, name: str, text: str, *, done: int = 0, total: int | None = None, last: bool = False
    ) -> None:
        """Say how it stands: `done` of `total`, which is None while nobody knows.

        Called as often as there is news, and at least every 5 seconds; `last` says that it is over.
        """

    def hurry(self) -> None:
        """Let nothing keep what is shown next from being seen."""


class PlainMeter(Meter):
    """One line at the start, every 5 seconds, and at the end."""

    def __init__(self, output: Output, clock: Callable[[], float]) -> None:
        self._output = output
        self._clock = clock
        self._due_at = float("-inf")

    def show(
        self, name: str, text: str, *, done: int = 0, total: int | None = None, last: bool = False
    ) -> None:
        """Print a line if one is due."""
        now = self._clock()
        if now >= self._due_at or last:
            self._due_at = now + PLAIN_INTERVAL_SECONDS
            self._output.note(f"{name}: {text}")

    def hurry(self) -> None:
        """Make the next line due."""
        self._due_at = float("-inf")


class LiveMeter(Meter):
    """A bar that is drawn again in place, on stderr."""

    def __init__(self, output: Output) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        self._bar: RichProgress = Progress(
            BarColumn(bar_width=16),
            TextColumn("{task.fields[text]}", markup=False, table_column=Column(no_wrap=True)),
            console=Console(
                file=output.stderr,
                no_color=not output.has_color(output.stderr),
                highlight=False,
                _environ=output.environment,
            ),
            refresh_per_second=8,
        )
        self._task = self._bar.add_task("", total=None, text="")

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last state of the bar on the screen and show the cursor again."""
        self._bar.stop()

    def show(
        self, name: str, text: str, *, done: int = 0, total: int | None = None, last: bool = False
    ) -> None:
        """Draw it; work without a size is whole when it is over."""
        if last and not total:
            done, total = 1, 1
        self._bar.update(self._task, completed=done, total=total or None, text=text)


def meter_of(output: Output, clock: Callable[[], float]) -> Meter:
    """Choose the meter that fits where stderr goes and what the caller asked for."""
    if output.quiet or output.events:
        return Meter()
    if output.stderr.isatty() and output.environment.get("TERM") != "dumb":
        return LiveMeter(output)
    return PlainMeter(output, clock)


class Watchdog:
    """Notices a job that does not get on, whoever is to blame.

    One that waits for its turn or for room is not watched: others decide how long that takes.
    """

    def __init__(self, stall_seconds: float | None, clock: Callable[[], float]) -> None:
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._seen: tuple[object, ...] = ()
        self._since = 0.0

    def see(self, view: JobView) -> None:
        """Raise `Stalled` if nothing has changed for too long."""
        if self._stall_seconds is None:
            return
        objects, size_bytes = (
            view.objects_cached + view.objects_fetched,
            view.bytes_cached + view.bytes_fetched,
        )
        now, seen = self._clock(), (view.job_id, view.state, objects, size_bytes)
        if seen != self._seen or view.ended or view.state in ("queued", "waiting_for_space"):
            self._seen, self._since = seen, now
        elif now - self._since >= self._stall_seconds:
            raise Stalled(
                f"the pull has not got on for {format_duration(now - self._since)}"
                f" ({describe(view)})",
                hint="Look at the store and at the daemon's log; the next try goes on from here.",
            )


class PullProgress:
    """Takes the views of one job as they come: to a meter, and as events to stdout."""

    def __init__(self, output: Output, meter: Meter, watchdog: Watchdog) -> None:
        self._output = output
        self._meter = meter
        self._watchdog = watchdog
        self._name = "pull"

    def update(self, view: JobView) -> None:
        """Show how the job stands now; raises `Stalled` if it does not get on."""
        if self._output.events:
            self._output.event(view.to_json())
        self._name = f"pull {view.snapshot_id[:12]}"
        self._meter.show(
            self._name,
            describe(view),
            done=view.bytes_cached + view.bytes_fetched,
            total=view.bytes_total,
            last=view.ended,
        )
        self._watchdog.see(view)

    def wait(self, text: str, *, first: bool) -> None:
        """Show that the job can't be seen at the moment, and why."""
        if first:
            self._meter.hurry()
        self._meter.show(self._name, text)


@contextmanager
def pull_progress(
    output: Output, clock: Callable[[], float], stall_seconds: float | None = None
) -> Iterator[PullProgress]:
    """Show a pull for the length of the block, and watch it if `stall_seconds` are given."""
    with meter_of(output, clock) as meter:
        yield PullProgress(output, meter, Watchdog(stall_seconds, clock))


def follow(views: Iterable[JobView], progress: PullProgress) -> JobView:
    """Show every view and return the last one; raises the error that ended the job."""
    last: JobView | None = None
    for last in views:
        progress.update(last)
    if last is None:
        raise ActionFailed("the daemon said nothing about the pull")
    if last.error is not None:
        raise error_from_json(last.error)
    return last


def describe(view: JobView) -> str:
    """`fetching 3.0 MiB of 12.0 MiB, 5.6 MiB/s, 1.6s left, 34 of 200 objects, from s3://b/p`."""
    if view.state == "queued":
        place = f", number {view.queue_position} in the queue" if view.queue_position else ""
        return f"queued{place}"
    if view.state == "done":
        return _describe_done(view)
    if view.ended:
        return view.state
    words = [view.state.replace("_", " ")]
    present_bytes = view.bytes_cached + view.bytes_fetched
    if view.bytes_total:
        words[0] += f" {format_size(present_bytes)} of {format_size(view.bytes_total)}"
    if view.bytes_per_second:
        words.append(f"{format_size(view.bytes_per_second)}/s")
    if view.eta_seconds is not None:
        words.append(f"{format_duration(view.eta_seconds)} left")
    if view.objects_total:
        words.append(
            f"{view.objects_cached + view.objects_fetched} of {view.objects_total} objects"
        )
    if view.retries:
        words.append(f"{view.retries} retries")
    words.append(f"from {view.store}")
    return ", ".join(words)


def _describe_done(view: JobView) -> str:
    took = f" in {format_duration(seconds)}" if (seconds := seconds_taken(view)) else ""
    return (
        f"done{took}: fetched {format_size(view.bytes_fetched)} ({view.objects_fetched} objects),"
        f" had {format_size(view.bytes_cached)} ({view.objects_cached} objects)"
    )


def seconds_taken(view: JobView) -> float:
    """Tell how long an ended job took, from its acceptance on; 0 while it runs."""
    return max(0.0, view.ended_at - view.created_at) if view.ended_at is not None else 0.0
