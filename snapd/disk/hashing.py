"""Hash files of a directory tree, group by group, into columns that processes share.

Nothing here knows the project's errors: what went wrong is an `OSError` or a `ContentChanged`
within a `FileFailure`, and the walk, which knows the whole path, translates it.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Sequence
from struct import Struct
from typing import TYPE_CHECKING

from blake3 import blake3

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Hasher(Protocol):
        """What a hash of either kind can."""

        def update(self, data: memoryview, /) -> object:
            """Take the next bytes."""
            ...

        def digest(self) -> bytes:
            """Tell the hash of all that was taken."""
            ...


LARGE_FILE_BYTES = 1024 * 1024
"""From this size on a file is worth a thread of its own, and is hashed after the small ones."""

READ_BYTES = 512 * 1024
"""One read of a large file. It stays in the processor's own cache until it is hashed, and so costs
no more than a memory map; a file that is cut short meanwhile is an error instead of a SIGBUS."""

WIDE_READ_BYTES = 8 * 1024 * 1024
"""One read of a large file where all processors hash the same one."""

CHANGED = -1
"""Stands for `ContentChanged` where an errno is expected."""

ROW = Struct("<5Q2q")
"""mode, size column, content bytes, device, inode, mtime_ns, ctime_ns. Mode and size column are
those of the link where a link is followed."""

ROW_FIELDS = 7
_FIRST_SIGNED = 5
DIGEST_BYTES = 32

FileRow = tuple[int, int, int, int, int, int, int, bytes]
"""The fields of `ROW`, and the digest, which is empty if the file is too large for here.

