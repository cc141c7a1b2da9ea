"""Share work on small files out to forked processes.

Threads of Python gain nothing on small files (the interpreter's lock), so many small files are
shared out to processes. They are forked: a fork costs a few milliseconds where a new interpreter
costs fifty, and has the listing and the columns already. What runs there is kept to system calls
and the hash, and takes no lock that another thread of this process may have held.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
from array import array
from struct import Struct
from typing import TYPE_CHECKING

from snapd.disk.hashing import LARGE_FILE_BYTES, FileFailure
from snapd.disk.hashing import FileToHash as FileToHash
from snapd.model.errors import ActionFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    Work = Callable[[int], tuple[int, int]]
    """Does the task of that number, and tells two figures about it."""

    Answer = tuple[int, int, int]
    """The number of a task that is done, and its two figures."""

_TICK_SECONDS = 0.2
_ANSWER = Struct("<iIIq")
_DONE, _FAILED = 0, 1
_ANSWERS_AT_ONCE = 512
_TOKEN_BYTES = 4
_SHARES_MAX = 1024


def default_jobs() -> int:
    """Give the number of processors that this process may use, at most 16."""
    return min(16, len(os.sched_getaffinity(0)))


def new_buffer() -> memoryview:
    """Make the buffer that small files are read into."""
    return memoryview(bytearray(LARGE_FILE_BYTES))


def do_inline(tasks: Sequence[int], work: Work) -> Iterator[Answer]:
    """Do task after task in this process."""
    for task in tasks:
        yield (task, *work(task))


def do_in_processes(
    tasks: Sequence[int], work: Work, jobs: int
) -> Generator[Answer | None, None, None]:
    """Do each task once in `jobs` processes, of which this is one; answers come as they are ready.

    None comes now and then while this process has nothing to do but wait. What `work` does to
    shared memory is seen here when the answer comes. A `FileFailure` of any process is raised here;
    another exception in a worker, or its death, is an `ActionFailed`. The processes are gone when
    this generator is closed, in whichever way.
    """
    shares = _shares(tasks)
    queue = _queue_of(len(shares))
    reading, writing = os.pipe2(os.O_CLOEXEC)
    workers: list[int] = []
    left = len(tasks)
    try:
        try:
            while len(workers) < min(jobs, len(shares)) - 1:
                workers.append(_fork(queue, writing, shares, work))
        except OSError:
            # No more processes are to be had: those that are there do it, this one at least.
            jobs = 1
        finally:
            os.close(writing)
        while token := os.read(queue, _TOKEN_BYTES):
            for task in _share_of(token, shares):
                left -= 1
                yield (task, *work(task))
                for answer in _answers(reading, 0):
                    left -= 1
                    yield answer
        while left:
            for answer in _answers(reading, _TICK_SECONDS):
                left -= 1
                yield answer
            yield None
    finally:
        os.close(queue)
        os.close(reading)
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        for worker in workers:
            os.waitpid(worker, 0)


def _shares(tasks: Sequence[int]) -> list[Sequence[int]]:
    """Cut the tasks so that a token for each share fits the smallest pipe."""
    size = -(-len(tasks) // _SHARES_MAX) or 1
    return [tasks[start : start + size] for start in range(0, len(tasks), size)]


def _queue_of(count: int) -> int:
    """Make a pipe of tokens; each process takes the next one until there are none left."""
    queue, filling = os.pipe2(os.O_CLOEXEC)
    os.write(filling, array("I", range(count)).tobytes())
    os.close(filling)
    return queue


def _share_of(token: bytes, shares: list[Sequence[int]]) -> Sequence[int]:
    return shares[int.from_bytes(token, sys.byteorder)]


def _fork(queue: int, writing: int, shares: list[Sequence[int]], work: Work) -> int:
    worker = os.fork()
    if worker:
        return worker
    # Nothing of the process that was copied may run here any more: no handler, no finaliser, no
    # `finally` of a caller, whatever happens.
    try:
        gc.disable()
        # Ctrl-C reaches the whole group of the terminal; the parent decides what it means.
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _serve(queue, writing, shares, work)
    finally:
        os._exit(0)


def _serve(queue: int, writing: int, shares: list[Sequence[int]], work: Work) -> None:
    while token := os.read(queue, _TOKEN_BYTES):
        for task in _share_of(token, shares):
            try:
                first, second = work(task)
            except FileFailure as failure:
                os.write(writing, _ANSWER.pack(_FAILED, task, failure.number, failure.code))
                return
            os.write(writing, _ANSWER.pack(_DONE, task, first, second))


def _answers(reading: int, wait_seconds: float) -> Iterator[Answer]:
    """Read what workers said; raises `ActionFailed` if there are none left that could."""
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    if not poll.poll(wait_seconds * 1000):
        return
    said = os.read(reading, _ANSWER.size * _ANSWERS_AT_ONCE)
    if not said and wait_seconds:
        raise ActionFailed(
            "a helping process ended unasked",
            hint="It may have been killed for lack of memory; --jobs 1, if it has that, helps.",
        )
    for kind, task, first, second in _ANSWER.iter_unpack(said):
        if kind == _FAILED:
            raise FileFailure(first, second)
        yield task, first, second
