from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import pytest

from snapctl.__main__ import error_of
from snapd.model.errors import NoSpace
from tests.unit.snapctl.running import IN_BACKGROUND, environment_of, snapctl
from tests.unit.snapctl.scripted import Exchange, scripted_daemon, view

ID = "a" * 64
STATUS: dict[str, Any] = {
    "version": "9.9",
    "pid": 7,
    "state_directory": "/s",
    "trees_directory": "/s/trees",
    "uptime_seconds": 75.0,
    "jobs_running": 1,
    "jobs_queued": 2,
    "snapshots": 3,
    "cache_bytes": 2048,
    "disk_free_bytes": 1024**3,
    "disk_total_bytes": 2 * 1024**3,
    "stores": ["s3://a"],
    "listen": "127.0.0.1:9477",
    "seal": {"mode": "auto", "active": False, "reason": "no fs-verity"},
}


@pytest.fixture
def at(tmp_path: Path) -> Path:
    return tmp_path / "s"


def last_error(ran: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    document = json.loads(ran.stderr.splitlines()[-1])
    assert isinstance(document, dict)
    assert ran.returncode == document["exit_code"]
    return document


def test_no_verb_is_a_usage_error_with_the_overview(tmp_path: Path) -> None:
    ran = snapctl(home=tmp_path)
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert "Commands:" in ran.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["statis"],
        ["status", "--no-such"],
        ["status", "extra"],
        ["--color", "blue", "status"],
        ["pull", "--store", "s3://b"],
        ["pull", "--id", ID],
        ["pull", "--id", "xyz", "--store", "s3://b"],
        ["pull", "--id", ID, "--store", "ftp://b"],
        ["pull", "--id", ID, "--store", "s3://"],
        ["pull", "--id", ID, "--store", "s3://b", "--delete"],
        ["pull", "--id", ID, "--store", "s3://b", "--mode", "copy"],
        ["pull", "--id", ID, "--store", "s3://b", "--detach", "dest"],
        ["pull", "--id", ID, "--store", "s3://b", "--timeout", "soon"],
        ["pull", "--id", ID, "--store", "s3://b", "--priority", "high"],
        ["pull", "--id", ID, "--store", "s3://b", "--standalone=maybe"],
        ["watch"],
        ["cancel"],
        ["completion", "tcsh"],
    ],
)
def test_wrong_words_exit_2_with_a_message_and_a_hint(tmp_path: Path, arguments: list[str]) -> None:
    ran = snapctl(*arguments, home=tmp_path)
    assert ran.returncode == 2, ran.stderr
    assert ran.stdout == ""
    said, hint = ran.stderr.splitlines()[-2:]
    assert said.startswith("snapctl: ")
    assert hint.startswith("hint: ")


def test_a_usage_error_under_json_is_one_json_line(tmp_path: Path) -> None:
    error = last_error(snapctl("status", "--no-such", "--json", home=tmp_path))
    assert error["code"] == "usage"
    assert "--no-such" in error["message"]
    assert "snapctl status --help" in error["hint"]


def test_help_and_version_are_results(tmp_path: Path) -> None:
    for arguments in (["--help"], ["status", "-h"], ["version"], ["cache", "ls", "--help"]):
        ran = snapctl(*arguments, home=tmp_path)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert "snapctl" in ran.stdout


@pytest.mark.parametrize("where", ["before", "after", "variable"])
def test_the_socket_and_json_are_taken_before_and_after_the_verb(
    tmp_path: Path, at: Path, where: str
) -> None:
    options = ["--json", "--socket", str(at)]
    elsewhere = {"SNAPSYNC_SOCKET": str(tmp_path / "elsewhere")}
    with scripted_daemon(at, {("GET", "/v1/status"): lambda it: it.reply(200, STATUS)}):
        if where == "before":
            ran = snapctl(*options, "status", home=tmp_path, extra=elsewhere)
        elif where == "after":
            ran = snapctl("status", *options, home=tmp_path, extra=elsewhere)
        else:
            ran = snapctl("status", "--json", home=tmp_path, extra={"SNAPSYNC_SOCKET": str(at)})
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == STATUS


def test_no_daemon_is_exit_14_naming_the_socket(tmp_path: Path, at: Path) -> None:
    for verb in (["status"], ["jobs"], ["cache", "ls"], ["watch", "j"], ["cancel", "j"]):
        ran = snapctl(*verb, "--json", "--socket", str(at), home=tmp_path)
        error = last_error(ran)
        assert (error["code"], error["exit_code"]) == ("daemon_not_running", 14)
        assert str(at) in error["message"]


def test_an_error_of_the_daemon_decides_the_exit_code(tmp_path: Path, at: Path) -> None:
    full = NoSpace("the disk is full", path="/s")
    with scripted_daemon(at, {("GET", "/v1/jobs"): lambda it: it.reply(507, full.to_json())}):
        ran = snapctl("jobs", "--json", "--socket", str(at), home=tmp_path)
    assert last_error(ran) == full.to_json()


