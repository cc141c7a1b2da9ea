"""Read the files of a walked directory again, and be sure that they are what was hashed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from blake3 import blake3

from snapd.disk.hashing import open_below
from snapd.disk.listing import source_error
from snapd.disk.walk import WalkedTree
from snapd.model.errors import SnapsyncError, SourceChanged
from snapd.model.ids import Digest

_FILE_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class SourceObject(NamedTuple):
    """One distinct content of a walked tree and one file that has it.

    `number` counts the manifest's files, `path` is as in the manifest, `size_bytes` is that of the
    content, also behind a link.
    """

    digest: Digest
    size_bytes: int
    number: int
    path: str


@contextmanager
def open_source(tree: WalkedTree) -> Iterator[Source]:
    """Hold the walked directory open for reading."""
    try:
        root_fd = os.open(tree.root, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    except OSError as exc:
        raise source_error(exc, tree.root) from exc
    try:
        yield Source(tree, root_fd)
    finally:
        os.close(root_fd)


class Source:
    """The files of a walked tree. Blocking; its methods may run in several threads at once.

    Whatever is not any more as it was walked is `SourceChanged`, naming the file.
    """

    def __init__(self, tree: WalkedTree, root_fd: int) -> None:
        self._tree = tree
        self._root_fd = root_fd

    def read(self, item: SourceObject) -> bytes:
        """Read a small file whole; its hash is checked."""
        return read_whole(self.reader(item), item)

    def reader(self, item: SourceObject) -> SourceReader:
        """Open a file for reading in pieces; whoever asks closes it."""
        facts = self._tree.facts
        return open_content(
            self._tree.root,
            self._root_fd,
            item,
            is_link=bool(facts.links[item.number]),
            same=partial(facts.same, item.number),
        )

    def check_unchanged(self) -> None:
        """Compare what tells every file apart with what it was when it was hashed."""
        directory: bytes | None = None
        directory_fd = -1
        number = 0
        try:
            for entry in self._tree.manifest:
                if entry.kind == "D":
                    continue
                parent, _, name = entry.path[2:].encode().rpartition(b"/")
                if parent != directory:
                    if directory_fd >= 0:
                        os.close(directory_fd)
                    directory_fd, directory = -1, None
                    directory_fd, directory = self._open(parent, entry.path), parent
                if not self._is_unchanged(number, name, directory_fd):
                    raise self._changed(entry.path)
                number += 1
        finally:
            if directory_fd >= 0:
                os.close(directory_fd)

    def _open(self, directory: bytes, path: str) -> int:
        try:
            return open_below(self._root_fd, directory)
        except OSError as exc:
            raise source_error(exc, self._shown(path)) from exc

    def _is_unchanged(self, number: int, name: bytes, directory_fd: int) -> bool:
        facts = self._tree.facts
        try:
            own = os.lstat(name, dir_fd=directory_fd)
            if not facts.links[number]:
                return facts.same(number, own)
            content = os.stat(name, dir_fd=directory_fd)
        except OSError:
            return False
        is_same_link = stat.S_ISLNK(own.st_mode) and own.st_size == facts.listed_sizes[number]
        return is_same_link and facts.same(number, content)

    def _shown(self, path: str) -> str:
        return f"{self._tree.root.rstrip('/')}/{path[2:]}"

    def _changed(self, path: str) -> SnapsyncError:
        return _changed(self._shown(path))


def open_content(
    root: str,
    root_fd: int,
    item: SourceObject,
    *,
    is_link: bool,
    same: Callable[[os.stat_result], bool],
) -> SourceReader:
    """Open a hashed file for reading in pieces, if `same` says that it still looks as it did."""
    directory, _, name = item.path[2:].encode().rpartition(b"/")
    shown = f"{root.rstrip('/')}/{item.path[2:]}"
    try:
        directory_fd = open_below(root_fd, directory)
        try:
            flags = _FILE_FLAGS if is_link else _FILE_FLAGS | os.O_NOFOLLOW
            fd = os.open(name, flags, dir_fd=directory_fd)
        finally:
            os.close(directory_fd)
    except OSError as exc:
        raise source_error(exc, shown) from exc
    if not same(os.fstat(fd)):
        os.close(fd)
        raise _changed(shown)
    return SourceReader(fd, item, _changed(shown))


def read_whole(reader: SourceReader, item: SourceObject) -> bytes:
    """Read all of a small file that was just opened, check its hash, and close it."""
    try:
        # One byte more than there should be, to see the end.
        data = reader.read(item.size_bytes + 1)
        reader.check_end()
    finally:
        reader.close()
    return data


def _changed(shown: str) -> SnapsyncError:
    return SourceChanged(f"{shown!r} changed after it was hashed", path=shown)


class SourceReader:
    """One open file, hashed while it is read in order; `left_bytes` are still to be read."""

    def __init__(self, fd: int, item: SourceObject, changed: SnapsyncError) -> None:
        self._fd = fd
        self._item = item
        self._changed = changed
        self._hasher = blake3(max_threads=blake3.AUTO)
        self.left_bytes = item.size_bytes

    def read(self, size_bytes: int) -> bytes:
        """Read the next `size_bytes`, or what is left of the file."""
        try:
            data = os.read(self._fd, size_bytes)
            while len(data) < min(size_bytes, self.left_bytes):
                more = os.read(self._fd, size_bytes - len(data))
                if not more:
                    raise self._changed
                data += more
        except OSError as exc:
            raise source_error(exc, self._item.path) from exc
        self.left_bytes -= len(data)
        self._hasher.update(data)
        return data

    def check_end(self) -> None:
        """Raise `SourceChanged` unless exactly the bytes that were hashed have been read."""
        if self.left_bytes or self._hasher.hexdigest() != self._item.digest:
            raise self._changed

    def close(self) -> None:
        """Close the file; once is enough, twice is no error."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
