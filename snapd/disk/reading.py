"""Read small files once: hash them, and give the very bytes that were hashed to whoever needs them.

In this process, because the bytes are needed here. One thread does some 10,000 files a second.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from blake3 import blake3

from snapd.disk.hashing import (
    LARGE_FILE_BYTES,
    Columns,
    ContentChanged,
    FileRow,
    FileToHash,
    Group,
    read_once,
    with_group,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    GiveContent = Callable[[FileToHash, FileRow, bytes], None]


def read_and_give(
    root_fd: int, group: Group, columns: Columns, give: GiveContent
) -> tuple[list[int], int]:
    """Do what `hash_group` does, and give each small file's row and bytes.

    A file that is too large to be held is only looked at, as when it is hashed by a worker.
    """

    def read_one(directory_fd: int, file: FileToHash) -> FileRow:
        row, data = read_file(directory_fd, file.name, file.is_link)
        if row[-1]:
            give(file, row, data)
        return row

    return with_group(root_fd, group, columns, read_one)


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
