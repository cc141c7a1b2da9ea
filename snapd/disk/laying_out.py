"""Write a snapshot's files and directories to a destination, from a tree of a cache."""

from __future__ import annotations

import errno
import os
import threading
from array import array
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from snapd.disk.destination import Destination, look, manifest_rule, path_error
from snapd.disk.fresh_files import FreshFiles, Make, Stretch, link_file, share_file
from snapd.disk.placing import (
    LARGE_FILE_BYTES,
    SETID,
    FileMode,
    FileTask,
    Outcome,
    Placing,
    open_source,
)
from snapd.disk.tally import PROGRESS_SECONDS, Tally
from snapd.disk.tree_source import TreeSource
from snapd.model.checkouts import (
    CheckoutMode,
    CheckoutOptions,
    CheckoutReport,
    OnProgress,
)
from snapd.model.ids import Digest
from snapd.model.manifest import Manifest

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from snapd.disk.hash_workers import Answer

THREADS = 4
TASKS_WAITING_MAX = 8
FORKED_FILES_MIN = 4096
"""With fewer files a fork takes longer than it saves."""
_LINES_A_LOOK = 64
"""Entries after which the clock is read again, for the progress."""


class _StoppedError(Exception):
    """Ends a worker thread after another part of the checkout failed."""


class _Place(NamedTuple):
    """The directory in which the walk is: in the tree, and in the destination."""

    source_fd: int
    target_fd: int
    fresh: bool


