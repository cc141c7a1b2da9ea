"""Hash large files in a few threads: `read` and the hash run without the interpreter's lock."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from snapd.disk.hashing import (
    CHANGED,
    READ_BYTES,
    WIDE_READ_BYTES,
    Columns,
    ContentChanged,
    FileFailure,
    FileToHash,
    hash_large_file,
    open_below,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_THREADS_MAX = 16
_TICK_SECONDS = 0.2
_SAY_BYTES = 32 * 1024 * 1024


def hash_large(
    root_fd: int,
    files: Sequence[FileToHash],
    columns: Columns,
    jobs: int,
    on_bytes: Callable[[int], None],
    on_file: Callable[[FileToHash], None] = lambda file: None,
) -> None:
    """Hash large files in a few threads into `columns`.

    On the caller's thread `on_bytes` is called a few times a second, and `on_file` for each file
    that is done; both may raise to stop. Raises
    `FileFailure` for one that fails. No thread is left, in whichever way it ends.
    """
    if not files:
        return
    # Most trees have no large file, and threads cost an import.
    import threading

    hashing = _Hashing(root_fd, files, columns, jobs)
    threads = [
        threading.Thread(target=hashing.run, name=f"hash-{number}", daemon=True)
        for number in range(min(jobs, len(files), _THREADS_MAX))
    ]
    started = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
        hashing.wait(len(started), on_bytes, on_file)
    finally:
        hashing.stop.set()
        for thread in started:
            thread.join()


class _Hashing:
    """What the threads share."""

    def __init__(
        self, root_fd: int, files: Sequence[FileToHash], columns: Columns, jobs: int
    ) -> None:
        import threading
        from queue import SimpleQueue

        self._root_fd = root_fd
        self._columns = columns
        self._left = list(reversed(files))
        # One thread a file keeps what is read in that processor's cache; if there are fewer files
        # than processors, all of them hash each file.
        self._wide = len(files) < jobs
        self._said: SimpleQueue[int | FileToHash | BaseException | None] = SimpleQueue()
        self.stop = threading.Event()

    def wait(
        self,
        running: int,
        on_bytes: Callable[[int], None],
        on_file: Callable[[FileToHash], None],
    ) -> None:
        """Pass on what the threads say until they have ended, or raise what one failed at."""
        from queue import Empty

        while running:
            try:
                word = self._said.get(timeout=_TICK_SECONDS)
            except Empty:
                on_bytes(0)
                continue
            if word is None:
                running -= 1
            elif isinstance(word, int):
                on_bytes(word)
            elif isinstance(word, FileToHash):
                on_file(word)
            else:
                raise word

    def run(self) -> None:
        """Hash files until there are none left: what each thread does."""
        try:
            buffer = memoryview(bytearray(WIDE_READ_BYTES if self._wide else READ_BYTES))
            # Taking from a list is one step of the interpreter.
            while self._left and not self.stop.is_set():
                try:
                    file = self._left.pop()
                except IndexError:
                    break
                self._hash(file, buffer)
            self._said.put(None)
        except BaseException as exc:  # noqa: BLE001 - raised on the caller's thread
            self._said.put(exc)

    def _hash(self, file: FileToHash, buffer: memoryview) -> None:
        unsaid = 0

        def count(size_bytes: int) -> None:
            nonlocal unsaid
            if self.stop.is_set():
                raise ContentChanged
            unsaid += size_bytes
            if unsaid >= _SAY_BYTES:
                self._said.put(unsaid)
                unsaid = 0

        try:
            directory_fd = open_below(self._root_fd, file.directory)
            try:
                row = hash_large_file(
                    directory_fd,
                    file.name,
                    file.is_link,
                    buffer,
                    count,
                    threads=-1 if self._wide else 1,
                    sha256=bool(self._columns.sha256),
                )
            finally:
                os.close(directory_fd)
        except ContentChanged as exc:
            raise FileFailure(file.number, CHANGED) from exc
        except OSError as exc:
            raise FileFailure(file.number, exc.errno or errno.EIO) from exc
        self._columns.put(file.number, row)
        self._said.put(unsaid)
        self._said.put(file)
