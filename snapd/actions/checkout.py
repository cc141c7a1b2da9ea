"""Lay a snapshot out at a path of the caller's choice, from a complete tree in a cache.

What is promised:

* Nothing outside the destination changes. No symbolic link in it is ever followed; one in the place
  of a file or directory is replaced. A file that shares its inode with a name outside is replaced.
* A file's final name shows complete bytes only, and nobody may read in between what he may not
  read at the end. After a failure or a kill the next checkout resumes: it removes what was
  half-done and keeps files that are right, by their hash.
* Modes end exactly as in the manifest, so that the destination has the snapshot's ID. The exception
  are set-uid and set-gid bits of files, which are dropped with a warning unless `keep_setid`; on
  directories set-gid only passes a group on, and stays.
* What the snapshot does not list stays, unless `delete`. A directory in the place of a listed file,
  and a file in the place of a listed directory, are replaced either way.

`auto` makes private, writable files: by reflink where that works, else by copy. Hard links are made
only when asked for, because writing through one would damage the cache. `symlink` makes one link to
the whole tree. Nothing is made durable: a checkout can be repeated.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple, get_args

from snapd.disk import fsops
from snapd.disk.descent import Descent
from snapd.disk.destination import (
    Destination,
    look_at_destination,
    open_destination,
    replace_by_link,
    resolve_destination,
)
from snapd.disk.placing import (
    LARGE_FILE_BYTES,
    FileMode,
    FileTask,
    Outcome,
    Placing,
    open_source,
)
from snapd.model.errors import ActionFailed, TreeDiffers
from snapd.model.exclude import Excludes
from snapd.model.ids import SnapshotId
from snapd.model.manifest import Entry, Manifest
from snapd.model.protection import ProtectedPlace, refuse_dangerous

CheckoutMode = Literal["auto", "reflink", "hardlink", "copy", "symlink"]
CHECKOUT_MODES: tuple[CheckoutMode, ...] = get_args(CheckoutMode)

THREADS = 4
TASKS_WAITING_MAX = 8
PROGRESS_SECONDS = 0.1

_SETID = 0o6000


@dataclass(frozen=True)
class CheckoutOptions:
    """What a checkout does and what it must not touch.

    `exclude` protects from deletion; its patterns are searched in paths that start with `./`.
    `protected` are caches and stores, which a destination may neither be, hold nor lie in; `home`
    is a directory that it may neither be nor hold. `verify` hashes every file as it is laid out.
    """

    mode: CheckoutMode = "auto"
    delete: bool = False
    dryrun: bool = False
    exclude: Excludes | None = None
    keep_setid: bool = False
    protected: tuple[Path, ...] = ()
    home: Path | None = None
    verify: bool = False


class CheckoutProgress(NamedTuple):
    """How far a checkout is; bytes are those that the manifest states, which is a hint."""

    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int


OnProgress = Callable[[CheckoutProgress], None]


@dataclass(frozen=True, slots=True)
class CheckoutChange:
    """One thing that a dry run found: `A` to be made, `M` to be replaced or changed."""

    status: Literal["A", "M"]
    path: str


@dataclass(frozen=True)
class CheckoutReport:
    """What was done, or with `dryrun` would be. `files` counts all; `kept` of them were right.

    `mode` is what was used in fact: `auto` is reported as `reflink` or `copy`.
    """

    snapshot_id: SnapshotId
    destination: Path
    mode: str
    dryrun: bool = False
    files: int = 0
    directories: int = 0
    kept: int = 0
    linked: int = 0
    reflinked: int = 0
    copied: int = 0
    bytes_copied: int = 0
    deleted: tuple[str, ...] = ()
    changes: tuple[CheckoutChange, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Render for `--json`."""
        return asdict(self) | {"destination": str(self.destination)}


def checkout(
    manifest: Manifest,
    tree: Path,
    dest: Path,
    options: CheckoutOptions,
    on_progress: OnProgress,
) -> CheckoutReport:
    """Lay `manifest` out at `dest` from its complete `tree`; blocking.

    Raises `DangerousDestination` before anything is read or written, `DestinationBusy` while
    another process lays out at the same destination, `NoSpace`, `AccessDenied` naming the path,
    and `TreeDiffers` if the tree does not hold what the manifest lists.
    """
    tree = tree.absolute()
    with fsops.translated("can't resolve the destination", dest):
        destination = resolve_destination(dest)
    refuse_dangerous(PurePosixPath(destination), _protected_places(tree, options))
    if options.mode == "symlink":
        return _link_tree(manifest, tree, destination, options)
    if options.dryrun:
        return _preview(manifest, tree, destination, options)
    return _lay_out(manifest, tree, destination, options, on_progress)


