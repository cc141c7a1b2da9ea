from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from snapd.disk import processes
from snapd.disk.processes import mark_process, may_live
from tests.ordinary_user import as_ordinary_user


@pytest.fixture(params=["pidfd", "start time"])
def means(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at processes with pidfds, and as where those are not to be had."""
    if request.param == "start time":

        def refuse(*_: object) -> int:
            raise OSError(errno.ENOSYS, "no pidfd here")

        monkeypatch.setattr(os, "pidfd_open", refuse)


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.mark.usefixtures("means")
def test_a_process_lives_until_it_is_killed_or_ends(child: subprocess.Popen[bytes]) -> None:
    mark = mark_process(child.pid)
    assert mark.started_ticks > 0
    assert may_live(mark)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not may_live(mark), "a zombie holds nothing"
    child.wait()
    assert not may_live(mark)


@pytest.mark.usefixtures("means")
def test_another_process_with_the_same_number_is_not_it(child: subprocess.Popen[bytes]) -> None:
    mark = mark_process(child.pid)
    recycled = mark._replace(started_ticks=mark.started_ticks - 1)
    assert not may_live(recycled)


@pytest.mark.usefixtures("means")
def test_a_process_is_the_same_after_it_became_another_program() -> None:
    program = "import os; os.read(0, 1); os.execvp('cat', ['cat'])"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        mark = mark_process(process.pid)
        process.stdin.write(b"\nhello\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"hello\n"
        assert may_live(mark)
        process.kill()
        process.wait()
        assert not may_live(mark)


@pytest.mark.usefixtures("means")
def test_a_process_of_an_earlier_run_of_the_machine_is_dead() -> None:
    mark = mark_process(os.getpid())
    assert may_live(mark)
    assert not may_live(mark._replace(boot_id="another boot"))


@pytest.mark.usefixtures("means")
def test_a_number_of_another_namespace_can_not_be_looked_up_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "_INITIAL_NAMESPACE", "pid:[2]")
    mark = mark_process(os.getpid())._replace(pid=2**22 - 3)
    assert not may_live(mark)
    elsewhere = mark._replace(pid_namespace="pid:[1]")
    assert may_live(elsewhere)
    assert not may_live(elsewhere._replace(boot_id="another boot"))


def test_from_the_initial_namespace_those_below_are_found(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]
) -> None:
    mark = mark_process(child.pid)
    below = mark._replace(pid=1)  # as the process itself would be told
    monkeypatch.setattr(processes, "pid_namespace", lambda: "pid:[1]")
    monkeypatch.setattr(processes, "_numbers", lambda: [2**22 - 3, child.pid])
    assert may_live(below._replace(started_ticks=1)), "not in the initial one: nobody knows"
    monkeypatch.setattr(processes, "_INITIAL_NAMESPACE", "pid:[1]")
    assert may_live(below)
    assert not may_live(below._replace(started_ticks=1))
    assert not may_live(below._replace(pid_namespace="pid:[2]"))
    child.kill()
    child.wait()
    assert not may_live(below)


def test_where_others_are_hidden_what_is_not_found_may_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mark = mark_process(os.getpid())._replace(started_ticks=1)
    monkeypatch.setattr(processes, "pid_namespace", lambda: "pid:[1]")
    monkeypatch.setattr(processes, "_INITIAL_NAMESPACE", "pid:[1]")
    assert not may_live(mark)
    monkeypatch.setattr(processes, "_look", lambda _: None)
    assert may_live(mark)


def test_a_process_whose_namespace_is_secret_is_told_by_its_start_time(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]
) -> None:
    mark = mark_process(child.pid)
    monkeypatch.setattr(processes, "pid_namespace", lambda: "pid:[1]")
    monkeypatch.setattr(processes, "_INITIAL_NAMESPACE", "pid:[1]")

    def refuse(path: str) -> str:
        raise PermissionError(errno.EACCES, "secret", path)

    monkeypatch.setattr(os, "readlink", refuse)
    assert may_live(mark)
    assert not may_live(mark._replace(started_ticks=1))


@pytest.mark.usefixtures("means")
@pytest.mark.parametrize("pid", [0, -1, 2**31])
def test_what_is_no_number_of_a_process_is_dead(pid: int) -> None:
    assert not may_live(mark_process(os.getpid())._replace(pid=pid))


@pytest.mark.usefixtures("means")
def test_somebody_elses_process_is_seen_as_well() -> None:
    mark = mark_process(os.getpid())

    def look() -> None:
        assert may_live(mark)
        assert not may_live(mark._replace(started_ticks=mark.started_ticks - 1))

    as_ordinary_user(look)


@pytest.mark.usefixtures("means")
def test_without_proc_what_has_the_number_counts(
    monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]
) -> None:
    mark = mark_process(child.pid)
    monkeypatch.setattr("snapd.disk.processes._look", lambda _: None)
    assert mark_process(child.pid).started_ticks == 0
    assert may_live(mark)
    child.kill()
    child.wait()
    assert not may_live(mark)
