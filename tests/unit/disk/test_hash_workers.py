from __future__ import annotations

import mmap
import os
import signal
from contextlib import closing

import pytest

from snapd.disk.hash_workers import default_jobs, do_in_processes, do_inline, new_buffer
from snapd.disk.hashing import FileFailure
from snapd.model.errors import ActionFailed
from tests.unit.disk.processes import children


@pytest.fixture
def shared() -> memoryview:
    return memoryview(mmap.mmap(-1, 4096))


def test_every_task_is_done_once(shared: memoryview) -> None:
    def work(task: int) -> tuple[int, int]:
        shared[task] += 1
        return task, task << 40

    tasks = range(3, 400)
    answers = [answer for answer in do_in_processes(tasks, work, 3) if answer is not None]
    assert sorted(answers) == list(do_inline(range(3, 400), lambda task: (task, task << 40)))
    assert bytes(shared) == bytes(3) + b"\1" * 397 + bytes(4096 - 400)


def test_work_of_others_is_seen_here(shared: memoryview) -> None:
    own = os.getpid()

    def work(task: int) -> tuple[int, int]:
        # Nobody goes on before everybody has begun, so each of the three has done one.
        shared[task] = 1
        while not all(shared[:3]):
            os.sched_yield()
        return (os.getpid() == own), 0

    answers = [answer for answer in do_in_processes(range(3), work, 3) if answer is not None]
    assert sorted(is_own for _, is_own, _ in answers) == [0, 0, 1]


def test_no_process_and_no_descriptor_is_left_when_the_answers_are_left() -> None:
    before, descriptors = children(), len(os.listdir("/proc/self/fd"))
    with closing(do_in_processes(range(100_000), lambda task: (0, 0), 3)) as answers:
        next(answers)
        assert children() > before
    assert children() == before
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_failure_in_any_process_is_raised_here(shared: memoryview) -> None:
    own = os.getpid()

    def work(task: int) -> tuple[int, int]:
        if os.getpid() != own:
            shared[0] = 1
            raise FileFailure(task, -1)
        while not shared[0]:
            os.sched_yield()
        return 0, 0

    before = children()
    with pytest.raises(FileFailure) as failed:
        list(do_in_processes(range(2), work, 2))
    assert failed.value.code == -1
    assert children() == before


def test_worker_that_is_killed_is_told(shared: memoryview) -> None:
    own = os.getpid()

    def work(task: int) -> tuple[int, int]:
        if os.getpid() != own:
            shared[0] = 1
            os.kill(os.getpid(), signal.SIGKILL)
        while not shared[0]:
            os.sched_yield()
        return 0, 0

    with pytest.raises(ActionFailed, match="helping process ended"):
        list(do_in_processes(range(2), work, 2))


def test_defect_in_a_worker_runs_nothing_of_its_parent(shared: memoryview) -> None:
    own = os.getpid()

    def work(task: int) -> tuple[int, int]:
        if os.getpid() != own:
            shared[1] = 1
            raise ZeroDivisionError
        while not shared[1]:
            os.sched_yield()
        return 0, 0

    with pytest.raises(ActionFailed):
        try:
            list(do_in_processes(range(2), work, 2))
        finally:
            shared[0] += 1
    assert shared[0] == 1


def test_processes_that_are_not_to_be_had_are_done_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    assert len(list(do_in_processes(range(5), lambda task: (0, 0), 4))) == 5


def test_jobs_are_bounded() -> None:
    assert 1 <= default_jobs() <= 16


def test_buffer_has_room_for_more_than_a_small_file() -> None:
    assert len(new_buffer()) >= 1 << 20