def _protected_places(tree: Path, options: CheckoutOptions) -> Iterable[ProtectedPlace]:
    yield ProtectedPlace(_real(tree), "the snapshot's tree in the cache")
    for path in options.protected:
        yield ProtectedPlace(_real(path), "a cache or a store")
    if options.home is not None:
        yield ProtectedPlace(_real(options.home), "the home directory", below_allowed=True)


def _real(path: Path) -> PurePosixPath:
    return PurePosixPath(os.path.realpath(path))


def _link_tree(
    manifest: Manifest, tree: Path, destination: Path, options: CheckoutOptions
) -> CheckoutReport:
    if not tree.is_dir():
        raise TreeDiffers(f"there is no tree at {tree}")
    change = CheckoutChange("M" if os.path.lexists(destination) else "A", "./")
    if not options.dryrun:
        with fsops.translated("can't make a link", destination):
            replace_by_link(destination, tree)
    return CheckoutReport(
        manifest.id, destination, "symlink", dryrun=options.dryrun, changes=(change,)
    )


def _lay_out(
    manifest: Manifest,
    tree: Path,
    destination: Path,
    options: CheckoutOptions,
    on_progress: OnProgress,
) -> CheckoutReport:
    root_mode = manifest[0].mode
    with fsops.translated("can't lay out the snapshot", destination), ExitStack() as stack:
        source = stack.enter_context(_open_tree(tree))
        target = stack.enter_context(open_destination(destination, root_mode))
        run = stack.enter_context(_Run(manifest, source, target, options, on_progress))
        run.lay_out_all()
        deleted = tuple(_prune(manifest, target, options)) if options.delete else ()
        run.finish_directories()
        return run.report(deleted)


class _TreeSource(ExitStack):
    """The tree's directories, by descriptors that need no permission to list them."""

    def __init__(self, tree: Path) -> None:
        super().__init__()
        try:
            fd = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise TreeDiffers(f"there is no tree at {tree}") from exc
        self.callback(os.close, fd)
        self.path = tree
        self._descent = self.enter_context(Descent(fd, flags=os.O_PATH))

    def at(self, directory: bytes) -> int:
        """Give the descriptor of a directory, valid until the next call."""
        try:
            return self._descent.at(directory)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise TreeDiffers(
                f"the tree in the cache lacks the directory {os.fsdecode(directory)}",
                tree=str(self.path),
            ) from exc


def _open_tree(tree: Path) -> _TreeSource:
    with fsops.translated("can't read the tree", tree):
        return _TreeSource(tree)


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


class _Run:
    """One checkout that writes. Entered and left by the thread that walks the manifest."""

    def __init__(
        self,
        manifest: Manifest,
        source: _TreeSource,
        target: Destination,
        options: CheckoutOptions,
        on_progress: OnProgress,
    ) -> None:
        self._manifest = manifest
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

    def __enter__(self) -> _Run:
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
                raise _translate(exc, self._target.path, entry.path) from exc
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
                    raise _translate(exc, self._target.path, path) from exc
                # A volume's root usually belongs to somebody else, and only it can be in that case.
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
        self._target.remove_leftovers(directory, self._is_listed)

    def _is_listed(self, path: bytes) -> bool:
        return _listed(self._manifest, path)

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
        if mode & _SETID and not self._options.keep_setid:
            mode &= ~_SETID
            self._setid_dropped.append(entry.path)
        existing = None
        if not self._target.is_fresh(directory):
            existing = _look(directory_fd, name)
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
                raise _translate(exc, self._target.path, entry.path) from exc
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


