"""Write a snapshot's files and directories to a destination, from a tree of a cache."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from snapd.disk.destination import Destination, look, manifest_rule, path_error
from snapd.disk.placing import (
    LARGE_FILE_BYTES,
    SETID,
    FileMode,
    FileTask,
    Outcome,
    Placing,
    open_source,
)
from snapd.disk.tree_source import TreeSource
from snapd.model.checkouts import (
    CheckoutMode,
    CheckoutOptions,
    CheckoutProgress,
    CheckoutReport,
    OnProgress,
)
from snapd.model.manifest import Entry, Manifest

THREADS = 4
TASKS_WAITING_MAX = 8
PROGRESS_SECONDS = 0.1


class _Progress:
    """Counts what is done, from several threads, and tells it from one, not too often."""

    def __init__(self, manifest: Manifest, on_progress: OnProgress) -> None:
        self._files_total = manifest.file_count
        self._bytes_total = manifest.total_bytes
        self._files_done = 0
        self._bytes_done = 0
        self._on_progress = on_progress
        self._next_at = 0.0
        self._lock = threading.Lock()

    def file_done(self, size_bytes: int) -> None:
        """Count a file, and those of its bytes that were not counted while they moved."""
        with self._lock:
            self._files_done += 1
            self._bytes_done += size_bytes

    def bytes_moved(self, count: int) -> None:
        """Count bytes of a file that is not done yet."""
        with self._lock:
            self._bytes_done += count

    def tell(self, *, last: bool = False) -> None:
        """Call back if it is time to."""
        now = time.monotonic()
        if now < self._next_at and not last:
            return
        self._next_at = now + PROGRESS_SECONDS
        self._on_progress(
            CheckoutProgress(
                self._files_done, self._files_total, self._bytes_done, self._bytes_total
            )
        )


class _StoppedError(Exception):
    """Ends a worker thread after another part of the checkout failed."""


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
        self._progress = _Progress(manifest, on_progress)
        self._stop = threading.Event()
        self._placing = Placing(
            _file_mode(options.mode), verify=options.verify, on_bytes=self._on_bytes
        )
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="checkout")
        self._running: set[Future[None]] = set()
        self._directories: list[tuple[bytes, int]] = []
        self._outcomes: dict[Outcome, int] = {"kept": 0, "linked": 0, "reflinked": 0, "copied": 0}
        self._bytes_copied = 0
        self._setid_dropped: list[str] = []
        self._modes_withheld: list[str] = []
        self._lock = threading.Lock()

    def __enter__(self) -> LayingOut:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True)

    def lay_out_all(self) -> None:
        """Make every directory and every file; on return all bytes are at their final names."""
        for entry in self._manifest:
            try:
                if entry.kind == "D":
                    self._directory(entry)
                else:
                    self._file(entry)
            except OSError as exc:
                raise path_error(exc, self._target.path, entry.path) from exc
            self._progress.tell()
        while self._running:
            self._reap()
        self._progress.tell(last=True)

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

    def _directory(self, entry: Entry) -> None:
        directory = entry.path[2:].encode()
        self._directories.append((directory, entry.mode))
        if directory:
            self._target.ensure_directory(directory, entry.mode)
        self._target.remove_leftovers(directory, self._listed)

    def _file(self, entry: Entry) -> None:
        task = self._task(entry)
        if self._options.mode == "hardlink":
            self._account(entry, self._placing.link(task), 0)
            return
        source_fd = open_source(task)
        size_bytes = os.fstat(source_fd).st_size
        if size_bytes <= LARGE_FILE_BYTES:
            self._account(entry, self._placing.copy(task, source_fd), size_bytes)
        else:
            self._hand_over(entry, task, source_fd, size_bytes)

    def _task(self, entry: Entry) -> FileTask:
        head, separator, name = entry.path[2:].encode().rpartition(b"/")
        directory = head + separator
        directory_fd = self._target.at(directory)
        mode = entry.mode
        if mode & SETID and not self._options.keep_setid:
            mode &= ~SETID
            self._setid_dropped.append(entry.path)
        existing = None
        if not self._target.is_fresh(directory):
            existing = look(directory_fd, name)
        return FileTask(
            entry.path,
            name,
            mode,
            entry.checksum,
            self._source.at(directory),
            directory_fd,
            existing,
        )

    def _hand_over(self, entry: Entry, task: FileTask, source_fd: int, size_bytes: int) -> None:
        while len(self._running) >= TASKS_WAITING_MAX:
            self._reap()
        own_fd = os.dup(task.directory_fd)

        def work() -> None:
            try:
                if self._stop.is_set():
                    os.close(source_fd)
                    raise _StoppedError
                own = FileTask(
                    task.path, task.name, task.mode, task.checksum, -1, own_fd, task.existing
                )
                self._account(entry, self._placing.copy(own, source_fd), size_bytes)
            except OSError as exc:
                raise path_error(exc, self._target.path, entry.path) from exc
            finally:
                os.close(own_fd)

        self._running.add(self._pool.submit(work))

    def _reap(self) -> None:
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

    def _account(self, entry: Entry, outcome: Outcome, size_bytes: int) -> None:
        moved = size_bytes if outcome == "copied" and size_bytes > LARGE_FILE_BYTES else 0
        self._progress.file_done(max(entry.size_bytes - moved, 0))
        with self._lock:
            self._outcomes[outcome] += 1
            if outcome == "copied":
                self._bytes_copied += size_bytes


def _file_mode(mode: CheckoutMode) -> FileMode:
    return "auto" if mode == "symlink" else mode


def _counted(paths: list[str]) -> str:
    rest = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return paths[0] + rest
