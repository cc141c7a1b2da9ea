"""Hash files of a directory tree, batch by batch, in this process or in a worker process.

A worker runs `serve` and imports nothing but this module, so that it starts in a few hundredths of
a second. Nothing here knows the project's errors: what went wrong is an `OSError` or a
`ContentChanged`, and the walk, which knows the whole path, translates it.
"""

from __future__ import annotations

import errno
import marshal
import os
import stat
import sys
from collections.abc import Callable, Iterator

from blake3 import blake3

LARGE_FILE_BYTES = 1024 * 1024
"""From this size on a file is hashed by the library's own threads, in the walking process."""

BUFFER_BYTES = 8 * 1024 * 1024
"""One read of a large file. Plain reads into a reused buffer hash as fast as a memory map does,
and a file that is cut short meanwhile is an error instead of a SIGBUS."""

CHANGED = -1
"""Stands for `ContentChanged` where an errno is expected in a worker's answer."""

FileRow = tuple[int, int, int, int, int, int, int, bytes]
"""mode, size column, content bytes, device, inode, mtime_ns, ctime_ns, digest (empty: too large
to be hashed here). Mode and size column are those of the link where a link is followed."""

Group = tuple[bytes, list[bytes], bytes]
"""Path of a directory below the root, names in it, and for each name 1 if it is a link."""

_FILE_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY
_PATH_CHUNK_BYTES = 3000


class ContentChanged(Exception):
    """A file was not the same before and after it was read, twice in a row."""


def open_below(root_fd: int, path: bytes) -> int:
    """Open the directory `path` (b"" or b"a/b") below `root_fd`, however long the path is."""
    try:
        return _open_in_chunks(root_fd, path, _PATH_CHUNK_BYTES)
    except OSError as exc:
        if exc.errno != errno.ELOOP:
            raise
    # The kernel follows 40 links in one look-up, however innocent; one component at a time has
    # no such limit, and the walk has made sure that there is no cycle.
    return _open_in_chunks(root_fd, path, 0)


def _open_in_chunks(root_fd: int, path: bytes, chunk_bytes: int) -> int:
    here = os.open(b".", _DIRECTORY_FLAGS, dir_fd=root_fd)
    while path:
        if len(path) <= chunk_bytes:
            head, path = path, b""
        else:
            cut = path.rfind(b"/", 0, chunk_bytes) if chunk_bytes else path.find(b"/")
            head, path = (path, b"") if cut < 0 else (path[:cut], path[cut + 1 :])
        try:
            below = os.open(head, _DIRECTORY_FLAGS, dir_fd=here)
        finally:
            os.close(here)
        here = below
    return here


def hash_file(directory_fd: int, name: bytes, is_link: bool) -> FileRow:
    """Hash one file; one of `LARGE_FILE_BYTES` or more is only looked at.

    A file that changes meanwhile is read once more, then `ContentChanged`.
    """
    for _ in range(2):
        row = read_once(directory_fd, name, is_link, _small_digest)
        if row is not None:
            return row
    raise ContentChanged


def hash_large_file(
    directory_fd: int,
    name: bytes,
    is_link: bool,
    buffer: bytearray,
    on_bytes: Callable[[int], None],
) -> FileRow:
    """Hash one file of any size through `buffer`; `on_bytes` may raise to stop."""

    def digest(fd: int, size_bytes: int) -> bytes | None:
        return _large_digest(fd, size_bytes, buffer, on_bytes)

    for _ in range(2):
        row = read_once(directory_fd, name, is_link, digest)
        if row is not None:
            return row
    raise ContentChanged


def read_once(
    directory_fd: int, name: bytes, is_link: bool, digest_of: Callable[[int, int], bytes | None]
) -> FileRow | None:
    """Look at a file, let `digest_of(fd, size)` read it, look again; None if it was changing."""
    flags = _FILE_FLAGS if is_link else _FILE_FLAGS | os.O_NOFOLLOW
    fd = os.open(name, flags, dir_fd=directory_fd)
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            return None
        digest = digest_of(fd, before.st_size)
        if digest is None:
            return None
        if digest:
            after = os.fstat(fd)
            if (
                before.st_mtime_ns != after.st_mtime_ns
                or before.st_ctime_ns != after.st_ctime_ns
                or before.st_size != after.st_size
            ):
                return None
    finally:
        os.close(fd)
    mode, size_column = before.st_mode, before.st_size
    if is_link:
        link = os.lstat(name, dir_fd=directory_fd)
        mode, size_column = link.st_mode, link.st_size
    return (
        mode & 0o7777,
        size_column,
        before.st_size,
        before.st_dev,
        before.st_ino,
        before.st_mtime_ns,
        before.st_ctime_ns,
        digest,
    )


def _small_digest(fd: int, size_bytes: int) -> bytes | None:
    if size_bytes >= LARGE_FILE_BYTES:
        return b""
    # One byte more than there should be tells a file that grew (or has no true size) from its end.
    data = os.read(fd, size_bytes + 1)
    while len(data) < size_bytes and (more := os.read(fd, size_bytes + 1 - len(data))):
        data += more
    return blake3(data).digest() if len(data) == size_bytes else None


def _large_digest(
    fd: int, size_bytes: int, buffer: bytearray, on_bytes: Callable[[int], None]
) -> bytes | None:
    hasher = blake3(max_threads=blake3.AUTO)
    view = memoryview(buffer)
    total = 0
    while (count := os.readv(fd, [buffer])) > 0:
        hasher.update(view[:count])
        total += count
        on_bytes(count)
        if total > size_bytes:
            return None
    return hasher.digest() if total == size_bytes else None


def hash_groups(root_fd: int, groups: list[Group]) -> Iterator[FileRow | int]:
    """Hash the files of some directories; an errno (or `CHANGED`) in the place of the first that
    fails ends it."""
    for path, names, links in groups:
        try:
            directory_fd = open_below(root_fd, path)
        except OSError as exc:
            yield exc.errno or errno.EIO
            return
        try:
            for name, is_link in zip(names, links, strict=True):
                yield hash_file(directory_fd, name, bool(is_link))
        except ContentChanged:
            yield CHANGED
            return
        except OSError as exc:
            yield exc.errno or errno.EIO
            return
        finally:
            os.close(directory_fd)


def serve(root_fd: int) -> None:
    """Answer batches on standard input until it ends: the main loop of a worker process."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            groups: list[Group] = marshal.load(requests)
        except EOFError:
            return
        marshal.dump(list(hash_groups(root_fd, groups)), answers)
        answers.flush()
