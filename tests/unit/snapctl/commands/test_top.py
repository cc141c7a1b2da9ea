from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from snapctl.top import chart, picture
from snapd.model.overview import (
    FailedPull,
    HeldSnapshot,
    Hold,
    Overview,
    RateSeries,
    RunningPull,
)
from tests.unit.snapctl.running import snapctl
from tests.unit.snapctl.scripted import scripted_daemon

ID, OTHER = "ab" * 32, "cd" * 32
SEEN = Overview(
    version="9.9",
    host="node-7",
    state="ready",
    now=1000.0,
    uptime_seconds=75.0,
    pulls_running=1,
    pulls_queued=0,
    pulls=(
        RunningPull("j1", ID, "s3://a", "fetching", 0, 256, 1024, 1, 4, 2048.0, 9.0, 0, 2, 1.0),
    ),
    rates=RateSeries(2.0, (0.0, 512.0, 1024.0)),
    snapshots_total=1,
    snapshots=(
        HeldSnapshot(OTHER, "s3://b", 3, 4096, 900.0, 990.0, (Hold("pin", 1), Hold("process", 2))),
    ),
    failures=(FailedPull("j0", ID, "s3://c", 990.0, "no_such_snapshot", "it is gone", "Look."),),
    cache_bytes=4096,
    cache_bytes_max=8192,
    reserved_bytes=0,
    disk_free_bytes=1 << 30,
    disk_total_bytes=1 << 31,
    stores=("s3://a",),
)


def drawn(seen: Overview, *, width: int = 130, height: int = 50, lost: str = "") -> str:
    console = Console(width=width, record=True, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    with console.file:
        console.print(picture(seen, width=width, height=height, lost=lost))
    return console.export_text()


def test_everything_that_matters_is_on_the_screen() -> None:
    text = drawn(SEEN)
    for part in (
        "node-7",
        "● ready",
        "cache 4.0 KiB of 8.0 KiB, disk 1.0 GiB free of 2.0 GiB",
        "abababababab",
        "256 B/1.0 KiB",
        "2.0 KiB/s",
        "9.0s",
        "no_such_snapshot it is gone",
        "Look.",
        "pin, 2 process",
        "at most 1.0 KiB/s",
    ):
        assert part in text, part


def test_a_pause_between_two_batches_is_no_standstill() -> None:
    paused = replace(SEEN, rates=RateSeries(2.0, (1024.0, 0.0)))
    assert "fetched: now 2.0 KiB/s, at most 1.0 KiB/s" in drawn(paused)
    assert "fetched: now 0 B/s" in drawn(replace(paused, pulls=()))


def test_an_idle_node_and_a_daemon_that_is_away() -> None:
    idle = replace(
        SEEN, pulls=(), snapshots=(), snapshots_total=0, failures=(), rates=RateSeries(2.0)
    )
    text = drawn(idle, lost="the daemon closed the connection")
    assert "Nothing is being pulled." in text
    assert "No snapshot yet." in text
    assert "● the daemon closed the connection" in text


def test_a_small_screen_shows_less_and_says_so() -> None:
    many = replace(SEEN, snapshots=SEEN.snapshots * 40, snapshots_total=40)
    text = drawn(many, width=80, height=24)
    assert "and 3" in text
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize(
    ("rates", "rows"),
    [
        ((0.0, 0.0, 0.0), ["   ", "   "]),
        ((0.0, 1.0, 2.0), ["  █", " ██"]),
        ((4.0,), ["  █", "  █"]),
    ],
)
def test_a_chart_grows_from_the_right(rates: tuple[float, ...], rows: list[str]) -> None:
    assert chart(RateSeries(2.0, rates), columns=3, rows=2) == rows


def test_an_overview_travels() -> None:
    document = json.loads(json.dumps(SEEN.to_json() | {"new": 1}))
    assert Overview.from_json(document) == SEEN


def test_without_a_terminal_it_is_shown_once(tmp_path: Path) -> None:
    at = tmp_path / "s"
    answer = {("GET", "/v1/overview"): lambda it: it.reply(200, SEEN.to_json())}
    with scripted_daemon(at, answer):
        plain = snapctl("top", "--socket", str(at), home=tmp_path)
        as_json = snapctl("top", "--json", "--socket", str(at), home=tmp_path)
        hasty = snapctl("top", "--interval", "1ms", "--socket", str(at), home=tmp_path)
    assert plain.returncode == 0
    assert "node-7" in plain.stdout
    assert "\x1b" not in plain.stdout
    assert Overview.from_json(json.loads(as_json.stdout)) == SEEN
    assert hasty.returncode == 2


@pytest.mark.parametrize("ending", ["q", "interrupt"])
def test_on_a_terminal_it_is_drawn_until_somebody_ends_it(tmp_path: Path, ending: str) -> None:
    at = tmp_path / "s"
    with scripted_daemon(at, {("GET", "/v1/overview"): lambda it: it.reply(200, SEEN.to_json())}):
        ours, theirs = pty.openpty()
        command = [
            sys.executable,
            "-m",
            "snapctl",
            "top",
            "--interval",
            "200ms",
            "--socket",
            str(at),
        ]
        environment = {**os.environ, "TERM": "xterm", "HOME": str(tmp_path), "LANG": "C.UTF-8"}
        with subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        ) as process:
            os.close(theirs)
            said = b""
            while b"node-7" not in said:
                assert select.select([ours], [], [], 30)[0], said
                said += os.read(ours, 65536)
            if ending == "q":
                os.write(ours, b"q")
            else:
                process.send_signal(signal.SIGINT)
            while select.select([ours], [], [], 30)[0]:
                try:
                    said += os.read(ours, 65536)
                except OSError:
                    break
            assert process.wait(30) == 0
        os.close(ours)
    assert b"\x1b[?1049l" in said, "the screen is given back"
