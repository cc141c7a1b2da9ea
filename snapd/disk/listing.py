"""List a directory tree into compact columns: names and kinds, before anything is read.

A directory is a block of entries that are sorted as the manifest wants them (a directory's name
ends in `/` and sorts so). Because a name holds no `/`, visiting the blocks depth first gives the
byte order of whole paths.
"""

from __future__ import annotations

import errno
import os
import stat
from array import array
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

from snapd.disk.hashing import Group, open_below
from snapd.model.errors import AccessDenied, ActionFailed, SnapsyncError, SourceChanged, SourceUnfit

if TYPE_CHECKING:
    from snapd.model.exclude import Excludes

FILE, LINKED_FILE, DIRECTORY = 0, 1, 2

_HELD_DESCRIPTORS = 64
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY
_NO_LINK = 0xFFFF
_DANGLING = {errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EACCES}


def source_error(exc: OSError, path: str) -> SnapsyncError:
    """Say what an `OSError` on an entry of the source means for the walk."""
    if isinstance(exc, PermissionError):
        return AccessDenied(
            f"cannot read {path!r}: {exc.strerror}",
            hint="Run as a user who may read it, or exclude it.",
            path=path,
        )
    if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE):
        return SourceChanged(f"{path!r} was removed or replaced meanwhile", path=path)
    return ActionFailed(f"cannot read {path!r}: {exc.strerror or exc}", path=path)


@dataclass
class Listing:
    """The columns. Entry 0 is the first in the root; directory 0 is the root itself.

    Directories are numbered as they are visited, parents before children; files are numbered in
    the manifest's order by `number_files`. Costs the names plus 13 bytes an entry.
    """

    root: str
    names: bytearray = field(default_factory=bytearray)
    name_ends: array[int] = field(default_factory=lambda: array("Q"))
    kinds: bytearray = field(default_factory=bytearray)
    numbers: array[int] = field(default_factory=lambda: array("I"))
    """For each entry: the number of its file or directory."""
    modes: array[int] = field(default_factory=lambda: array("H"))
    """For each directory: mode, first entry, end of entries, depth, entry that names it."""
    firsts: array[int] = field(default_factory=lambda: array("Q"))
    ends: array[int] = field(default_factory=lambda: array("Q"))
    depths: array[int] = field(default_factory=lambda: array("I"))
    own_entries: array[int] = field(default_factory=lambda: array("Q"))
    file_count: int = 0

    def name(self, entry: int) -> bytes:
        """Give an entry's name; a directory's ends in `/`."""
        start = self.name_ends[entry - 1] if entry else 0
        return bytes(self.names[start : self.name_ends[entry]])

    def add_entries(self, names: list[bytes], links: Container[bytes]) -> None:
        """Append the sorted names of one directory; those in `links` were reached through one."""
        ends = accumulate(map(len, names), initial=len(self.names))
        next(ends)
        self.name_ends.extend(ends)
        self.names += b"".join(names)
        self.kinds += bytes(
            DIRECTORY if name.endswith(b"/") else LINKED_FILE if name in links else FILE
            for name in names
        )
        self.numbers.frombytes(bytes(len(names) * self.numbers.itemsize))

    def add_directory(self, mode: int, first: int, depth: int, own_entry: int) -> None:
        """Append a directory whose block are the entries from `first` to the last one."""
        self.modes.append(mode)
        self.firsts.append(first)
        self.ends.append(len(self.kinds))
        self.depths.append(depth)
        self.own_entries.append(own_entry)

    def absolute(self, path: bytes) -> str:
        """Render a path below the root for people and for exclude patterns."""
        return f"{self.root.rstrip('/')}/{os.fsdecode(path)}"

    def number_files(self) -> None:
        """Give every file its number: its place among the files of the manifest."""
        number = 0
        numbers, kinds = self.numbers, self.kinds
        for _, entry in self.in_order():
            if kinds[entry] != DIRECTORY:
                numbers[entry] = number
                number += 1
        self.file_count = number

    def in_order(self) -> Iterator[tuple[int, int]]:
        """Visit (directory it lies in, entry) in the manifest's order; the root has no entry."""
        kinds, numbers = self.kinds, self.numbers
        stack = [(0, self.firsts[0])]
        while stack:
            directory, start = stack.pop()
            for entry in range(start, self.ends[directory]):
                yield directory, entry
                if kinds[entry] == DIRECTORY:
                    below = numbers[entry]
                    stack.append((directory, entry + 1))
                    stack.append((below, self.firsts[below]))
                    break

    def groups(self, files_max: int) -> Iterator[tuple[Group, list[int]]]:
        """Cut all files into groups of one directory each, with the entries they stand for."""
        parts: list[bytes] = []
        for directory in range(len(self.modes)):
            depth = self.depths[directory]
            if depth:
                del parts[depth - 1 :]
                parts.append(self.name(self.own_entries[directory]))
            files = [
                entry
                for entry in range(self.firsts[directory], self.ends[directory])
                if self.kinds[entry] != DIRECTORY
            ]
            if not files:
                continue
            path = b"".join(parts)
            for start in range(0, len(files), files_max):
                entries = files[start : start + files_max]
                links = bytes(self.kinds[entry] for entry in entries)
                yield (path, [self.name(entry) for entry in entries], links), entries


