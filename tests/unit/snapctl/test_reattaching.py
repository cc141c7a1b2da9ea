from __future__ import annotations

import io
import time
from collections.abc import Callable, Generator

import pytest

from snapctl import reattaching
from snapctl.output import Output
from snapctl.progress import pull_progress
from snapctl.reattaching import follow_attached, outlast
from snapd.model.errors import (
    DaemonLost,
    DaemonNotRunning,
    DaemonStopping,
    NoSpace,
    SnapsyncError,
    Stalled,
    TimedOut,
)
from snapd.model.jobs import JobView
from tests.unit.snapctl.scripted import view

Turn = list[JobView | SnapsyncError]


def seen(state: str, **changes: object) -> JobView:
    return JobView.from_json(view(state, **changes))


STOPPED = seen("cancelled", error=DaemonStopping("stopping").to_json())


def asker(*turns: Turn) -> Callable[[], Generator[JobView, None, None]]:
    """Answer each call with the next turn, and with the last one for ever."""
    left = list(turns)

    def ask() -> Generator[JobView, None, None]:
        for each in left.pop(0) if len(left) > 1 else left[0]:
            if isinstance(each, SnapsyncError):
                raise each
            yield each

    return ask


def follow(*turns: Turn, deadline: float | None = None) -> tuple[JobView, str]:
    told = io.StringIO()
    output = Output(io.StringIO(), told)
    with pull_progress(output, time.monotonic) as progress:
        return follow_attached(asker(*turns), progress, deadline=deadline), told.getvalue()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reattaching, "_PAUSE_FIRST_SECONDS", 0.0)


@pytest.mark.parametrize(
    "gone",
    [
        [seen("fetching"), DaemonLost("cut")],
        [DaemonLost("cut before the first view")],
        [DaemonStopping("takes no new pulls")],
        [seen("fetching"), STOPPED],
    ],
)
def test_the_next_daemon_is_asked(gone: Turn) -> None:
    away: Turn = [DaemonNotRunning("no socket")]
    last, told = follow(gone, away, away, [seen("fetching"), seen("done")])
    assert last.state == "done"
    assert "waiting for the next one" in told
    assert "cancelled" not in told


def test_a_daemon_that_never_was_is_told_at_once() -> None:
    with pytest.raises(DaemonNotRunning, match="no socket"):
        follow([DaemonNotRunning("no socket")], [seen("done")])


def test_what_ends_a_pull_ends_it() -> None:
    with pytest.raises(NoSpace):
        follow([seen("failed", error=NoSpace("full").to_json())], [seen("done")])
    with pytest.raises(Stalled):
        follow([seen("fetching"), Stalled("silent")], [seen("done")])


def test_silence_counts_as_absence_only_while_the_daemon_is_away() -> None:
    silent: Turn = [Stalled("its socket unit took the connection")]
    last, _ = follow([seen("fetching"), DaemonLost("cut")], silent, [seen("done")])
    assert last.state == "done"


def test_the_timeout_bounds_the_wait() -> None:
    away: Turn = [DaemonNotRunning("no socket")]
    with pytest.raises(TimedOut, match="was not back within --timeout"):
        follow([seen("fetching"), DaemonLost("cut")], away, deadline=time.monotonic() + 0.05)


def test_without_a_timeout_it_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reattaching, "ABSENCE_MAX_SECONDS", 0.05)
    with pytest.raises(DaemonNotRunning, match="no socket"):
        follow([seen("fetching"), DaemonLost("cut")], [DaemonNotRunning("no socket")])


def test_a_call_is_made_again_until_it_is_answered() -> None:
    answers: list[SnapsyncError | int] = [DaemonNotRunning("x"), DaemonStopping("y"), 7]

    def call() -> int:
        answer = answers.pop(0)
        if isinstance(answer, SnapsyncError):
            raise answer
        return answer

    assert outlast(call) == 7
