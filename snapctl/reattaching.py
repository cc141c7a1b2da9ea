"""Outlast a daemon that is stopped and started again, an upgrade say, while a command needs it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

from snapctl.progress import PullProgress, follow
from snapd.model.errors import (
    DaemonLost,
    DaemonNotRunning,
    DaemonStopping,
    SnapsyncError,
    Stalled,
    TimedOut,
    error_from_json,
)
from snapd.model.units import format_duration

if TYPE_CHECKING:
    from snapd.model.jobs import JobView

ABSENCE_MAX_SECONDS = 300.0
"""How long a daemon may be away before it is taken for gone, when no --timeout says otherwise."""
_PAUSE_FIRST_SECONDS, _PAUSE_MAX_SECONDS = 0.1, 1.0

T = TypeVar("T")


def follow_attached(
    ask: Callable[[], Generator[JobView, None, None]],
    progress: PullProgress,
    *,
    deadline: float | None = None,
) -> JobView:
    """Follow a job through the daemon and return its last view; `ask` asks for its views.

    A daemon that goes away meanwhile is waited for and asked again; what the former has verified is
    not fetched again. Raises `DaemonNotRunning` at once if there was none to begin with, and if it
    stays away for `ABSENCE_MAX_SECONDS`; `TimedOut` when `time.monotonic()` passes `deadline`; and
    whatever else ended the job.
    """
    absence = _Absence(deadline)
    met = False

    def watched() -> Iterator[JobView]:
        nonlocal met
        with closing(ask()) as views:
            for view in views:
                if view.error is not None and view.error.get("code") == DaemonStopping.code:
                    raise error_from_json(view.error)
                met = True
                absence.over()
                yield view

    while True:
        try:
            return follow(watched(), progress)
        except (DaemonNotRunning, DaemonStopping, Stalled) as away:
            if not met and not isinstance(away, DaemonStopping | DaemonLost):
                raise
            # A systemd socket takes connections that the next daemon is yet to answer.
            if isinstance(away, Stalled) and not absence.lasts:
                raise
            met = True
            absence.wait(away, progress)


def outlast(call: Callable[[], T], *, deadline: float | None = None) -> T:
    """Ask a daemon that was there a moment ago; if it is away now, wait until it is back.

    For calls that may be repeated. Raises as `follow_attached` does.
    """
    absence = _Absence(deadline)
    while True:
        try:
            return call()
        except (DaemonNotRunning, DaemonStopping) as away:
            absence.wait(away)


class _Absence:
    """How long the daemon has been away, and how long that may last."""

    def __init__(self, deadline: float | None) -> None:
        self._deadline = deadline
        self._since: float | None = None
        self._pause_seconds = _PAUSE_FIRST_SECONDS

    @property
    def lasts(self) -> bool:
        """Tell whether the daemon is away, as far as is known."""
        return self._since is not None

    def over(self) -> None:
        """The daemon is here."""
        self._since = None
        self._pause_seconds = _PAUSE_FIRST_SECONDS

    def wait(self, away: SnapsyncError, progress: PullProgress | None = None) -> None:
        """Pause before the next try; raises `away`, or `TimedOut`, when it has lasted too long."""
        now = time.monotonic()
        first = self._since is None
        if self._since is None:
            self._since = now
        lasted = now - self._since
        if self._deadline is not None and now >= self._deadline:
            raise TimedOut(
                f"the daemon went away and was not back within --timeout ({away.message})",
                hint="Look why snapd is down; then run the same command again: it resumes.",
            ) from away
        if self._deadline is None and lasted >= ABSENCE_MAX_SECONDS:
            raise away
        if progress is not None:
            said = "is stopping" if isinstance(away, DaemonStopping) else "went away"
            since = "" if first else f" (since {format_duration(lasted)})"
            progress.wait(f"the daemon {said}; waiting for the next one{since}", first=first)
        pause = self._pause_seconds
        if self._deadline is not None:
            pause = min(pause, self._deadline - now)
        time.sleep(pause)
        self._pause_seconds = min(2 * self._pause_seconds, _PAUSE_MAX_SECONDS)