Where SHA-256 is wanted too it follows in the same bytes."""

Group = tuple[bytes, list[bytes], bytes, Sequence[int]]
"""Path of a directory below the root, names in it, for each name whether it is a link (not 0), and
its number among the files."""

_FILE_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY
_PATH_CHUNK_BYTES = 3000


class ContentChanged(Exception):
    """A file was not the same before and after it was read, twice in a row."""


class FileToHash:
    """A file on its way through the hashing: where it is, and its number among the files."""

    __slots__ = ("directory", "is_link", "name", "number")

    def __init__(self, number: int, directory: bytes, name: bytes, is_link: bool) -> None:
        self.number = number
        self.directory = directory
        self.name = name
        self.is_link = is_link


class FileFailure(Exception):
    """The file of this number could not be hashed; `code` is an errno or `CHANGED`."""

    def __init__(self, number: int, code: int) -> None:
        super().__init__(number, code)
        self.number = number
        self.code = code


class Columns:
    """A `ROW` and a digest for each file, zero until it is known; forked processes share them.

    `sha256` has the second digest of each file, or nothing if that is not wanted.
    """

    __slots__ = ("count", "digests", "rows", "sha256")

    def __init__(self, count: int, *, sha256: bool = False) -> None:
        self.count = count
        rows_end = count * ROW.size
        digests_end = rows_end + count * DIGEST_BYTES
        end = digests_end + count * DIGEST_BYTES if sha256 else digests_end
        memory = memoryview(mmap.mmap(-1, max(1, end)))
        self.rows = memory[:rows_end]
        self.digests = memory[rows_end:digests_end]
        self.sha256 = memory[digests_end:end]

    def put(self, number: int, row: FileRow) -> None:
        """Write down what is known of one file."""
        ROW.pack_into(self.rows, ROW.size * number, *row[:-1])
        if row[-1]:
            start = DIGEST_BYTES * number
            self.digests[start : start + DIGEST_BYTES] = row[-1][:DIGEST_BYTES]
            if self.sha256:
                self.sha256[start : start + DIGEST_BYTES] = row[-1][DIGEST_BYTES:]

    def row(self, number: int) -> FileRow:
        """Give what is known of one file."""
        digest = bytes(self.digests[DIGEST_BYTES * number : DIGEST_BYTES * (number + 1)])
        return (*ROW.unpack_from(self.rows, ROW.size * number), digest)

    def column(self, field: int, first: int = 0, end: int | None = None) -> memoryview:
        """Give one field of the rows of some files."""
        end = self.count if end is None else end
        fields = self.rows.cast("q") if field >= _FIRST_SIGNED else self.rows.cast("Q")
        return fields[ROW_FIELDS * first + field : ROW_FIELDS * end : ROW_FIELDS]


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


def hash_file(
    directory_fd: int, name: bytes, is_link: bool, buffer: memoryview, *, sha256: bool = False
) -> FileRow:
    """Hash one file; one of `LARGE_FILE_BYTES` or more is only looked at.

    `buffer` has room for `LARGE_FILE_BYTES`. A file that changes meanwhile is read once more, then
    `ContentChanged`.
    """

    def digest(fd: int, size_bytes: int) -> bytes | None:
        return _small_digest(fd, size_bytes, buffer, sha256)

    return _hash_twice(directory_fd, name, is_link, digest)


def hash_large_file(
    directory_fd: int,
    name: bytes,
    is_link: bool,
    buffer: memoryview,
    on_bytes: Callable[[int], None],
    threads: int = 1,
    *,
    sha256: bool = False,
) -> FileRow:
    """Hash one file of any size through `buffer`; `on_bytes` may raise to stop."""

    def digest(fd: int, size_bytes: int) -> bytes | None:
        hashers: tuple[Hasher, ...] = (blake3(max_threads=threads),)
        if sha256:
            hashers += (new_sha256(),)
        return _large_digest(fd, size_bytes, buffer, on_bytes, hashers)

    return _hash_twice(directory_fd, name, is_link, digest)


def _hash_twice(
    directory_fd: int, name: bytes, is_link: bool, digest_of: Callable[[int, int], bytes | None]
) -> FileRow:
    row = read_once(directory_fd, name, is_link, digest_of)
    row = row or read_once(directory_fd, name, is_link, digest_of)
    if row is None:
        raise ContentChanged
    return row


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
    listed = os.lstat(name, dir_fd=directory_fd) if is_link else before
    return (
        listed.st_mode & 0o7777,
        listed.st_size,
        before.st_size,
        before.st_dev,
        before.st_ino,
        before.st_mtime_ns,
        before.st_ctime_ns,
        digest,
    )


def _small_digest(fd: int, size_bytes: int, buffer: memoryview, sha256: bool) -> bytes | None:
    if size_bytes >= LARGE_FILE_BYTES:
        return b""
    # There is room for one byte more than there should be, which tells a file that grew (or has no
    # true size) from its end.
    count = os.readv(fd, [buffer])
    while count < size_bytes and (more := os.readv(fd, [buffer[count:]])):
        count += more
    if count != size_bytes:
        return None
    digest: bytes = blake3(buffer[:count]).digest()
    return digest + new_sha256(buffer[:count]).digest() if sha256 else digest


def _large_digest(
    fd: int,
    size_bytes: int,
    buffer: memoryview,
    on_bytes: Callable[[int], None],
    hashers: Sequence[Hasher],
) -> bytes | None:
    total = 0
    while (count := os.readv(fd, [buffer])) > 0:
        for hasher in hashers:
            hasher.update(buffer[:count])
        total += count
        on_bytes(count)
        if total > size_bytes:
            return None
    return b"".join([hasher.digest() for hasher in hashers]) if total == size_bytes else None


def new_sha256(data: bytes | memoryview = b"") -> Hasher:
    """Begin a SHA-256; the module of it is loaded only where one is wanted."""
    from hashlib import sha256

    return sha256(data, usedforsecurity=False)


def hash_group(
    root_fd: int, group: Group, columns: Columns, buffer: memoryview
) -> tuple[list[int], int]:
    """Hash the small files of a group into `columns`; tell the large ones, and the bytes hashed.

    Raises `FileFailure` for the first that fails.
    """
    sha256 = bool(columns.sha256)

    def hash_one(directory_fd: int, file: FileToHash) -> FileRow:
        return hash_file(directory_fd, file.name, file.is_link, buffer, sha256=sha256)

    return with_group(root_fd, group, columns, hash_one)


def with_group(
    root_fd: int, group: Group, columns: Columns, hash_one: Callable[[int, FileToHash], FileRow]
) -> tuple[list[int], int]:
    """Do what `hash_group` does with another way to hash a file, given its directory."""
    path, names, links, numbers = group
    large: list[int] = []
    hashed_bytes = 0
    number = numbers[0]
    try:
        directory_fd = open_below(root_fd, path)
        try:
            for name, is_link, number in zip(names, links, numbers, strict=True):
                row = hash_one(directory_fd, FileToHash(number, path, name, bool(is_link)))
                columns.put(number, row)
                if row[-1]:
                    hashed_bytes += row[2]
                else:
                    large.append(number)
        finally:
            os.close(directory_fd)
    except ContentChanged as exc:
        raise FileFailure(number, CHANGED) from exc
    except OSError as exc:
        raise FileFailure(number, exc.errno or errno.EIO) from exc
    return large, hashed_bytes


def look_at_group(root_fd: int, group: Group, columns: Columns) -> None:
    """Write down how each file of a group looks, without its digest.

    What can't be looked at, or is no regular file any more, stays zero: hashing it tells why.
    """
    path, names, links, numbers = group
    try:
        directory_fd = open_below(root_fd, path)
    except OSError:
        return
    try:
        look, pack = os.stat, ROW.pack
        rows = bytearray()
        for name, is_link in zip(names, links, strict=True):
            try:
                found = look(name, dir_fd=directory_fd, follow_symlinks=bool(is_link))
                listed = os.lstat(name, dir_fd=directory_fd) if is_link else found
            except OSError:
                rows += bytes(ROW.size)
                continue
            if not stat.S_ISREG(found.st_mode):
                rows += bytes(ROW.size)
                continue
            rows += pack(
                listed.st_mode & 0o7777,
                listed.st_size,
                found.st_size,
                found.st_dev,
                found.st_ino,
                found.st_mtime_ns,
                found.st_ctime_ns,
            )
    finally:
        os.close(directory_fd)
    start = ROW.size * numbers[0]
    columns.rows[start : start + len(rows)] = rows
