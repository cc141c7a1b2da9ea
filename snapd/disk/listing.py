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
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from snapd.disk.hashing import open_below
from snapd.model.errors import AccessDenied, ActionFailed, SnapsyncError, SourceChanged, SourceUnfit

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from snapd.model.exclude import Excludes

FILE, LINKED_FILE, DIRECTORY = 0, 1, 2

_HELD_DESCRIPTORS = 64
_NAME_MAX_BYTES = 255
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


class Listing:
    """The columns. Entry 0 is the first in the root; directory 0 is the root itself.

    Directories are numbered as they are visited, parents before children; files are numbered by
    directory and then by name. Costs the names plus 14 bytes an entry and 64 a directory.
    """

    __slots__ = (
        "depths",
        "devices",
        "ends",
        "file_count",
        "file_firsts",
        "firsts",
        "inodes",
        "kinds",
        "modes",
        "name_ends",
        "names",
        "numbers",
        "own_entries",
        "parents",
        "root",
    )

    def __init__(self, root: str) -> None:
        self.root = root
        self.names = bytearray()
        """Every name ends with LF, which no name holds."""
        self.name_ends = array("Q")
        self.kinds = bytearray()
        self.numbers = array("I")
        """For each entry that is a directory: its number."""
        # For each directory: what `fstat` gives (a linked one has the link's mode), its entries,
        # its first file, its depth, the directory it lies in and the entry that names it.
        self.modes = array("H")
        self.devices = array("Q")
        self.inodes = array("Q")
        self.firsts = array("Q")
        self.ends = array("Q")
        self.file_firsts = array("Q")
        self.depths = array("I")
        self.parents = array("I")
        self.own_entries = array("Q")
        self.file_count = 0

    def name(self, entry: int) -> bytes:
        """Give an entry's name; a directory's ends in `/`."""
        start = self.name_ends[entry - 1] if entry else 0
        return bytes(self.names[start : self.name_ends[entry] - 1])

    def names_between(self, first: int, end: int) -> list[bytes]:
        """Give the names of some entries in a row, at least one."""
        start = self.name_ends[first - 1] if first else 0
        return bytes(self.names[start : self.name_ends[end - 1] - 1]).split(b"\n")

    def add_entries(self, names: list[bytes], directories: int, links: Collection[bytes]) -> None:
        """Append the sorted names of one directory, of which some name directories themselves.

        Those in `links` were reached through one.
        """
        if not names:
            return
        start = len(self.names)
        self.names += b"\n".join(names)
        self.names += b"\n"
        ends = accumulate([len(name) + 1 for name in names], initial=start)
        next(ends)
        self.name_ends.extend(ends)
        if directories or links:
            self.kinds += bytes(
                DIRECTORY if name.endswith(b"/") else LINKED_FILE if name in links else FILE
                for name in names
            )
        else:
            self.kinds += bytes(len(names))
        self.numbers.frombytes(bytes(len(names) * self.numbers.itemsize))

    def add_directory(
        self, status: os.stat_result, mode: int, first: int, files: int, place: Place
    ) -> None:
        """Append a directory whose block are the entries from `first` to the last one."""
        self.modes.append(mode)
        self.devices.append(status.st_dev)
        self.inodes.append(status.st_ino)
        self.firsts.append(first)
        self.ends.append(len(self.kinds))
        self.file_firsts.append(self.file_count)
        self.depths.append(place.depth)
        self.parents.append(place.parent)
        self.own_entries.append(place.own_entry)
        self.file_count += files

    def absolute(self, path: bytes) -> str:
        """Render a path below the root for people and for exclude patterns."""
        return f"{self.root.rstrip('/')}/{os.fsdecode(path)}"

    def runs(self) -> Iterator[tuple[int, int, int, int]]:
        """Visit everything in the manifest's order: (directory, first entry, end, first file).

        A run is some files of a directory that follow each other, or one directory in it; only
        then is `end` 0. The root itself is not visited.
        """
        kinds, numbers = self.kinds, self.numbers
        stack = [(0, self.firsts[0], 0)]
        while stack:
            directory, start, file = stack.pop()
            end = self.ends[directory]
            found = kinds.find(DIRECTORY, start, end)
            stop = end if found < 0 else found
            if stop > start:
                yield directory, start, stop, file
            if found >= 0:
                yield directory, found, 0, 0
                below = numbers[found]
                stack.append((directory, found + 1, file + stop - start))
                stack.append((below, self.firsts[below], self.file_firsts[below]))

    def files_of(self, directory: int, start: int = 0) -> Iterator[tuple[int, int]]:
        """Give the runs of files (first entry, end) of one directory, from entry `start` on."""
        start, end = max(start, self.firsts[directory]), self.ends[directory]
        while start < end:
            found = self.kinds.find(DIRECTORY, start, end)
            stop = end if found < 0 else found
            if stop > start:
                yield start, stop
            start = stop + 1

    def directories_of(self, directory: int) -> Iterator[int]:
        """Give the numbers of the directories in one directory."""
        found, end = self.firsts[directory] - 1, self.ends[directory]
        while (found := self.kinds.find(DIRECTORY, found + 1, end)) >= 0:
            yield self.numbers[found]

    def end_of_files(self, directory: int) -> int:
        """Give the number after that of the last file of a directory."""
        after = directory + 1
        return self.file_firsts[after] if after < len(self.modes) else self.file_count

    def locate(self, file: int) -> tuple[int, int]:
        """Give the directory and the entry of a file."""
        directory = bisect_right(self.file_firsts, file) - 1
        left = file - self.file_firsts[directory]
        for start, stop in self.files_of(directory):
            if left < stop - start:
                return directory, start + left
            left -= stop - start
        raise IndexError(file)


