from __future__ import annotations

import io
import json
from contextlib import suppress
from typing import Any

import pytest

from snapctl.output import Output
from snapctl.progress import (
    LiveMeter,
    PlainMeter,
    PullProgress,
    Watchdog,
    describe,
    follow,
    meter_of,
    pull_progress,
    seconds_taken,
)
from snapd.model.errors import ActionFailed, NoSpace, Stalled
from snapd.model.jobs import JobView
from tests.unit.snapctl.scripted import view


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def seen(state: str = "fetching", **changes: Any) -> JobView:
    return JobView.from_json(view(state, **changes))


def test_what_a_running_pull_is_described_as() -> None:
    text = describe(
        seen(
            bytes_total=12 * 1024**2,
            bytes_cached=1024**2,
            bytes_fetched=2 * 1024**2,
            objects_total=200,
            objects_cached=4,
            objects_fetched=30,
            bytes_per_second=5.5 * 1024**2,
            eta_seconds=1.63,
            retries=2,
        )
    )
    assert text == (
        "fetching 3.0 MiB of 12.0 MiB, 5.5 MiB/s, 1.6s left, 34 of 200 objects, 2 retries,"
        " from s3://bucket/prefix"
    )


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (seen("queued", queue_position=3), "queued, number 3 in the queue"),
        (seen("queued"), "queued"),
        (
            seen("reading_manifest", bytes_total=0, objects_total=0),
            "reading manifest, from s3://bucket/prefix",
        ),
        (
            seen("done"),
            "done in 2.5s: fetched 75 B (3 objects), had 25 B (1 objects)",
        ),
        (seen("failed"), "failed"),
        (seen("cancelled"), "cancelled"),
    ],
)
def test_descriptions(found: JobView, text: str) -> None:
    assert describe(found) == text


def test_time_taken_counts_from_acceptance() -> None:
    assert seconds_taken(seen("done")) == 2.5
    assert seconds_taken(seen()) == 0.0
    assert seconds_taken(seen("done", ended_at=9.0)) == 0.0


def test_plain_lines_come_at_the_start_every_five_seconds_and_at_the_end() -> None:
    stderr, clock = io.StringIO(), Clock()
    output = Output(io.StringIO(), stderr)
    lines = PullProgress(output, PlainMeter(output, clock), Watchdog(None, Clock()))
    due: list[float] = []
    for step in range(24):
        clock.now = 100.0 + step / 2
        before = len(stderr.getvalue())
        lines.update(seen("done") if step == 23 else seen())
        if len(stderr.getvalue()) > before:
            due.append(step / 2)
    assert due == [0.0, 5.0, 10.0, 11.5]
    assert stderr.getvalue().splitlines()[-1].startswith("pull aaaaaaaaaaaa: done in")


def test_events_are_the_views_on_stdout_and_nothing_else() -> None:
    stdout, stderr = io.StringIO(), io.StringIO()
    output = Output(stdout, stderr, events=True)
    with pull_progress(output, Clock()) as progress:
        follow([seen(), seen("done")], progress)
    states = [json.loads(line)["state"] for line in stdout.getvalue().splitlines()]
    assert states == ["fetching", "done"]
    assert stderr.getvalue() == ""


def test_quiet_shows_nothing() -> None:
    stdout, stderr = io.StringIO(), Terminal()
    with pull_progress(Output(stdout, stderr, quiet=True), Clock()) as progress:
        follow([seen(), seen("done")], progress)
    assert stdout.getvalue() + stderr.getvalue() == ""


def test_a_terminal_gets_a_live_bar_with_the_same_words() -> None:
    stdout, stderr = io.StringIO(), Terminal()
    output = Output(stdout, stderr, environment={"TERM": "xterm", "COLUMNS": "80"})
    with pull_progress(output, Clock()) as progress:
        follow([seen("queued", bytes_total=0), seen(), seen("done")], progress)
    text = stderr.getvalue()
    assert "\x1b[?25h" in text.rpartition("\x1b[?25l")[2], "the cursor is shown again"
    assert "fetched 75 B (3 objects), had 25 B (1 objects)" in text
    assert stdout.getvalue() == ""


def test_work_without_a_size_is_whole_when_it_is_over() -> None:
    stderr = Terminal()
    output = Output(io.StringIO(), stderr, environment={"TERM": "xterm", "COLUMNS": "80"})
    with meter_of(output, Clock()) as meter:
        assert isinstance(meter, LiveMeter)
        meter.show("walk", "looking")
        meter.show("walk", "found nothing", last=True)
    last_drawn = stderr.getvalue().splitlines()[-2]
    assert "━" * 16 in last_drawn
    assert "found nothing" in last_drawn


def test_the_bar_leaves_the_terminal_alone_after_a_failure() -> None:
    stderr = Terminal()
    output = Output(io.StringIO(), stderr, environment={"TERM": "xterm"})
    with suppress(KeyboardInterrupt), pull_progress(output, Clock()) as progress:
        progress.update(seen())
        raise KeyboardInterrupt
    assert stderr.getvalue().endswith("\x1b[?25h")


def test_a_dumb_terminal_gets_plain_lines() -> None:
    output = Output(io.StringIO(), Terminal(), environment={"TERM": "dumb"})
    assert isinstance(meter_of(output, Clock()), PlainMeter)


def test_following_returns_the_last_view() -> None:
    output = Output(io.StringIO(), io.StringIO(), quiet=True)
    with pull_progress(output, Clock()) as progress:
        assert follow([seen(), seen("done")], progress).tree == "/cache/trees/" + "a" * 64


def test_following_a_job_that_failed_raises_its_error() -> None:
    failed = seen("failed", error=NoSpace("the disk is full", path="/d").to_json())
    output = Output(io.StringIO(), io.StringIO(), quiet=True)
    with pull_progress(output, Clock()) as progress, pytest.raises(NoSpace) as caught:
        follow([seen(), failed], progress)
    assert caught.value.details == {"path": "/d"}


def test_following_nothing_is_a_failure() -> None:
    output = Output(io.StringIO(), io.StringIO(), quiet=True)
    with pull_progress(output, Clock()) as progress, pytest.raises(ActionFailed):
        follow([], progress)


def test_a_pull_that_does_not_get_on_is_given_up() -> None:
    clock = Clock()
    watchdog = Watchdog(60.0, clock)
    for bytes_fetched in (0, 1, 2):
        watchdog.see(seen(bytes_fetched=bytes_fetched))
        clock.now += 59.0
    watchdog.see(seen(bytes_fetched=2, retries=5, bytes_per_second=0.5))
    clock.now += 1.0
    with pytest.raises(Stalled, match="not got on for 1m"):
        watchdog.see(seen(bytes_fetched=2, retries=6))


@pytest.mark.parametrize("state", ["queued", "waiting_for_space"])
def test_waiting_for_one_s_turn_is_no_stall(state: str) -> None:
    clock = Clock()
    watchdog = Watchdog(60.0, clock)
    for _ in range(3):
        watchdog.see(seen(state))
        clock.now += 1000.0
    watchdog.see(seen())
    clock.now += 59.0
    watchdog.see(seen())


def test_nobody_watches_unless_asked() -> None:
    clock = Clock()
    watchdog = Watchdog(None, clock)
    for _ in range(3):
        watchdog.see(seen())
        clock.now += 1e6
