"""Half-done work of each process that has the cache open, and what it tells after a crash.

Every process works in a directory of its own below `staging/`. Its `marker` file is locked for as
long as the process lives, holds the boot ID, and its modification time is the moment up to which
everything is known to be durable. A marker that nobody locks belongs to a process that died: with
another boot ID the machine went down too, and whatever is younger may not have reached the disk.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

from snapd.disk import fsops

_MARKER = "marker"
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_UNKNOWN_BOOT = "unknown"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def boot_id() -> str:
    """Name this run of the machine; empty if the system can't tell, which equals no other run."""
    try:
        with open(_BOOT_ID, encoding="ascii") as source:
            return source.read().strip()
    except OSError:
        return ""


class Staging:
    """This process's own directory below `staging/`; `fd` is open as long as it is."""

    def __init__(self, path: Path, fd: int, marker_fd: int | None) -> None:
        self.path = path
        self.fd = fd
        self._marker_fd = marker_fd

    @classmethod
    def create(cls, root: Path, boot: str) -> Staging:
        """Make the directory and its locked marker, durably, before anything else is written.

        Only while no other process looks for dead ones: the marker is not locked from the start.
        """
        path = root / os.urandom(8).hex()
        path.mkdir(mode=0o700)
        with ExitStack() as undo:
            undo.callback(_remove_path, path)
            fd = os.open(path, fsops.DIRECTORY)
            undo.callback(os.close, fd)
            marker_fd = os.open(_MARKER, _CREATE, 0o600, dir_fd=fd)
            undo.callback(os.close, marker_fd)
            fcntl.flock(marker_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fsops.write_all(marker_fd, (boot or _UNKNOWN_BOOT).encode("ascii"))
            fsops.fsync(marker_fd)
            fsops.fsync(fd)
            fsops.fsync_directory(root)
            undo.pop_all()
        return cls(path, fd, marker_fd)

    @classmethod
    def join(cls, path: Path) -> Staging:
        """Work in the directory of another process of ours, which outlives this one's work."""
        return cls(path, os.open(path, fsops.DIRECTORY), None)

    def new_name(self) -> str:
        """Invent a name that nobody else uses."""
        return os.urandom(12).hex()

    def place(self, text: bytes, name: str, dir_fd: int, *, durable: bool) -> None:
        """Write a small file, readable for all, that appears whole as `name` in a directory.

        It takes the place of one that is there. With `durable` it survives power loss once this
        has returned. After a failure nothing of it is left.
        """
        staged = self.new_name()
        try:
            fd = os.open(staged, _CREATE, 0o600, dir_fd=self.fd)
            try:
                fsops.write_all(fd, text)
                os.fchmod(fd, 0o644)
                if durable:
                    fsops.fsync(fd)
            finally:
                os.close(fd)
            os.rename(staged, name, src_dir_fd=self.fd, dst_dir_fd=dir_fd)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(staged, dir_fd=self.fd)
            raise
        if durable:
            fsops.fsync(dir_fd)

    def clock_ns(self) -> int:
        """Read the clock that stamps files, which is not the one that programs read."""
        os.utime(self.fd)
        return os.fstat(self.fd).st_mtime_ns

    def mark_durable(self, until_ns: int) -> None:
        """Note that all files stamped before `until_ns` are durable."""
        assert self._marker_fd is not None
        os.utime(self._marker_fd, ns=(until_ns, until_ns))

    def remove(self) -> None:
        """Remove the directory with all it holds; `close` is still due."""
        _remove_path(self.path)

    def close(self) -> None:
        """Let go of the directory; one that was not removed is then a dead process's."""
        if self._marker_fd is not None:
            os.close(self._marker_fd)
        os.close(self.fd)


class Leftover:
    """The directory of a process that died; locked until `close`, so that one process sweeps it."""

    def __init__(self, path: Path, fd: int, marker_fd: int | None) -> None:
        self._path = path
        self._fd = fd
        self._marker_fd = marker_fd

    def durable_until_ns(self) -> int:
        """Tell up to which time stamp the dead process had made everything durable."""
        return 0 if self._marker_fd is None else os.fstat(self._marker_fd).st_mtime_ns

    def boot_id(self) -> str:
        """Tell in which run of the machine the process worked; empty if that got lost."""
        if self._marker_fd is None:
            return ""
        return os.pread(self._marker_fd, 100, 0).decode("ascii", "replace")

    def wrote_nothing(self) -> bool:
        """Tell whether the process died before its marker was durable, hence before any work."""
        return self.boot_id() == ""

    def remove(self) -> None:
        """Remove what the dead process left."""
        _remove_path(self._path)

    def close(self) -> None:
        """Unlock."""
        if self._marker_fd is not None:
            os.close(self._marker_fd)
        os.close(self._fd)


def _remove_path(path: Path) -> None:
    """Remove one process's directory; `staging/` is private, so nobody meddles with the path."""
    parent_fd = os.open(path.parent, fsops.DIRECTORY)
    try:
        fsops.remove_tree(path.name, parent_fd)
    finally:
        os.close(parent_fd)


def find_leftovers(root: Path) -> Iterator[Leftover]:
    """Find the directories below `staging/` whose processes are dead.

    Only while no other process creates one. The caller closes what it is given.
    """
    with os.scandir(root) as entries:
        paths = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    for path in paths:
        with suppress(FileNotFoundError):
            fd = os.open(path, fsops.DIRECTORY)
            try:
                marker_fd = _lock_marker(fd)
            except BlockingIOError:
                os.close(fd)
                continue
            yield Leftover(path, fd, marker_fd)


def _lock_marker(dir_fd: int) -> int | None:
    try:
        fd = os.open(_MARKER, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise
    return fd