class _Descent:
    """The names and some of the descriptors along the path from the root to where we are."""

    def __init__(self, root_fd: int) -> None:
        self.names: list[bytes] = []
        self.fds: list[int | None] = [root_fd]

    def enter(self, depth: int, name: bytes, *, follow: bool) -> int:
        """Go to the directory `name` at `depth`, whose parent is on the path already."""
        self.leave_below(depth)
        parent = self.fds[depth - 1]
        if parent is None:
            parent = open_below(self._root_fd(), b"".join(self.names[: depth - 1]))
            self.fds[depth - 1] = parent
        flags = _DIRECTORY_FLAGS if follow else _DIRECTORY_FLAGS | os.O_NOFOLLOW
        fd = os.open(name.rstrip(b"/"), flags, dir_fd=parent)
        self.names.append(name)
        self.fds.append(fd)
        if depth > _HELD_DESCRIPTORS:
            self._close(depth - _HELD_DESCRIPTORS)
        return fd

    def leave_below(self, depth: int) -> None:
        """Forget everything at `depth` and deeper."""
        for level in range(depth, len(self.fds)):
            self._close(level)
        del self.fds[depth:], self.names[max(depth - 1, 0) :]

    def _root_fd(self) -> int:
        root_fd = self.fds[0]
        assert root_fd is not None
        return root_fd

    def _close(self, level: int) -> None:
        fd = self.fds[level]
        if fd is not None and level > 0:
            os.close(fd)
            self.fds[level] = None