def _preview(
    manifest: Manifest, tree: Path, destination: Path, options: CheckoutOptions
) -> CheckoutReport:
    """Look, and tell what would change; nothing is written, not even a mode."""
    changes: list[CheckoutChange] = []
    deleted: tuple[str, ...] = ()
    kept = 0
    with fsops.translated("can't look at the destination", destination), ExitStack() as stack:
        source = stack.enter_context(_open_tree(tree))
        target = stack.enter_context(look_at_destination(destination))
        compare = _Comparison(source, target, options)
        for entry in manifest:
            try:
                status = compare.status(entry)
            except OSError as exc:
                raise _translate(exc, destination, entry.path) from exc
            if status:
                changes.append(CheckoutChange(status, entry.path))
            elif entry.kind == "F":
                kept += 1
        if options.delete and target is not None:
            deleted = tuple(_prune(manifest, target, options))
    return CheckoutReport(
        manifest.id,
        destination,
        options.mode,
        dryrun=True,
        files=manifest.file_count,
        directories=manifest.directory_count,
        kept=kept,
        deleted=deleted,
        changes=tuple(changes),
    )


class _Comparison:
    """What a checkout would find at the place of each entry, in the manifest's order."""

    def __init__(
        self, source: _TreeSource, target: Destination | None, options: CheckoutOptions
    ) -> None:
        self._source = source
        self._target = target
        self._options = options
        self._placing = Placing("copy", verify=False, on_bytes=lambda _count: None)
        self._absent: bytes | None = b"" if target is None else None

    def status(self, entry: Entry) -> Literal["A", "M", ""]:
        """Tell whether an entry would be made, changed, or kept (empty)."""
        path = entry.path[2:].encode()
        if self._absent is not None and path.startswith(self._absent):
            return "A"
        self._absent = None
        assert self._target is not None, "everything is absent without a target"
        if not path:
            return _mode_differs(os.fstat(self._target.root_fd), entry.mode)
        head, separator, name = path.rstrip(b"/").rpartition(b"/")
        directory_fd = self._target.at(head + separator)
        existing = _look(directory_fd, name)
        if entry.kind == "D":
            return self._directory_status(path, existing, entry.mode)
        if existing is None:
            return "A"
        mode = entry.mode if self._options.keep_setid else entry.mode & ~_SETID
        task = FileTask(
            entry.path,
            name,
            mode,
            entry.checksum,
            self._source.at(head + separator),
            directory_fd,
            existing,
        )
        return self._file_status(task, existing)

    def _directory_status(
        self, path: bytes, existing: os.stat_result | None, mode: int
    ) -> Literal["A", "M", ""]:
        if existing is None:
            self._absent = path
            return "A"
        if existing.st_mode & 0o170000 != 0o040000:
            self._absent = path
            return "M"
        return _mode_differs(existing, mode)

    def _file_status(self, task: FileTask, existing: os.stat_result) -> Literal["M", ""]:
        source = os.stat(task.name, dir_fd=task.source_dir_fd, follow_symlinks=False)
        if self._options.mode == "hardlink" and task.mode <= 0o777:
            return "" if os.path.samestat(source, existing) else "M"
        if not self._placing.keeps(task, source.st_size, repair=False):
            return "M"
        return _mode_differs(existing, task.mode)


def _mode_differs(found: os.stat_result, mode: int) -> Literal["M", ""]:
    return "" if found.st_mode & 0o7777 == mode else "M"


def _prune(manifest: Manifest, target: Destination, options: CheckoutOptions) -> Iterable[str]:
    """Remove, or with `dryrun` only name, what the manifest does not list."""
    exclude = options.exclude

    def listed(path: bytes) -> bool:
        return _listed(manifest, path)

    def protected(path: bytes) -> bool:
        return exclude is not None and exclude.matches("./" + os.fsdecode(path))

    for path in target.prune(listed, protected, remove=not options.dryrun):
        yield "./" + os.fsdecode(path)


def _listed(manifest: Manifest, path: bytes) -> bool:
    return manifest.find("./" + os.fsdecode(path)) is not None


def _look(directory_fd: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _file_mode(mode: CheckoutMode) -> FileMode:
    return "auto" if mode == "symlink" else mode


def _counted(paths: list[str]) -> str:
    rest = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return paths[0] + rest


def _translate(error: OSError, destination: Path, path: str) -> Exception:
    if error.errno == errno.EXDEV:
        return ActionFailed(
            f"a hard link can't lead from the cache's mount to {destination}: {path}",
            hint="Use --mode auto, or a destination in the mount that holds the cache.",
        )
    return fsops.translate(error, "can't lay out", destination / path)