class Place(NamedTuple):
    """Where a directory lies: how deep, in which one, and which entry names it."""

    depth: int
    parent: int
    own_entry: int


class DirectoryPaths:
    """Gives the paths of directories, cheaply for those that are close to the last one."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._chain: list[int] = []
        self._parts: list[bytes] = []

    def of(self, directory: int) -> bytes:
        """Give the path below the root: empty, or it ends in `/`."""
        listing = self._listing
        way = []
        depth = listing.depths[directory]
        while depth and not (depth <= len(self._chain) and self._chain[depth - 1] == directory):
            way.append(directory)
            directory = listing.parents[directory]
            depth -= 1
        del self._chain[depth:], self._parts[depth:]
        for below in reversed(way):
            self._chain.append(below)
            self._parts.append(listing.name(listing.own_entries[below]))
        return b"".join(self._parts)


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
        self._pending_parents = array("I")
        self._pending_modes = array("H")

    def run(self, root_mode: int) -> Listing:
        """List everything; the root has the mode of what was named, which may be a link."""
        try:
            self._list_block(self._root_fd, root_mode, Place(0, 0, 0))
            while self._pending:
                self._visit_next()
        finally:
            self._descent.leave_below(1)
        return self._listing

    def _visit_next(self) -> None:
        entry, depth = self._pending.pop(), self._pending_depths.pop()
        mode, parent = self._pending_modes.pop(), self._pending_parents.pop()
        name = self._listing.name(entry)
        is_link = mode != _NO_LINK
        try:
            fd = self._descent.enter(depth, name, follow=is_link)
        except OSError as exc:
            raise source_error(exc, self._path(depth, name)) from exc
        self._listing.numbers[entry] = len(self._listing.modes)
        self._list_block(fd, mode, Place(depth, parent, entry))

    def _list_block(self, fd: int, mode: int, place: Place) -> None:
        listing, depth = self._listing, place.depth
        status = os.fstat(fd)
        self._refuse_cycle((status.st_dev, status.st_ino), depth, is_link=mode != _NO_LINK)
        first, own = len(listing.kinds), len(listing.modes)
        links: dict[bytes, int] = {}
        try:
            files, directories = self._read(fd, depth, links)
        except OSError as exc:
            raise source_error(exc, self._path(depth)) from exc
        names = files + directories
        names.sort()
        listing.add_entries(names, len(directories), links)
        if mode == _NO_LINK:
            mode = status.st_mode & 0o7777
        listing.add_directory(status, mode, first, len(files), place)
        if directories:
            for index in range(len(names) - 1, -1, -1):
                if names[index].endswith(b"/"):
                    self._pending.append(first + index)
                    self._pending_depths.append(depth + 1)
                    self._pending_parents.append(own)
                    self._pending_modes.append(links.get(names[index], _NO_LINK))
        self._on_listed(len(listing.kinds))

    def _read(
        self, fd: int, depth: int, links: dict[bytes, int]
    ) -> tuple[list[bytes], list[bytes]]:
        """Give the names of the files and directories in a directory; of links also the modes."""
        files: list[str] = []
        directories: list[str] = []
        linked: tuple[list[bytes], list[bytes]] = ([], [])
        prefix = self._path(depth) if self._excludes is not None else ""
        with os.scandir(fd) as found:
            for item in found:
                if item.is_file(follow_symlinks=False):
                    files.append(item.name)
                elif item.is_dir(follow_symlinks=False):
                    directories.append(item.name)
                elif self._follow and item.is_symlink():
                    self._add_link(item, prefix, linked, links, depth)
        if self._excludes is not None:
            files = [name for name in files if not self._is_excluded(prefix, name)]
            directories = [name for name in directories if not self._is_excluded(prefix, name)]
        fit_files = self._fit_names(files, depth, b"") + linked[0]
        fit_directories = self._fit_names(directories, depth, b"/") + linked[1]
        self._refuse_twins(fit_files, fit_directories, depth)
        return fit_files, fit_directories

    def _refuse_twins(self, files: list[bytes], directories: list[bytes], depth: int) -> None:
        """Refuse what a directory shows twice because it changes while it is read."""
        distinct = {*files, *(name[:-1] for name in directories)}
        if len(distinct) != len(files) + len(directories):
            path = self._path(depth)
            raise SourceChanged(f"{path!r} changed while it was listed", path=path)

    def _fit_names(self, names: list[str], depth: int, suffix: bytes) -> list[bytes]:
        """Encode names and see that the format can carry them: all at once, as most can."""
        text = "\n".join(names)
        if text.isascii() and "\r" not in text and text.count("\n") == len(names) - 1:
            fit = text.encode().split(b"\n") if names else []
            return [name + suffix for name in fit] if suffix else fit
        return [self._fit_name(name, depth, suffix) for name in names]

    def _add_link(
        self,
        item: os.DirEntry[str],
        prefix: str,
        found: tuple[list[bytes], list[bytes]],
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
            found[0].append(name)
        elif stat.S_ISDIR(target_mode):
            name = self._fit_name(item.name, depth, b"/")
            found[1].append(name)
        else:
            return
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
        if len(raw) > _NAME_MAX_BYTES:
            path = self._path(depth, raw)
            raise SourceUnfit(
                f"the format can't carry a name of {len(raw)} bytes: {path!r}", path=path
            )
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