class Lister:
    """One listing of one tree; `run` once.

    `on_listed` is called with the number of entries now and then, and may raise to stop.
    """

    def __init__(
        self,
        root: str,
        root_fd: int,
        *,
        follow: bool,
        excludes: Excludes | None,
        on_listed: Callable[[int], None],
    ) -> None:
        self._follow = follow
        self._excludes = excludes
        self._on_listed = on_listed
        self._listing = Listing(root)
        self._descent = _Descent(root_fd)
        self._root_fd = root_fd
        self._ancestors: list[tuple[int, int]] = []
        self._on_path: set[tuple[int, int]] = set()
        # Directories that are named but not visited: the entry, its depth, and the link's mode.
        self._pending = array("Q")
        self._pending_depths = array("I")
        self._pending_modes = array("H")

    def run(self, root_mode: int) -> Listing:
        """List everything; the root has the mode of what was named, which may be a link."""
        try:
            self._list_block(self._root_fd, root_mode, 0, 0)
            while self._pending:
                self._visit_next()
        finally:
            self._descent.leave_below(1)
        self._listing.number_files()
        return self._listing

    def _visit_next(self) -> None:
        entry, depth = self._pending.pop(), self._pending_depths.pop()
        mode = self._pending_modes.pop()
        name = self._listing.name(entry)
        is_link = mode != _NO_LINK
        try:
            fd = self._descent.enter(depth, name, follow=is_link)
        except OSError as exc:
            raise source_error(exc, self._path(depth, name)) from exc
        self._listing.numbers[entry] = len(self._listing.modes)
        self._list_block(fd, mode, depth, entry)

    def _list_block(self, fd: int, mode: int, depth: int, own_entry: int) -> None:
        listing = self._listing
        status = os.fstat(fd)
        self._refuse_cycle((status.st_dev, status.st_ino), depth, is_link=mode != _NO_LINK)
        first = len(listing.kinds)
        try:
            names, links = self._read(fd, depth)
        except OSError as exc:
            raise source_error(exc, self._path(depth)) from exc
        listing.add_entries(names, links)
        listing.add_directory(
            status.st_mode & 0o7777 if mode == _NO_LINK else mode, first, depth, own_entry
        )
        for index in range(len(names) - 1, -1, -1):
            if names[index].endswith(b"/"):
                self._pending.append(first + index)
                self._pending_depths.append(depth + 1)
                self._pending_modes.append(links.get(names[index], _NO_LINK))
        self._on_listed(len(listing.kinds))

    def _read(self, fd: int, depth: int) -> tuple[list[bytes], dict[bytes, int]]:
        """Give the names of a directory in order, and the modes of those that are links."""
        names: list[bytes] = []
        links: dict[bytes, int] = {}
        prefix = self._path(depth) if self._excludes is not None else ""
        with os.scandir(fd) as found:
            for item in found:
                if item.is_file(follow_symlinks=False):
                    suffix = b""
                elif item.is_dir(follow_symlinks=False):
                    suffix = b"/"
                else:
                    if self._follow and item.is_symlink():
                        self._add_link(item, prefix, names, links, depth)
                    continue
                if not self._is_excluded(prefix, item.name):
                    names.append(self._fit_name(item.name, depth, suffix))
        names.sort()
        return names, links

    def _add_link(
        self,
        item: os.DirEntry[str],
        prefix: str,
        names: list[bytes],
        links: dict[bytes, int],
        depth: int,
    ) -> None:
        if self._is_excluded(prefix, item.name):
            return
        try:
            target_mode = item.stat().st_mode
        except OSError as exc:
            if exc.errno in _DANGLING:
                return
            raise source_error(exc, self._path(depth, os.fsencode(item.name))) from exc
        if stat.S_ISREG(target_mode):
            name = self._fit_name(item.name, depth, b"")
        elif stat.S_ISDIR(target_mode):
            name = self._fit_name(item.name, depth, b"/")
        else:
            return
        names.append(name)
        links[name] = item.stat(follow_symlinks=False).st_mode & 0o7777

    def _is_excluded(self, prefix: str, name: str) -> bool:
        return self._excludes is not None and self._excludes.matches(prefix + name)

    def _fit_name(self, name: str, depth: int, suffix: bytes) -> bytes:
        try:
            raw = name.encode()
        except UnicodeEncodeError as exc:
            path = self._path(depth, os.fsencode(name))
            raise SourceUnfit(f"the name is not UTF-8: {path!r}", path=path) from exc
        if b"\n" in raw or (not suffix and raw.endswith(b"\r")):
            path = self._path(depth, raw)
            what = "holds a line feed" if b"\n" in raw else "is a file's and ends in CR"
            raise SourceUnfit(f"the format can't carry a name that {what}: {path!r}", path=path)
        return raw + suffix

    def _refuse_cycle(self, identity: tuple[int, int], depth: int, *, is_link: bool) -> None:
        if not self._follow:
            return
        self._on_path.difference_update(self._ancestors[depth:])
        del self._ancestors[depth:]
        if identity in self._on_path:
            path = self._path(depth).rstrip("/")
            kind = "link" if is_link else "directory below a link"
            raise SourceUnfit(
                f"the {kind} {path!r} leads back to a directory that it lies in",
                hint="Remove or exclude the link, or use --no-follow.",
                path=path,
            )
        self._ancestors.append(identity)
        self._on_path.add(identity)

    def _path(self, depth: int, name: bytes = b"") -> str:
        """Give the absolute path of something in the directory at `depth` on the current path."""
        return self._listing.absolute(b"".join(self._descent.names[:depth]) + name)