def test_an_unexpected_error_is_short_unless_more_is_asked_for(tmp_path: Path, at: Path) -> None:
    scripts = {("GET", "/v1/status"): lambda it: it.reply(200, {"no": "status"})}
    with scripted_daemon(at, scripts):
        short = snapctl("status", "--socket", str(at), home=tmp_path)
        long = snapctl("status", "--verbose", "--socket", str(at), home=tmp_path)
        debug = snapctl("status", "--socket", str(at), home=tmp_path, extra={"SNAPSYNC_DEBUG": "1"})
    assert short.returncode == long.returncode == debug.returncode == 1
    assert "unexpected KeyError" in short.stderr
    assert "Traceback" not in short.stderr
    assert "Traceback" in long.stderr
    assert "Traceback" in debug.stderr


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (NoSpace("full"), 11),
        (BaseExceptionGroup("two", [ExceptionGroup("one", [NoSpace("full")])]), 11),
        (KeyboardInterrupt(), 130),
        (BaseExceptionGroup("one", [KeyboardInterrupt()]), 130),
        (click.Abort(), 130),
        (click.BadParameter("no"), 2),
        (OSError("disk"), 1),
    ],
)
def test_whatever_ends_a_command_has_an_exit_code(failure: BaseException, code: int) -> None:
    assert error_of(failure).exit_code == code


def test_a_reader_that_goes_away_is_no_story(tmp_path: Path, at: Path) -> None:
    jobs = {"jobs": [view(job_id=f"job{number}") for number in range(5000)]}
    with scripted_daemon(at, {("GET", "/v1/jobs"): lambda it: it.reply(200, jobs)}):
        ran = subprocess.run(
            f"{sys.executable} -m snapctl jobs --socket {at} | head -n 1",
            shell=True,
            env=environment_of(tmp_path),
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.stdout.startswith("JOB")
    assert ran.stderr == ""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_can_not_be_written_fails_in_words(tmp_path: Path, unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "snapctl", "version", "--json"],
            env=environment_of(tmp_path, {"PYTHONUNBUFFERED": unbuffered}),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    error = json.loads(ran.stderr)
    assert (ran.returncode, error["code"]) == (1, "failed")
    assert "No space left" in error["message"]


@pytest.mark.parametrize(
    ("number", "in_background"),
    [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)],
)
def test_a_signal_leaves_the_pull_and_exits_130(
    tmp_path: Path, at: Path, number: signal.Signals, in_background: bool
) -> None:
    def hold(it: Exchange) -> None:
        it.begin_stream()
        it.send_line(view())
        it.wait_until_left()

    with scripted_daemon(at, {("POST", "/v1/pulls"): hold}) as daemon:
        pull = [sys.executable, "-m", "snapctl", "pull", "--id", ID, "--store", "s3://b/p"]
        with subprocess.Popen(
            [*(IN_BACKGROUND if in_background else ()), *pull, "--socket", str(at)],
            env=environment_of(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr is not None
            assert "fetching" in process.stderr.readline()
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        assert daemon.left.wait(60)
    assert process.returncode == 130
    assert out == ""
    assert "goes on only if others wait" in err
    assert "Traceback" not in err


def all_of(terminal: int) -> str:
    """Read what was written to a terminal that everybody has closed: it may come in pieces."""
    said = b""
    with suppress(OSError):
        while piece := os.read(terminal, 65536):
            said += piece
    return said.decode()


def test_a_terminal_gets_a_bar_and_the_path_stays_alone_on_stdout(tmp_path: Path, at: Path) -> None:
    scripts = {("POST", "/v1/pulls"): lambda it: it.stream(view(), view("done"))}
    outer, inner = pty.openpty()
    with scripted_daemon(at, scripts):
        ran = subprocess.run(
            [sys.executable, "-m", "snapctl", "pull", "--id", ID, "--store", "s3://b/p"],
            env=environment_of(tmp_path, {"SNAPSYNC_SOCKET": str(at), "TERM": "xterm"}),
            stdout=subprocess.PIPE,
            stderr=inner,
            text=True,
            check=False,
        )
    os.close(inner)
    drawn = all_of(outer)
    os.close(outer)
    assert ran.returncode == 0
    assert ran.stdout == f"/cache/trees/{ID}\n"
    assert "\x1b[?25l" in drawn
    assert "fetched 75 B" in drawn


def test_streams_that_were_closed_are_no_defect(tmp_path: Path) -> None:
    words = f"{sys.executable} -m snapctl version"
    for closed in (">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"):
        ran = subprocess.run(
            ["sh", "-c", f"{words} {closed}"],
            env=environment_of(tmp_path),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.returncode, ran.stderr) == (0, ""), closed


@pytest.mark.parametrize("words", [("checkout",), ("pull", "--store", "file:///s")])
def test_an_empty_destination_is_not_the_working_directory(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    ran = snapctl(*words, "--id", "a" * 64, "", home=tmp_path)
    assert ran.returncode == 2
    assert "it is empty; say . for the working directory" in ran.stderr
