"""Locks between processes that share a cache; the kernel drops them when a process dies."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

from snapd.disk import fsops
from snapd.model.ids import SnapshotId

_OPENING_OFFSET = 1 << 62
_GIVING_OFFSET = _OPENING_OFFSET + 1
_USING_OFFSET = _OPENING_OFFSET + 2
_OFFSET_DIGITS = 15
_BUSY = frozenset({errno.EAGAIN, errno.EACCES})


class RangeLock:
    """An exclusive lock on one byte of the lock file, so that no file a lock piles up.

    It belongs to this object, not to the process: two of them exclude each other in one process
    too. Not shared between threads while it is being acquired.
    """

    def __init__(self, path: Path, offset: int) -> None:
        self._path = path
        self._offset = offset
        self._fd = -1

    def __enter__(self) -> RangeLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it; tells whether it is held now."""
        return self._lock(fcntl.F_OFD_SETLK)

    def acquire(self) -> None:
        """Wait for the lock, in the kernel."""
        self._lock(fcntl.F_OFD_SETLKW)

    def release(self) -> None:
        """Let go; releasing what is not held is no error."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _lock(self, command: int) -> bool:
        with fsops.translated("can't lock", self._path):
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.fcntl(fd, command, _one_byte(fcntl.F_WRLCK, self._offset))
            except OSError as exc:
                os.close(fd)
                if command == fcntl.F_OFD_SETLK and exc.errno in _BUSY:
                    return False
                raise
        self._fd = fd
        return True


class UsingLock:
    """This process's hold on the blobs of a cache: shared while it uses some, else none.

    All of it goes through one descriptor, so a process that uses blobs itself can be the only one.
    Not for several threads at once.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1

    def close(self) -> None:
        """Let go, whatever is held."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def share(self) -> None:
        """Hold it beside others; waits, in the kernel, for whoever is alone."""
        self._set(fcntl.F_RDLCK, fcntl.F_OFD_SETLKW)

    def be_alone(self) -> bool:
        """Hold it alone if no other process holds it; otherwise everything stays as it is."""
        return self._set(fcntl.F_WRLCK, fcntl.F_OFD_SETLK)

    def release(self) -> None:
        """Hold it no more."""
        self._set(fcntl.F_UNLCK, fcntl.F_OFD_SETLK)

    def _set(self, kind: int, command: int) -> bool:
        with fsops.translated("can't lock", self._path):
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.fcntl(self._fd, command, _one_byte(kind, _USING_OFFSET))
            except OSError as exc:
                if command == fcntl.F_OFD_SETLK and exc.errno in _BUSY:
                    return False
                raise
        return True


def _one_byte(kind: int, offset: int) -> bytes:
    """Render a `struct flock` for one byte."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, offset, 1, 0)


def opening_lock(path: Path) -> RangeLock:
    """Make the lock of whoever opens the cache and puts it in order."""
    return RangeLock(path, _OPENING_OFFSET)


def giving_lock(path: Path) -> RangeLock:
    """Make the lock of whoever gives a tree out or takes one away; held for a moment only.

    Who gives one out looks whether it is there and writes down that it is used, in one hold. Who
    takes one away looks whether it is used and moves it, in one hold.
    """
    return RangeLock(path, _GIVING_OFFSET)


def snapshot_lock(path: Path, snapshot_id: SnapshotId) -> RangeLock:
    """Make the lock of whoever brings one snapshot in."""
    return RangeLock(path, int(snapshot_id[:_OFFSET_DIGITS], 16))
