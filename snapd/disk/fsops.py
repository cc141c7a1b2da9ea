"""System calls on the local file system that Python lacks or that need care.

All of them work relative to directory descriptors, so that no name is looked up twice and nobody
can put a link in the way. They raise `OSError`; `translate` turns that into an error of ours.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, NamedTuple

from snapd.model.errors import AccessDenied, ActionFailed, NoSpace, SnapsyncError

_FICLONE = 0x40049409
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_IOPRIO_CALLS = {"x86_64": (251, 252), "aarch64": (30, 31), "riscv64": (30, 31)}
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_IDLE = 3 << 13
_NOT_CACHED = frozenset({errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
_COPY_PIECE_BYTES = 1 << 26
_READ_PIECE_BYTES = 1 << 20
_PIECES_MAX = 1024

FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the kernel says when a file system, a quota or a limit on file size is exhausted."""

_UNSUPPORTED = frozenset(
    {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EISDIR}
)
_NO_REFLINK = _UNSUPPORTED | {errno.EPERM, errno.ETXTBSY}

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class DiskSpace(NamedTuple):
    """What a file system holds and what is left for the caller."""

    total_bytes: int
    free_bytes: int


def translate(error: OSError, doing: str, where: str | os.PathLike[str]) -> SnapsyncError:
    """Say what failed and where: `translate(exc, "can't store an object", "/var/x")`.

    A full disk, quota or file-size limit is `NoSpace`, a missing permission `AccessDenied`,
    anything else `ActionFailed`. The caller raises the result `from` the error.
    """
    place = os.fspath(where)
    reason = os.strerror(error.errno) if error.errno else str(error)
    message = f"{doing} in {place}: {reason}"
    details = {"directory": place, "errno": errno.errorcode.get(error.errno or 0, "")}
    if error.errno in FULL_ERRNOS:
        return NoSpace(message, **details)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = "Check the owner and the permissions of the named directory."
        return AccessDenied(message, hint=hint, **details)
    return ActionFailed(message, **details)


@cache
def _libc() -> Any:
    """Give the C library; loading what calls it takes a short command longer than its work."""
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _errno() -> int:
    import ctypes

    return ctypes.get_errno()


@contextmanager
def translated(doing: str, where: str | os.PathLike[str]) -> Iterator[None]:
    """Turn every `OSError` of the block into one of ours, as `translate` does."""
    try:
        yield
    except OSError as exc:
        raise translate(exc, doing, where) from exc


