"""Run hashing where it is fastest: inline, in worker processes, or in threads for large files.

Threads of Python gain nothing on small files (the interpreter's lock) and a process costs some
hundredths of a second to start, so few small files are hashed inline and many by processes. Large
files spend their time in `read` and in the hash, both without the lock: a few threads.
"""

from __future__ import annotations

import marshal
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from queue import SimpleQueue
from threading import Event
from typing import NamedTuple, TypeVar

from snapd.disk.hashing import (
    BUFFER_BYTES,
    ContentChanged,
    FileRow,
    Group,
    hash_groups,
    hash_large_file,
    open_below,
)
from snapd.model.errors import ActionFailed

WORKERS_FROM_SECONDS = 0.25
"""Less work than this is done before worker processes are up to speed."""

_LARGE_THREADS_MAX = 4
_BATCHES_AHEAD = 3
_TICK_SECONDS = 0.2
_BOOT = (
    "import sys,marshal;sys.path[:]=marshal.load(sys.stdin.buffer);"
    "from snapd.disk.hashing import serve;serve(int(sys.argv[1]))"
)

Label = TypeVar("Label")


class FileToHash(NamedTuple):
    """A file on its way through the hashing: the entry of the listing that it is, and where."""

    entry: int
    directory: bytes
    name: bytes
    is_link: bool


Answer = list[FileRow | int]


def default_jobs() -> int:
    """Give the number of processors that this process may use, at most 16."""
    return min(16, len(os.sched_getaffinity(0)))


class _Worker:
    """One worker process, which answers one batch at a time."""

    def __init__(self, root_fd: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BOOT, str(root_fd)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(root_fd,),
            # Ctrl-C reaches the whole group of the terminal; this process decides what it means.
            process_group=0,
        )
        self._send(sys.path)

    def hash(self, groups: list[Group]) -> Answer:
        """Hash one batch."""
        self._send(groups)
        assert self._process.stdout is not None
        try:
            answer: Answer = marshal.load(self._process.stdout)
        except EOFError as exc:
            raise self._died() from exc
        return answer

    def _send(self, message: list[str] | list[Group]) -> None:
        assert self._process.stdin is not None
        try:
            marshal.dump(message, self._process.stdin)
            self._process.stdin.flush()
        except OSError as exc:
            raise self._died() from exc

    def _died(self) -> ActionFailed:
        return ActionFailed(
            f"a hashing process ended unasked (exit status {self._process.poll()})",
            hint="It may have been killed for lack of memory; --jobs 1 does without.",
        )

    def close(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            # A request that the process did not live to read is flushed once more, in vain.
            with suppress(BrokenPipeError):
                pipe.close()


def hash_inline(
    root_fd: int, batches: Iterable[tuple[list[Group], Label]]
) -> Generator[tuple[Label, Answer], None, None]:
    """Hash batch after batch on this thread."""
    for groups, label in batches:
        yield label, list(hash_groups(root_fd, groups))


def hash_in_workers(
    root_fd: int, batches: Iterable[tuple[list[Group], Label]], jobs: int
) -> Generator[tuple[Label, Answer], None, None]:
    """Hash batches in `jobs` processes, of which this is one; answers come as they are ready.

    The other processes are gone when this generator is closed, in whichever way.
    """
    idle: SimpleQueue[_Worker] = SimpleQueue()

    def hash_one(groups: list[Group]) -> Answer:
        worker = idle.get()
        try:
            return worker.hash(groups)
        finally:
            idle.put(worker)

    pending: dict[Future[Answer], Label] = {}
    with _thread_pool(jobs - 1) as pool, ExitStack() as workers:
        for _ in range(jobs - 1):
            worker = _Worker(root_fd)
            workers.callback(worker.close)
            idle.put(worker)
        for groups, label in batches:
            if len(pending) < (jobs - 1) * _BATCHES_AHEAD:
                pending[pool.submit(hash_one, groups)] = label
                continue
            # Workers need a moment to start and their batches are laid by: this process helps.
            yield label, list(hash_groups(root_fd, groups))
            for future in [future for future in pending if future.done()]:
                yield pending.pop(future), future.result()
        for future, label in pending.items():
            yield label, future.result()


def hash_large(
    root_fd: int,
    files: Iterable[FileToHash],
    jobs: int,
    on_bytes: Callable[[int], None],
) -> Generator[tuple[FileToHash, FileRow | OSError | ContentChanged], None, None]:
    """Hash large files in a few threads.

    `on_bytes` is called on the caller's thread a few times a second, and may raise to stop.
    """
    stop = Event()
    counts: SimpleQueue[int] = SimpleQueue()
    buffers: SimpleQueue[bytearray] = SimpleQueue()

    def count(size_bytes: int) -> None:
        if stop.is_set():
            raise ContentChanged
        counts.put(size_bytes)

    def hash_one(file: FileToHash) -> FileRow:
        buffer = buffers.get()
        try:
            directory_fd = open_below(root_fd, file.directory)
            try:
                return hash_large_file(directory_fd, file.name, file.is_link, buffer, count)
            finally:
                os.close(directory_fd)
        finally:
            buffers.put(buffer)

    def report() -> None:
        while not counts.empty():
            on_bytes(counts.get())

    threads = max(1, min(jobs, _LARGE_THREADS_MAX))
    for _ in range(threads):
        buffers.put(bytearray(BUFFER_BYTES))
    running: dict[Future[FileRow], FileToHash] = {}
    with _thread_pool(threads) as pool, ExitStack() as stack:
        stack.callback(stop.set)
        for file in files:
            running[pool.submit(hash_one, file)] = file
            while len(running) >= threads * 2:
                yield from _ended(running, report)
        while running:
            yield from _ended(running, report)


def _ended(
    running: dict[Future[FileRow], FileToHash], report: Callable[[], None]
) -> Iterator[tuple[FileToHash, FileRow | OSError | ContentChanged]]:
    ended, _ = wait(running, timeout=_TICK_SECONDS, return_when=FIRST_COMPLETED)
    report()
    for future in ended:
        file = running.pop(future)
        error = future.exception()
        if isinstance(error, (OSError, ContentChanged)):
            yield file, error
        else:
            yield file, future.result()


@contextmanager
def _thread_pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(threads, thread_name_prefix="hash")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
