"""Put one file of a tree at its place in a checkout: by reflink, copy or hard link.

A file that is already right is kept, but only if no other name shares its inode: giving it its mode
would change the mode of a file outside.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, NamedTuple

from blake3 import blake3

from snapd.disk import fsops
from snapd.disk.destination import place
from snapd.disk.tree_source import unreadable_in_tree
from snapd.model.errors import AccessDenied, ActionFailed, TreeDiffers
from snapd.model.ids import Digest

FileMode = Literal["auto", "reflink", "hardlink", "copy"]
Outcome = Literal["kept", "linked", "reflinked", "copied"]

LARGE_FILE_BYTES = 64 * 1024
"""Larger files are worth a thread of their own; handing over smaller ones costs more than it
gains."""

SETID = stat.S_ISUID | stat.S_ISGID

_READ_BYTES = 1024 * 1024
_SOURCE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FILE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class FileTask(NamedTuple):
    """One file to be laid out under the same name in another directory.

    `mode` is the final one. `existing` is what has the name now, None if it is known to be free.
    `path` is for messages.
    """

    path: str
    name: bytes
    mode: int
    checksum: Digest
    source_dir_fd: int
    directory_fd: int
    existing: os.stat_result | None


class Placing:
    """How the files of one checkout are made; used by several threads at once."""

    def __init__(self, mode: FileMode, *, verify: bool, on_bytes: Callable[[int], None]) -> None:
        self._mode = mode
        self._verify = verify
        self._on_bytes = on_bytes
        self._reflink = mode in ("auto", "reflink")
        self.withheld: list[str] = []
        """Files from whose modes the system withheld a bit, as it does with foreign groups."""

    def link(self, task: FileTask) -> Outcome:
        """Give the tree's own inode a second name; a private copy where that can't be.

        That is where the mode has bits that a tree does not, and where the inode has as many names
        as the file system allows.
        """
        if task.mode > 0o777:
            return self.copy(task, *open_source(task))
        try:
            return self._link(task)
        except FileNotFoundError as exc:
            raise _differs(task) from exc
        except OSError as exc:
            if exc.errno == errno.EMLINK:
                return self.copy(task, *open_source(task))
            if exc.errno == errno.EPERM:
                raise AccessDenied(
                    f"the kernel refuses a hard link to {task.path}",
                    hint="fs.protected_hardlinks lets only the owner of a cache link to its files: "
                    "use --mode auto.",
                ) from exc
            raise

    def _link(self, task: FileTask) -> Outcome:
        if self._verify:
            self._check(open_source(task)[0], task, close=True)
        if task.existing is None:
            try:
                _link(task, task.name)
            except FileExistsError:
                place(task.directory_fd, task.name, lambda new: _link(task, new))
            return "linked"
        found = os.stat(task.name, dir_fd=task.source_dir_fd, follow_symlinks=False)
        if os.path.samestat(found, task.existing):
            return "kept"
        place(task.directory_fd, task.name, lambda new: _link(task, new))
        return "linked"

    def copy(self, task: FileTask, source_fd: int, size_bytes: int) -> Outcome:
        """Make a private file of the same bytes, or keep the one there; closes `source_fd`."""
        try:
            if self.keeps(task, size_bytes, repair=True):
                return "kept"
            outcome: list[Outcome] = []
            place(
                task.directory_fd,
                task.name,
                lambda new: outcome.append(self._make(task, source_fd, size_bytes, new)),
            )
            return outcome[0]
        finally:
            os.close(source_fd)

    def keeps(self, task: FileTask, size_bytes: int, *, repair: bool) -> bool:
        """Tell whether the existing file is right; with `repair` it also gets the right mode."""
        found = task.existing
        if found is None or not stat.S_ISREG(found.st_mode):
            return False
        if found.st_nlink != 1 or found.st_size != size_bytes:
            return False
        try:
            fd = fsops.open_own_file(os.fsdecode(task.name), task.directory_fd)
        except PermissionError:
            return False
        try:
            if self._digest(fd) != task.checksum:
                return False
            return not repair or _has_mode(fd, task.mode)
        finally:
            os.close(fd)

    def _make(self, task: FileTask, source_fd: int, size_bytes: int, name: bytes) -> Outcome:
        fd = os.open(name, _NEW_FILE_FLAGS, 0o600, dir_fd=task.directory_fd)
        try:
            outcome = self._fill(task, source_fd, fd, size_bytes)
            if self._verify:
                self._check(fd, task, close=False)
            os.fchmod(fd, task.mode)
            if task.mode > 0o777 and stat.S_IMODE(os.fstat(fd).st_mode) != task.mode:
                self.withheld.append(task.path)
        finally:
            os.close(fd)
        return outcome

    def _fill(self, task: FileTask, source_fd: int, fd: int, size_bytes: int) -> Outcome:
        if self._reflink and size_bytes:
            if fsops.reflink(source_fd, fd):
                return "reflinked"
            if self._mode == "reflink":
                raise ActionFailed(
                    "the file systems of the tree and the destination can't share blocks",
                    hint="Use --mode auto or copy, or a destination on the cache's file system "
                    "(btrfs, or xfs with reflink=1).",
                )
            self._reflink = False
        if size_bytes <= LARGE_FILE_BYTES:
            data = os.read(source_fd, size_bytes)
            fsops.write_all(fd, data)
            copied = len(data)
        else:
            copied = fsops.copy(source_fd, fd, self._on_bytes)
        if copied != size_bytes:
            raise _differs(task)
        return "copied"

    def _check(self, fd: int, task: FileTask, *, close: bool) -> None:
        try:
            if self._digest(fd) != task.checksum:
                raise _differs(task)
        finally:
            if close:
                os.close(fd)

    def _digest(self, fd: int) -> Digest:
        hasher = blake3()
        offset = 0
        while piece := os.pread(fd, _READ_BYTES, offset):
            hasher.update(piece)
            offset += len(piece)
            self._on_bytes(0)
        return Digest(hasher.hexdigest())


def open_source(task: FileTask) -> tuple[int, int]:
    """Open the tree's file and tell its size.

    Raises `TreeDiffers` if there is none or it is something else.

    Raises `AccessDenied` if the caller may not read it.
    """
    try:
        fd = os.open(task.name, _SOURCE_FLAGS, dir_fd=task.source_dir_fd)
    except FileNotFoundError as exc:
        raise _differs(task) from exc
    except PermissionError as exc:
        raise unreadable_in_tree(task.path) from exc
    except OSError as exc:
        if exc.errno == errno.ELOOP:
            raise _differs(task) from exc
        raise
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise _differs(task)
    return fd, found.st_size


def _link(task: FileTask, name: bytes) -> None:
    os.link(
        task.name,
        name,
        src_dir_fd=task.source_dir_fd,
        dst_dir_fd=task.directory_fd,
        follow_symlinks=False,
    )


def _has_mode(fd: int, mode: int) -> bool:
    """Give a kept file its mode; False if somebody else owns it, so that it must be replaced."""
    if os.fstat(fd).st_mode & 0o7777 == mode:
        return True
    with suppress(PermissionError):
        os.fchmod(fd, mode)
        return True
    return False


def _differs(task: FileTask) -> TreeDiffers:
    return TreeDiffers(
        f"the tree in the cache does not hold {task.checksum} as {task.path}",
        object=task.checksum,
        hint="The cache's tree was changed or is being removed: pull the snapshot again.",
    )
