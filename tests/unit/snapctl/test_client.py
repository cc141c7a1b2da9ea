from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from snapctl.client import Client
from snapd.model.errors import (
    AccessDenied,
    ActionFailed,
    DaemonNotRunning,
    JobNotFound,
    NoSpace,
    SnapsyncError,
    Stalled,
    StoreNotAllowed,
    TimedOut,
    UsageError,
)
from snapd.model.ids import SnapshotId
from snapd.model.jobs import PullRequest
from tests.unit.snapctl.scripted import Exchange, scripted_daemon, view

REQUEST = PullRequest(SnapshotId("a" * 64), "s3://bucket/prefix")


@pytest.fixture
def at(tmp_path: Path) -> Path:
    return tmp_path / "s"


def test_an_absent_socket_is_named(at: Path) -> None:
    with pytest.raises(DaemonNotRunning, match=str(at)):
        Client([str(at)]).status()


def test_every_absent_socket_is_named(at: Path) -> None:
    with pytest.raises(DaemonNotRunning, match=f"no socket at {at}-mine or {at}$"):
        Client([f"{at}-mine", str(at)]).status()


def test_the_first_socket_that_exists_is_used(at: Path, tmp_path: Path) -> None:
    with scripted_daemon(at, {("GET", "/v1/status"): lambda it: it.reply(200, {"pid": 1})}):
        assert Client([str(tmp_path / "no"), str(at)]).status() == {"pid": 1}


def test_a_socket_that_nobody_listens_on(at: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(at))
    with pytest.raises(DaemonNotRunning, match="nobody listens"):
        Client([str(at)]).status()


def test_a_path_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DaemonNotRunning, match="no socket"):
        Client([str(tmp_path / "file" / "s")]).status()


def test_a_path_too_long_for_a_socket() -> None:
    with pytest.raises(UsageError, match="not a socket path"):
        Client(["/" + "x" * 200]).status()


def test_a_socket_of_another_group_names_the_group(at: Path) -> None:
    script = (
        "import grp, os, socket, struct, sys\n"
        "from snapctl.client import Client\n"
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: Client([sys.argv[1]]).status()\n"
        "except Exception as error: print(error.code, error.message, error.hint)\n"
    )
    with scripted_daemon(at, {}):
        os.chmod(at, 0)
        for parent in at.parents[:-1]:
            if parent.stat().st_uid == os.getuid():
                parent.chmod(parent.stat().st_mode | 0o711)
        ran = subprocess.run(
            [sys.executable, "-c", script, str(at)], capture_output=True, text=True, check=False
        )
    assert ran.stdout.startswith("access_denied"), ran.stderr
    group = __import__("grp").getgrgid(os.getgid()).gr_name
    assert f"the group {group}" in ran.stdout
    assert str(at) in ran.stdout