def space(path: str | os.PathLike[str] | int) -> DiskSpace:
    """Tell how big the file system of `path` is and how much of it the caller may still use."""
    found = os.statvfs(path)
    return DiskSpace(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


def _check(result: int) -> None:
    if result != 0:
        number = _errno()
        raise OSError(number, os.strerror(number))


def syncfs(fd: int) -> None:
    """Make everything written so far to the file system of `fd` durable."""
    _check(_libc().syncfs(fd))


def fsync(fd: int) -> None:
    """Make one open file or directory durable."""
    os.fsync(fd)


def fsync_directory(path: str | os.PathLike[str]) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data` at the file's position."""
    written = os.write(fd, data)
    if written < len(data):
        with memoryview(data) as view:
            while written < len(data):
                written += os.write(fd, view[written:])


def write_pieces(fd: int, pieces: Sequence[bytes | bytearray]) -> None:
    """Write all pieces, one after the other, at the file's position: in one call if that can be."""
    for start in range(0, len(pieces), _PIECES_MAX):
        some = pieces[start : start + _PIECES_MAX]
        written = os.writev(fd, some)
        if written < sum(map(len, some)):
            write_all(fd, b"".join(some)[written:])


def pwrite_all(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`."""
    written = os.pwrite(fd, data, offset)
    if written < len(data):
        with memoryview(data) as view:
            while written < len(data):
                written += os.pwrite(fd, view[written:], offset + written)


@contextmanager
def idle_io() -> Iterator[None]:
    """Let others go first on the disk, for what this thread does in the block.

    Where the kernel or the scheduler of the disk knows no such thing, nothing changes.
    """
    numbers = _IOPRIO_CALLS.get(os.uname().machine)
    if numbers is None:
        yield
        return
    set_priority, get_priority = numbers
    before = _libc().syscall(get_priority, _IOPRIO_WHO_PROCESS, 0)
    _libc().syscall(set_priority, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_IDLE)
    try:
        yield
    finally:
        if before >= 0:
            _libc().syscall(set_priority, _IOPRIO_WHO_PROCESS, 0, before)


def read_in_passing(fd: int, buffer: memoryview, offset: int) -> int:
    """Fill a buffer from a file without leaving more of it in the page cache than was there.

    Needs a file that was opened for `random_access`, so that nothing is read ahead. Returns how
    many bytes were read.
    """
    try:
        count = os.preadv(fd, [buffer], offset, os.RWF_NOWAIT)
    except OSError as exc:
        if exc.errno not in _NOT_CACHED:
            raise
        count = 0
    if count == len(buffer):
        return count
    count = os.preadv(fd, [buffer], offset)
    if count:
        os.posix_fadvise(fd, offset, count, os.POSIX_FADV_DONTNEED)
    return count


def random_access(fd: int) -> None:
    """Keep the kernel from reading ahead in a file."""
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)


def can_link_unnamed(dir_fd: int, probe_name: str) -> bool:
    """Find out whether files without a name can be made and given one here."""
    try:
        fd = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=dir_fd)
    except OSError as exc:
        if exc.errno in _UNSUPPORTED:
            return False
        raise
    try:
        link_unnamed(fd, probe_name, dir_fd)
    except OSError as exc:
        if exc.errno in FULL_ERRNOS:
            raise
        return False
    finally:
        os.close(fd)
    os.unlink(probe_name, dir_fd=dir_fd)
    return True


def open_unnamed(dir_fd: int, mode: int = 0o600) -> int:
    """Open a new file without a name that vanishes unless `link_unnamed` names it."""
    return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode, dir_fd=dir_fd)


def link_unnamed(fd: int, name: str, dir_fd: int) -> None:
    """Give an unnamed file its name; `FileExistsError` if the name is taken.

    CPython passes on "follow the link" only if directory descriptors are given, even though the
    source is an absolute path.
    """
    os.link(f"/proc/self/fd/{fd}", name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd, follow_symlinks=True)


def rename_noreplace(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
    """Rename; `FileExistsError` if the target exists.

    Where the file system can't do that in one step, the target is looked at first; an existing
    directory with content is then still never replaced.
    """
    try:
        _renameat2(source, target, src_dir_fd, dst_dir_fd, _RENAME_NOREPLACE)
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        if _exists(target, dst_dir_fd):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from exc
        os.rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)


def rename_exchange(first: str, second: str, *, first_dir_fd: int, second_dir_fd: int) -> None:
    """Swap two existing names in one step."""
    _renameat2(first, second, first_dir_fd, second_dir_fd, _RENAME_EXCHANGE)


def _renameat2(source: str, target: str, src_dir_fd: int, dst_dir_fd: int, flags: int) -> None:
    call: Any = getattr(_libc(), "renameat2", None)
    if call is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    old, new = os.fsencode(source), os.fsencode(target)
    if call(src_dir_fd, old, dst_dir_fd, new, flags) != 0:
        number = _errno()
        raise OSError(number, os.strerror(number), source, None, target)


def _exists(name: str, dir_fd: int) -> bool:
    try:
        os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def reflink(src_fd: int, dst_fd: int) -> bool:
    """Share the source's blocks with the destination; False if this place can't do that."""
    try:
        fcntl.ioctl(dst_fd, _FICLONE, src_fd)
    except OSError as exc:
        if exc.errno in _NO_REFLINK:
            return False
        raise
    return True


def _ignore_bytes(_count: int) -> None:
    """Take no note of progress."""


def copy(src_fd: int, dst_fd: int, on_bytes: Callable[[int], None] = _ignore_bytes) -> int:
    """Copy from the source's start to an empty destination, inside the kernel where possible.

    Returns how many bytes were copied. Both positions move. `on_bytes` is told of every piece and
    may raise to stop.
    """
    copied = 0
    try:
        while moved := os.copy_file_range(src_fd, dst_fd, _COPY_PIECE_BYTES, copied, copied):
            copied += moved
            on_bytes(moved)
    except OSError as exc:
        if exc.errno not in _NO_REFLINK:
            raise
    os.lseek(src_fd, copied, os.SEEK_SET)
    os.lseek(dst_fd, copied, os.SEEK_SET)
    while piece := os.read(src_fd, _READ_PIECE_BYTES):
        write_all(dst_fd, piece)
        copied += len(piece)
        on_bytes(len(piece))
    return copied


def reflink_or_copy(src_fd: int, dst_fd: int) -> None:
    """Fill an empty file with another's content, sharing blocks where the file system can."""
    if not reflink(src_fd, dst_fd):
        copy(src_fd, dst_fd)


def open_directory(name: str | bytes, dir_fd: int) -> int:
    """Open a directory that its owner may have closed to himself, and make it workable (u+rwx).

    Never through a symbolic link. Only for directories that are about to be changed or removed.
    """
    fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        mode = os.fstat(fd).st_mode & 0o7777
        if mode & 0o700 != 0o700:
            os.chmod(f"/proc/self/fd/{fd}", mode | 0o700)
        return os.open(".", DIRECTORY, dir_fd=fd)
    finally:
        os.close(fd)


def open_own_file(name: str, dir_fd: int) -> int:
    """Open a file for reading, also one whose mode forbids that to its ordinary owner.

    The mode is widened for the owner alone during the call and put back before it returns.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=dir_fd)
    except PermissionError:
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        found = os.fstat(handle)
        if found.st_uid != os.geteuid():
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
        real = f"/proc/self/fd/{handle}"
        os.chmod(real, found.st_mode & 0o7777 | 0o400)
        try:
            return os.open(real, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.chmod(real, found.st_mode & 0o7777)
    finally:
        os.close(handle)


def remove_tree(name: str | bytes, dir_fd: int) -> None:
    """Remove a directory with all it holds, of any depth and also through read-only directories.

    An absent name and names that vanish meanwhile are no error. Symbolic links are removed, never
    followed. One descriptor is open at a time.
    """
    try:
        current = open_directory(name, dir_fd)
    except FileNotFoundError:
        return
    try:
        pending = [_empty_of_files(current)]
        below: list[bytes] = []
        while below or pending[-1]:
            if pending[-1]:
                child = pending[-1].pop()
                current = _step(current, open_directory(child, current))
                below.append(child)
                pending.append(_empty_of_files(current))
            else:
                pending.pop()
                current = _step(current, os.open("..", DIRECTORY, dir_fd=current))
                with suppress(FileNotFoundError):
                    os.rmdir(below.pop(), dir_fd=current)
    finally:
        os.close(current)
    with suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=dir_fd)


def _step(old_fd: int, new_fd: int) -> int:
    os.close(old_fd)
    return new_fd


def _empty_of_files(fd: int) -> list[bytes]:
    """Unlink all that is no directory; returns the names of the directories."""
    directories = []
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(os.fsencode(entry.name))
            else:
                with suppress(FileNotFoundError):
                    os.unlink(entry.name, dir_fd=fd)
    return directories
