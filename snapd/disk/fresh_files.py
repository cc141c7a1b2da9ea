"""Files of a destination in which nothing is yet: linked or shared in one step each, side by side.

Nobody else puts anything there, so nothing is looked at before. What does not go that way, for
whatever reason, is left to the long way, which replaces what is there and says what is wrong.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from snapd.disk import fsops
from snapd.model.errors import SnapsyncError

if TYPE_CHECKING:
    from array import array

    from snapd.disk.destination import Destination
    from snapd.disk.tree_source import TreeSource
    from snapd.model.manifest import Manifest

Make = Callable[[bytes, bytes, int, int], bool]
"""Makes the file of that name and mode, in octal digits, of the one in another directory.

Takes the descriptors of that directory and of its own. False, or any `OSError`: it did not.
"""

PLAIN_MODE_DIGITS = 3
"""Longer modes have bits that a tree does not, or that are given last."""

_STRETCH_LINES_MIN = 256
_STRETCH_LINES_MAX = 1024
_FILES_A_LOOK = 16
"""Files after which a forked process looks whether it is still wanted."""

_SOURCE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Stretch(NamedTuple):
    """Lines of a manifest, from the first up to but not with the end."""

    first: int
    end: int


class FreshFiles:
    """Makes the files of one manifest a stretch at a time; the directories are there already."""

    def __init__(
        self, manifest: Manifest, source: TreeSource, target: Destination, make: Make
    ) -> None:
        self._manifest = manifest
        self._source = source
        self._target = target
        self._make = make
        self.stretches: list[Stretch] = []
        self._directories: array[int] | list[int] = []
        self._owner = os.getpid()

    def cut(self, directories: array[int]) -> None:
        """Cut the lines so that few directories are in two stretches, for each has a lock.

        `directories` are the indexes of their lines, in ascending order.
        """
        self._directories = directories
        first = 0
        for index in (*directories[1:], len(self._manifest)):
            if index - first < _STRETCH_LINES_MIN and index < len(self._manifest):
                continue
            for begin in range(first, index, _STRETCH_LINES_MAX):
                self.stretches.append(Stretch(begin, min(begin + _STRETCH_LINES_MAX, index)))
            first = index

    def files_in(self, first: int, end: int) -> int:
        """Count the files of some lines."""
        directories = self._directories
        return end - first - bisect_left(directories, end) + bisect_left(directories, first)

    def work(self, number: int) -> tuple[int, int]:
        """Make the files of one stretch; tells how many lines are done, and their stated bytes.

        It stops where something does not go: the first line that is not done. A forked process
        also stops soon after the one that forked it is gone, whose lock it holds.
        """
        first, end = self.stretches[number]
        here, done, size_bytes = b"", 0, 0
        source_fd = target_fd = -1
        make = self._make
        is_forked = os.getpid() != self._owner
        with suppress(OSError, SnapsyncError):
            for line in self._manifest.lines_between(first, end):
                if is_forked and done % _FILES_A_LOOK == 0 and os.getppid() != self._owner:
                    break
                kind, mode, _, stated_bytes, path = line.split(b" ", 4)
                if kind == b"F":
                    begin = path.rfind(b"/") + 1
                    if path[:begin] != here:
                        here = path[:begin]
                        source_fd = self._source.at(here[2:])
                        target_fd = self._target.at(here[2:])
                    if not make(path[begin:], mode, source_fd, target_fd):
                        break
                    size_bytes += int(stated_bytes)
                done += 1
        return done, size_bytes


def link_file(name: bytes, mode: bytes, source_dir_fd: int, directory_fd: int) -> bool:
    """Give the tree's own file a second name."""
    if len(mode) > PLAIN_MODE_DIGITS:
        return False
    os.link(name, name, src_dir_fd=source_dir_fd, dst_dir_fd=directory_fd, follow_symlinks=False)
    return True


def share_file(name: bytes, mode: bytes, source_dir_fd: int, directory_fd: int) -> bool:
    """Make a file of its own that shares the blocks of the tree's.

    It has its name before it has its bytes, so this is for directories that are still aside.
    """
    if len(mode) > PLAIN_MODE_DIGITS:
        return False
    wanted = int(mode, 8)
    source_fd = os.open(name, _SOURCE_FLAGS, dir_fd=source_dir_fd)
    try:
        fd = os.open(name, _NEW_FILE_FLAGS, wanted, dir_fd=directory_fd)
        shared = False
        try:
            shared = fsops.reflink(source_fd, fd)
            # The mask of the process, or of the directory's access list, may have taken bits away.
            if shared and os.fstat(fd).st_mode & 0o7777 != wanted:
                os.fchmod(fd, wanted)
        finally:
            os.close(fd)
            if not shared:
                os.unlink(name, dir_fd=directory_fd)
    finally:
        os.close(source_fd)
    return shared