def test_a_socket_directory_that_somebody_else_made(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    path = tmp_path / "s"
    with scripted_daemon(path, {("GET", "/v1/status"): lambda it: it.reply(200, {})}):
        with pytest.raises(AccessDenied, match=str(tmp_path)):
            Client([str(path)], own_directory=str(tmp_path), uid=os.getuid()).status()
        tmp_path.chmod(0o700)
        assert Client([str(path)], own_directory=str(tmp_path), uid=os.getuid()).status() == {}
        with pytest.raises(AccessDenied, match="not a directory of yours"):
            Client([str(path)], own_directory=str(tmp_path), uid=os.getuid() + 1).status()


@pytest.mark.parametrize("kind", [NoSpace, StoreNotAllowed, JobNotFound, Stalled])
def test_an_error_comes_back_as_what_it_was(at: Path, kind: type[SnapsyncError]) -> None:
    sent = kind("the reason", hint="the way out", path="/p")
    scripts = {("GET", "/v1/jobs"): lambda it: it.reply(500, sent.to_json())}
    with scripted_daemon(at, scripts), pytest.raises(kind) as caught:
        Client([str(at)]).jobs()
    assert caught.value.to_json() == sent.to_json()


def test_an_error_page_that_is_not_ours(at: Path) -> None:
    scripts = {("GET", "/v1/status"): lambda it: it.reply(503, b"<html>busy</html>")}
    with scripted_daemon(at, scripts), pytest.raises(ActionFailed, match="503"):
        Client([str(at)]).status()


@pytest.mark.parametrize("raw", [b"not json", b"\xff\xfe", b"[]"])
def test_an_answer_that_is_not_a_json_object(at: Path, raw: bytes) -> None:
    scripts = {("GET", "/v1/status"): lambda it: it.reply(200, raw)}
    with scripted_daemon(at, scripts), pytest.raises(ActionFailed, match="JSON"):
        Client([str(at)]).status()


def test_a_daemon_that_hangs_up_instead_of_answering(at: Path) -> None:
    def hang_up(it: Exchange) -> None:
        it.close_connection = True

    with (
        scripted_daemon(at, {("GET", "/v1/status"): hang_up}),
        pytest.raises(DaemonNotRunning, match="closed the connection"),
    ):
        Client([str(at)]).status()


def test_something_that_does_not_speak_http(at: Path) -> None:
    def babble(it: Exchange) -> None:
        it.wfile.write(b"SSH-2.0-nope\r\n")
        it.close_connection = True

    with (
        scripted_daemon(at, {("GET", "/v1/status"): babble}),
        pytest.raises(DaemonNotRunning, match="is no daemon"),
    ):
        Client([str(at)]).status()


def test_requests_are_as_the_api_wants_them(at: Path) -> None:
    cancelled = view("cancelled", job_id="a/b ?")
    scripts = {
        ("DELETE", "/v1/jobs/a%2Fb%20%3F"): lambda it: it.reply(200, cancelled),
        ("POST", "/v1/pulls"): lambda it: it.reply(202, view("queued")),
    }
    with scripted_daemon(at, scripts) as daemon:
        client = Client([str(at)])
        assert client.cancel("a/b ?").state == "cancelled"
        assert client.start(REQUEST).state == "queued"
    body = {"id": "a" * 64, "store": "s3://bucket/prefix", "priority": "blocking", "detach": True}
    assert daemon.requests[1] == ("POST", "/v1/pulls", body)


def test_views_arrive_until_the_one_that_ended(at: Path) -> None:
    lines = [view("queued"), None, view(), view("done"), view("queued")]
    with scripted_daemon(at, {("POST", "/v1/pulls"): lambda it: it.stream(*lines)}) as daemon:
        states = [found.state for found in Client([str(at)]).pull(REQUEST)]
    assert states == ["queued", "fetching", "done"]
    assert daemon.requests[0][2] == REQUEST.to_json()


def test_a_view_of_a_newer_daemon_is_understood(at: Path) -> None:
    scripts = {("GET", "/v1/jobs/j1/events"): lambda it: it.stream(view("done", novelty=1))}
    with scripted_daemon(at, scripts):
        assert [found.state for found in Client([str(at)]).watch("j1")] == ["done"]


def test_a_stream_that_ends_too_early(at: Path) -> None:
    with (
        scripted_daemon(at, {("POST", "/v1/pulls"): lambda it: it.stream(view())}),
        pytest.raises(DaemonNotRunning, match="before the pull ended"),
    ):
        list(Client([str(at)]).pull(REQUEST))


def test_a_stream_that_is_cut(at: Path) -> None:
    def cut(it: Exchange) -> None:
        it.begin_stream()
        it.send_line(view())
        it.close_connection = True

    with scripted_daemon(at, {("POST", "/v1/pulls"): cut}):
        views = Client([str(at)]).pull(REQUEST)
        assert next(views).state == "fetching"
        with pytest.raises(DaemonNotRunning, match="closed the connection"):
            next(views)


def test_a_line_that_is_not_json(at: Path) -> None:
    def garble(it: Exchange) -> None:
        it.begin_stream()
        it.wfile.write(b"6\r\n{oops\n\r\n")
        it.end_stream()

    with (
        scripted_daemon(at, {("POST", "/v1/pulls"): garble}),
        pytest.raises(ActionFailed, match="JSON"),
    ):
        list(Client([str(at)]).pull(REQUEST))


def _silent_after_first(it: Exchange) -> None:
    it.begin_stream()
    it.send_line(view())
    it.wait_until_left()


def test_a_silent_daemon_counts_as_stalled_and_is_left(at: Path) -> None:
    with scripted_daemon(at, {("POST", "/v1/pulls"): _silent_after_first}) as daemon:
        with pytest.raises(Stalled, match="said nothing"):
            list(Client([str(at)], silence_max_seconds=0.1).pull(REQUEST))
        assert daemon.left.wait(60)


def test_a_daemon_that_never_answers_counts_as_stalled(at: Path) -> None:
    with (
        scripted_daemon(at, {("GET", "/v1/status"): Exchange.wait_until_left}),
        pytest.raises(Stalled),
    ):
        Client([str(at)], silence_max_seconds=0.1).status()


def test_the_deadline_ends_a_pull_in_silence(at: Path) -> None:
    with scripted_daemon(at, {("POST", "/v1/pulls"): _silent_after_first}) as daemon:
        with pytest.raises(TimedOut, match="--timeout") as caught:
            list(Client([str(at)]).pull(REQUEST, deadline=time.monotonic() + 0.2))
        assert caught.value.code == "timed_out"
        assert daemon.left.wait(60)


def test_the_deadline_ends_a_pull_that_talks_all_the_time(at: Path) -> None:
    def talk(it: Exchange) -> None:
        it.begin_stream()
        while True:
            it.send_line(view())

    with (
        scripted_daemon(at, {("POST", "/v1/pulls"): talk}),
        pytest.raises(TimedOut, match="--timeout"),
    ):
        for _ in Client([str(at)]).pull(REQUEST, deadline=time.monotonic() + 0.2):
            pass


def test_closing_the_views_leaves_the_pull(at: Path) -> None:
    with scripted_daemon(at, {("POST", "/v1/pulls"): _silent_after_first}) as daemon:
        with closing(Client([str(at)]).pull(REQUEST)) as views:
            next(views)
        assert daemon.left.wait(60)
