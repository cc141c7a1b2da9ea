"""How a directory store makes what it wrote durable: each file by itself, or a whole batch at once.

A file system of this machine writes everything down in one `syncfs`, which costs about as much as a
single `fsync`; what batches wait for at the same time they share. Elsewhere (a network, FUSE) only
`fsync` is a promise, so there every file and every directory gets its own.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio

_libc = ctypes.CDLL(None, use_errno=True)

_WHOLE_AT_ONCE = {
    0xEF53,  # ext4
    0x58465342,  # XFS
    0x9123683E,  # Btrfs
    0xF2F52010,  # F2FS
    0x2FC12FC1,  # ZFS
    0x01021994,  # tmpfs
}
_NO_DIRECTORY_SYNC = {errno.EINVAL, errno.ENOTSUP}
_STATFS_BYTES = 256
"""More than any architecture's `struct statfs`, which begins with the type as a long."""


def syncs_at_once(path: str) -> bool:
    """Tell whether `syncfs` makes everything below `path` durable; raises `OSError`."""
    status = (ctypes.c_long * (_STATFS_BYTES // ctypes.sizeof(ctypes.c_long)))()
    _check(_libc.statfs(os.fsencode(path), ctypes.byref(status)))
    return status[0] & 0xFFFFFFFF in _WHOLE_AT_ONCE


def sync_all(path: str) -> None:
    """Make everything durable that was written to the file system of `path` so far."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.syncfs(descriptor))
    finally:
        os.close(descriptor)


def sync_file(descriptor: int) -> None:
    """Make the content of an open file durable."""
    os.fsync(descriptor)  # noqa: TID251 - a push is durable in the store before it is reported


def sync_directory(path: str) -> None:
    """Make the names in a directory durable, where directories know that."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync_file(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise
    finally:
        os.close(descriptor)


def make_directories(path: str) -> None:
    """Make a directory and what is missing above it; one that is there is no error."""
    try:
        os.mkdir(path)
    except FileNotFoundError:
        make_directories(os.path.dirname(path))
        with suppress(FileExistsError):
            os.mkdir(path)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            raise


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Barrier:
    """One `sync` for everybody who waits: whoever comes while it runs shares the next one."""

    def __init__(self, sync: Callable[[], Awaitable[None]]) -> None:
        self._sync = sync
        self._turn = anyio.Lock()
        self._arrived = 0
        self._covered = 0

    async def wait(self) -> None:
        """Return when a sync has succeeded that began after this call; raises what it raises."""
        self._arrived += 1
        number = self._arrived
        async with self._turn:
            if self._covered >= number:
                return
            covering = self._arrived
            await self._sync()
            self._covered = covering
