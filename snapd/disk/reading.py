"""Read small files once: hash them, and give the very bytes that were hashed to whoever needs them.

In this process, because the bytes are needed here. One thread does some 10,000 files a second.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator, Iterable

from blake3 import blake3

from snapd.disk.hash_workers import Answer, FileToHash
from snapd.disk.hashing import (
    CHANGED,
    LARGE_FILE_BYTES,
    ContentChanged,
    FileRow,
    Group,
    open_below,
    read_once,
)

GiveContent = Callable[[FileToHash, FileRow, bytes], None]


def read_and_give(
    root_fd: int, batches: Iterable[tuple[list[Group], list[FileToHash]]], give: GiveContent
) -> Generator[tuple[list[FileToHash], Answer], None, None]:
    """Answer batches as `hash_inline` does, and give each small file's row and bytes.

    A file that is too large to be held is only looked at, as when it is hashed by a worker.
    """
    for groups, files in batches:
        yield files, _read_groups(root_fd, groups, files, give)


def _read_groups(
    root_fd: int, groups: list[Group], files: Iterable[FileToHash], give: GiveContent
) -> Answer:
    rows: Answer = []
    waiting = iter(files)
    for path, names, _ in groups:
        try:
            directory_fd = open_below(root_fd, path)
        except OSError as exc:
            return [*rows, exc.errno or errno.EIO]
        try:
            for _ in names:
                file = next(waiting)
                row, data = read_file(directory_fd, file.name, file.is_link)
                if row[-1]:
                    give(file, row, data)
                rows.append(row)
        except ContentChanged:
            return [*rows, CHANGED]
        except OSError as exc:
            return [*rows, exc.errno or errno.EIO]
        finally:
            os.close(directory_fd)
    return rows


def read_file(directory_fd: int, name: bytes, is_link: bool) -> tuple[FileRow, bytes]:
    """Read and hash one file; one of `LARGE_FILE_BYTES` or more is only looked at.

    A file that changes meanwhile is read once more, then `ContentChanged`.
    """
    data = b""

    def digest_of(fd: int, size_bytes: int) -> bytes | None:
        nonlocal data
        if size_bytes >= LARGE_FILE_BYTES:
            return b""
        # One byte more than there should be tells a file that grew from its end.
        data = os.read(fd, size_bytes + 1)
        while len(data) < size_bytes and (more := os.read(fd, size_bytes + 1 - len(data))):
            data += more
        return blake3(data).digest() if len(data) == size_bytes else None

    for _ in range(2):
        row = read_once(directory_fd, name, is_link, digest_of)
        if row is not None:
            return row, data
    raise ContentChanged