class LayingOut:
    """One checkout that writes. Entered and left by the thread that walks the manifest."""

    def __init__(
        self,
        manifest: Manifest,
        source: TreeSource,
        target: Destination,
        options: CheckoutOptions,
        on_progress: OnProgress,
    ) -> None:
        self._manifest = manifest
        self._listed = manifest_rule(manifest)
        self._source = source
        self._target = target
        self._options = options
        self._progress = Tally(manifest, on_progress)
        self._stop = threading.Event()
        self._shared_out = False
        self._placing = Placing(
            _file_mode(options.mode), verify=options.verify, on_bytes=self._on_bytes
        )
        self._pool: ThreadPoolExecutor | None = None
        self._running: set[Future[None]] = set()
        self._here = b"/"
        self._place = _Place(-1, -1, fresh=False)
        self._directories: list[tuple[bytes, int]] = []
        self._outcomes: dict[Outcome, int] = {"kept": 0, "linked": 0, "reflinked": 0, "copied": 0}
        self._bytes_copied = 0
        self._setid_dropped: list[str] = []
        self._modes_withheld: list[str] = []
        self._lock = threading.Lock()

    def __enter__(self) -> LayingOut:
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        self._stop.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        # A process that was ended in the middle may have left a name before its bytes.
        if failure is not None and not self._shared_out:
            self._target.settle_after_failure()

    def lay_out_all(self) -> None:
        """Make every directory and every file; on return all bytes are at their final names."""
        self._target.resume(self._listed)
        make = self._quick_way()
        if make is None:
            self._lay_out(self._manifest.lines())
        else:
            self._lay_out_quickly(make)
        while self._running:
            self._reap()
        self._target.settle()
        self._progress.tell(last=True)

    def _lay_out(self, lines: Iterable[bytes]) -> None:
        for number, line in enumerate(lines):
            kind, mode, checksum, size, path = line.split(b" ", 4)
            try:
                if kind == b"D":
                    self._directory(path[2:], int(mode, 8))
                else:
                    self._file(path, int(mode, 8), checksum, int(size))
            except OSError as exc:
                raise path_error(exc, self._target.path, path.decode()) from exc
            if number % _LINES_A_LOOK == 0:
                self._progress.tell()

    def _quick_way(self) -> Make | None:
        """Choose how files are made where nothing is yet; None if it takes the long way."""
        mode = self._options.mode
        if self._options.verify or mode == "copy" or not self._target.is_fresh(b""):
            return None
        if mode == "hardlink":
            return link_file
        self._target.step_aside()
        return share_file

    def _lay_out_quickly(self, make: Make) -> None:
        """Make all directories, then the files side by side, and what is left the long way."""
        directories = array("Q")
        for index, line in enumerate(self._manifest.lines()):
            if line.startswith(b"D"):
                self._lay_out((line,))
                directories.append(index)
        files = FreshFiles(self._manifest, self._source, self._target, make)
        files.cut(directories)
        left: list[Stretch] = []
        self._shared_out = True
        with closing(self._worked(files)) as answers:
            for answer in answers:
                if answer is not None:
                    number, done, size_bytes = answer
                    first, end = files.stretches[number]
                    made = files.files_in(first, first + done)
                    self._progress.files_done(made, size_bytes)
                    self._outcomes["linked" if make is link_file else "reflinked"] += made
                    if first + done < end:
                        left.append(Stretch(first + done, end))
                self._progress.tell()
        self._shared_out = False
        for first, end in left:
            self._lay_out(
                line for line in self._manifest.lines_between(first, end) if line.startswith(b"F")
            )

    def _worked(self, files: FreshFiles) -> Generator[Answer | None, None, None]:
        tasks = range(len(files.stretches))
        if self._options.jobs > 1 and self._manifest.file_count >= FORKED_FILES_MIN:
            from snapd.disk.hash_workers import do_in_processes

            yield from do_in_processes(tasks, files.work, self._options.jobs)
            return
        for number in tasks:
            yield (number, *files.work(number))

    def finish_directories(self) -> None:
        """Give directories their final modes, content before the directory that holds it."""
        for directory, mode in reversed(self._directories):
            path = "./" + os.fsdecode(directory)
            try:
                if not self._target.finish_directory(directory, mode):
                    self._modes_withheld.append(path)
            except OSError as exc:
                if directory or exc.errno != errno.EPERM:
                    raise path_error(exc, self._target.path, path) from exc
                # The root of a mounted volume often belongs to somebody else.
                self._modes_withheld.append(path)

    def report(self, deleted: tuple[str, ...]) -> CheckoutReport:
        """Tell what was done."""
        mode: str = self._options.mode
        if mode == "auto":
            mode = "reflink" if self._outcomes["reflinked"] else "copy"
        return CheckoutReport(
            self._manifest.id,
            self._target.path,
            mode,
            files=self._manifest.file_count,
            directories=self._manifest.directory_count,
            kept=self._outcomes["kept"],
            linked=self._outcomes["linked"],
            reflinked=self._outcomes["reflinked"],
            copied=self._outcomes["copied"],
            bytes_copied=self._bytes_copied,
            deleted=deleted,
            warnings=tuple(self._warnings()),
        )

    def _warnings(self) -> Iterable[str]:
        if self._setid_dropped:
            yield (
                f"dropped the set-uid or set-gid bit of {_counted(self._setid_dropped)}: "
                "the ID of the destination differs; --keep-setid keeps it"
            )
        withheld = self._modes_withheld + self._placing.withheld
        if withheld:
            yield (
                f"the system does not let you set the mode of {_counted(withheld)}: "
                "the ID of the destination differs"
            )

    def _directory(self, directory: bytes, mode: int) -> None:
        self._here = b"/"
        self._directories.append((directory, mode))
        if directory:
            self._target.ensure_directory(directory, mode)
        self._target.remove_leftovers(directory, self._listed)

    def _file(self, path: bytes, mode: int, checksum: bytes, stated_bytes: int) -> None:
        """Lay out one file; texts stay the bytes that they are, as this runs for each of many."""
        begin = path.rfind(b"/") + 1
        directory, name = path[2:begin], path[begin:]
        if directory != self._here:
            self._enter(directory)
        task = self._task(path, name, mode, checksum)
        if self._options.mode == "hardlink":
            self._account(stated_bytes, self._placing.link(task), 0)
            return
        source_fd, size_bytes = open_source(task)
        if size_bytes <= LARGE_FILE_BYTES:
            self._account(stated_bytes, self._placing.copy(task, source_fd, size_bytes), size_bytes)
        else:
            self._hand_over(stated_bytes, task, source_fd, size_bytes)

    def _enter(self, directory: bytes) -> None:
        self._place = _Place(
            self._source.at(directory),
            self._target.at(directory),
            self._target.is_fresh(directory),
        )
        self._here = directory

    def _task(self, path: bytes, name: bytes, mode: int, checksum: bytes) -> FileTask:
        place, shown = self._place, path.decode()
        if mode & SETID and not self._options.keep_setid:
            mode &= ~SETID
            self._setid_dropped.append(shown)
        return FileTask(
            shown,
            name,
            mode,
            Digest(checksum.decode("ascii")),
            place.source_fd,
            place.target_fd,
            None if place.fresh else look(place.target_fd, name),
        )

    def _hand_over(
        self, stated_bytes: int, task: FileTask, source_fd: int, size_bytes: int
    ) -> None:
        self._wait_for_room()
        own_fd = os.dup(task.directory_fd)

        def work() -> None:
            try:
                if self._stop.is_set():
                    os.close(source_fd)
                    raise _StoppedError
                own = task._replace(source_dir_fd=-1, directory_fd=own_fd)
                outcome = self._placing.copy(own, source_fd, size_bytes)
                self._account(stated_bytes, outcome, size_bytes)
            except OSError as exc:
                raise path_error(exc, self._target.path, task.path) from exc
            finally:
                os.close(own_fd)

        self._submit(work)

    def _wait_for_room(self) -> None:
        while len(self._running) >= TASKS_WAITING_MAX:
            self._reap()

    def _submit(self, work: Callable[[], None]) -> None:
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="checkout")
        self._running.add(self._pool.submit(work))

    def _reap(self) -> None:
        from concurrent.futures import FIRST_COMPLETED, wait

        done, self._running = wait(
            self._running, timeout=PROGRESS_SECONDS, return_when=FIRST_COMPLETED
        )
        for future in done:
            future.result()
        self._progress.tell()

    def _on_bytes(self, count: int) -> None:
        if self._stop.is_set():
            raise _StoppedError
        self._progress.bytes_moved(count)

    def _account(self, stated_bytes: int, outcome: Outcome, size_bytes: int) -> None:
        moved = size_bytes if outcome == "copied" and size_bytes > LARGE_FILE_BYTES else 0
        self._progress.files_done(1, max(stated_bytes - moved, 0))
        with self._lock:
            self._outcomes[outcome] += 1
            if outcome == "copied":
                self._bytes_copied += size_bytes


def _file_mode(mode: CheckoutMode) -> FileMode:
    return "auto" if mode == "symlink" else mode


def _counted(paths: list[str]) -> str:
    rest = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return paths[0] + rest
