"""The directory of one checkout: opened without following it, locked, and changed from inside.

While a checkout is in progress nothing in it is open to anybody who may not see the finished
version: new directories are 0700, new files 0600 until their bytes are complete, and an existing
directory keeps only those permissions that it will still have at the end (and its owner's).
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from snapd.disk import fsops
from snapd.disk.descent import Descent
from snapd.disk.mirror import Rule, extraneous, remove_entry, restrict, split
from snapd.model.errors import (
    ActionFailed,
    DangerousDestination,
    DestinationBusy,
    SnapsyncError,
)
from snapd.model.manifest import Manifest

TEMPORARY = re.compile(rb"\.snapsync-[0-9a-f]{8}")
"""Names of half-done work, of fixed length so that they fit wherever the final name does."""

_NO_LOCKS = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK})
_TREE_LINK = re.compile(r"/trees/[0-9a-f]{64}/?$")
_OWNER_ALL = 0o700
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK_PAUSES_SECONDS = (0.01, 0.04, 0.1, 0.1, 0.0)
"""What a checkout that was killed has forked lives on for a moment, and keeps its lock so long."""


def resolve_destination(destination: Path) -> Path:
    """Tell where a destination really is; its last component is never followed."""
    if destination.name in ("", ".."):
        return Path(os.path.realpath(destination))
    return Path(os.path.realpath(destination.parent)) / destination.name


def temporary_name() -> bytes:
    """Make a new name of half-done work."""
    return b".snapsync-" + os.urandom(4).hex().encode()


class Destination:
    """A directory that this process lays a snapshot out in; paths are `a/b/` below it."""

    def __init__(self, path: Path, root_fd: int, *, fresh: bool) -> None:
        self.path = path
        self.root_fd = root_fd
        self._descent = Descent(root_fd)
        self._fresh_root: bytes | None = b"" if fresh else None
        self._aside: tuple[bytes, int] | None = None
        self._resumed = False

    def close(self) -> None:
        """Let go of all directories but the root, which is the caller's."""
        self._descent.close()
        if self._aside is not None:
            os.close(self._aside[1])
            self._aside = None

    def step_aside(self) -> None:
        """Let everything from now on be made in a temporary directory inside, until `settle`.

        What has its last name there has not its final one yet. Only where all is fresh.
        """
        name = temporary_name()
        os.mkdir(name, _OWNER_ALL, dir_fd=self.root_fd)
        self._enter_aside(name, os.open(name, _DIRECTORY, dir_fd=self.root_fd))

    def resume(self, listed: Rule) -> None:
        """Go on aside where a checkout was killed, if there is nothing but what it left."""
        names = [os.fsencode(name) for name in os.listdir(self.root_fd)]
        if len(names) != 1 or not TEMPORARY.fullmatch(names[0]) or _is_listed(names[0], listed):
            return
        try:
            fd = os.open(names[0], _DIRECTORY, dir_fd=self.root_fd)
        except OSError:
            return
        found = os.fstat(fd)
        if found.st_uid != os.geteuid():
            os.close(fd)
            return
        os.fchmod(fd, _OWNER_ALL)
        self._enter_aside(names[0], fd)
        self._resumed = True

    def _enter_aside(self, name: bytes, fd: int) -> None:
        self._descent.close()
        self._aside = name, fd
        self._descent = Descent(fd)

    def settle(self) -> None:
        """Give what was made aside its final place, each thing at the top in one step."""
        if self._aside is None:
            return
        name, fd = self._aside
        for entry in os.listdir(fd):
            os.rename(entry, entry, src_dir_fd=fd, dst_dir_fd=self.root_fd)
        self.close()
        self._descent = Descent(self.root_fd)
        os.rmdir(name, dir_fd=self.root_fd)

    def settle_after_failure(self) -> None:
        """Give the files that were made their final places, so that none are hidden on a full disk.

        Only while no file is being made. What a killed checkout left half-done stays aside, for
        the next one to go on with.
        """
        if not self._resumed:
            with suppress(OSError):
                self.settle()

    def at(self, directory: bytes) -> int:
        """Give the descriptor of a directory, valid until the next call."""
        return self._descent.at(directory)

    def is_fresh(self, directory: bytes) -> bool:
        """Tell whether nothing but this checkout has put anything into a directory."""
        return self._fresh_root is not None and directory.startswith(self._fresh_root)

    def ensure_directory(self, directory: bytes, mode: int) -> None:
        """Make sure of a real directory, open to its owner; anything else there is replaced.

        Asked for in the manifest's order: a directory's whole content before the next directory.
        """
        parent, name = split(directory)
        parent_fd = self.at(parent)
        if not self.is_fresh(parent):
            self._fresh_root = None
        try:
            os.mkdir(name, _OWNER_ALL, dir_fd=parent_fd)
        except FileExistsError:
            self._take_over(parent_fd, name, directory, mode)
        else:
            self._mark_fresh(directory)

    def _take_over(self, parent_fd: int, name: bytes, directory: bytes, mode: int) -> None:
        found = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            restrict(parent_fd, name, lambda old: old & mode | _OWNER_ALL)
            return
        os.unlink(name, dir_fd=parent_fd)
        os.mkdir(name, _OWNER_ALL, dir_fd=parent_fd)
        self._mark_fresh(directory)

    def _mark_fresh(self, directory: bytes) -> None:
        if self._fresh_root is None:
            self._fresh_root = directory

    def remove_leftovers(self, directory: bytes, listed: Rule) -> None:
        """Remove what a killed checkout left half-done in an existing directory."""
        if self.is_fresh(directory):
            return
        fd = self.at(directory)
        for entry in os.listdir(fd):
            name = os.fsencode(entry)
            if TEMPORARY.fullmatch(name) and not _is_listed(directory + name, listed):
                remove_entry(fd, name)

    def finish_directory(self, directory: bytes, mode: int) -> bool:
        """Give a directory its final mode; False if the system withheld a bit of it."""
        if not directory:
            return _set_mode(self.root_fd, mode)
        return _set_mode(self.at(directory), mode)

    def prune(
        self,
        listed: Rule,
        protected: Rule,
        *,
        remove: bool,
    ) -> Iterator[bytes]:
        """Yield what is not in the snapshot, after removing it if `remove`."""
        return extraneous(self.root_fd, listed=listed, protected=protected, remove=remove)


def place(directory_fd: int, name: bytes, make: Callable[[bytes], object]) -> None:
    """Let `make` create a temporary name, then give it the final one in one step.

    Whatever had the final name is replaced: files and links by the step itself, a directory by
    being moved aside first. After a failure the temporary name is gone and the old entry is there.
    """
    temporary = temporary_name()
    try:
        make(temporary)
        try:
            os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
        except IsADirectoryError:
            _replace_directory(directory_fd, temporary, name)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=directory_fd)
        raise


def _replace_directory(directory_fd: int, temporary: bytes, name: bytes) -> None:
    aside = temporary_name()
    # Only its owner may move a directory, as its '..' changes, if the directory is not writable.
    restrict(directory_fd, name, lambda mode: mode | _OWNER_ALL)
    os.rename(name, aside, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    try:
        os.rename(temporary, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    except BaseException:
        os.rename(aside, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
        raise
    remove_entry(directory_fd, aside)


@contextmanager
def open_destination(path: Path, mode: int) -> Iterator[Destination]:
    """Make or take over the directory at `path` (resolved), for this process alone.

    Missing parents are made. A link to a tree of a cache is replaced; any other link, and a file,
    raise `DangerousDestination`. Raises `DestinationBusy` while another process is at it.
    """
    parent_fd = _open_parent(path)
    try:
        name = os.fsencode(path.name)
        _make_root(parent_fd, name, path)
        _restrict_root(parent_fd, name, lambda old: old | _OWNER_ALL)
        root_fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
        try:
            _lock(root_fd, path)
            _restrict_root(parent_fd, name, lambda old: old & mode | _OWNER_ALL)
            with closing(Destination(path, root_fd, fresh=not os.listdir(root_fd))) as destination:
                yield destination
        finally:
            os.close(root_fd)
    finally:
        os.close(parent_fd)


@contextmanager
def look_at_destination(path: Path) -> Iterator[Destination | None]:
    """Open the directory at `path` for reading only; None if there is no directory to look at.

    Raises `DangerousDestination` where `open_destination` would.
    """
    try:
        fd = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        yield None
        return
    except NotADirectoryError:
        _refuse_unless_tree_link(path)
        yield None
        return
    try:
        with closing(Destination(path, fd, fresh=False)) as destination:
            yield destination
    finally:
        os.close(fd)


def replace_by_link(path: Path, target: Path) -> None:
    """Put a symbolic link at `path` in one step, over a link or an empty directory only."""
    parent_fd = _open_parent(path)
    try:
        name = os.fsencode(path.name)
        found = look(parent_fd, name)
        if found is not None and stat.S_ISDIR(found.st_mode):
            _remove_empty(parent_fd, name, path)
        elif found is not None and not stat.S_ISLNK(found.st_mode):
            raise DangerousDestination(f"a link would replace a file: {path}")
        place(parent_fd, name, lambda new: os.symlink(os.fsencode(target), new, dir_fd=parent_fd))
    finally:
        os.close(parent_fd)


def _remove_empty(parent_fd: int, name: bytes, path: Path) -> None:
    try:
        os.rmdir(name, dir_fd=parent_fd)
    except OSError as exc:
        if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise DangerousDestination(
            f"a link would replace a directory that is not empty: {path}",
            hint="Choose a path that is free, a link, or an empty directory.",
        ) from exc


def _open_parent(path: Path) -> int:
    os.makedirs(path.parent, exist_ok=True)
    return os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _make_root(parent_fd: int, name: bytes, path: Path) -> None:
    found = look(parent_fd, name)
    if found is not None and not stat.S_ISDIR(found.st_mode):
        _refuse_unless_tree_link(path)
        os.unlink(name, dir_fd=parent_fd)
        found = None
    if found is None:
        # Another process that is faster finds its lock taken, or takes it from this one.
        with suppress(FileExistsError):
            os.mkdir(name, _OWNER_ALL, dir_fd=parent_fd)


def _restrict_root(parent_fd: int, name: bytes, wanted: Callable[[int], int]) -> None:
    """Change the root's mode; a volume's root that belongs to somebody else stays as it is."""
    with suppress(PermissionError):
        restrict(parent_fd, name, wanted)


def _refuse_unless_tree_link(path: Path) -> None:
    try:
        target = os.readlink(path)
    except OSError as exc:
        raise DangerousDestination(
            f"the destination is not a directory: {path}", hint="Choose a directory."
        ) from exc
    if not _TREE_LINK.search(target):
        raise DangerousDestination(
            f"the destination is a symbolic link, which is never followed: {path} -> {target}",
            hint="Name the directory that the link points to, or remove the link.",
        )


def _lock(root_fd: int, path: Path) -> None:
    for pause_seconds in _LOCK_PAUSES_SECONDS:
        try:
            fcntl.flock(root_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(pause_seconds)
        except OSError as exc:
            # Some cluster file systems are mounted without locks; a checkout is possible there.
            if exc.errno not in _NO_LOCKS:
                raise
            return
        else:
            return
    raise DestinationBusy(
        f"another process is laying out a snapshot at {path}", destination=str(path)
    )


def look(directory_fd: int, name: bytes) -> os.stat_result | None:
    """Tell what has a name, without following it; None if nothing has."""
    try:
        return os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _set_mode(fd: int, mode: int) -> bool:
    if os.fstat(fd).st_mode & 0o7777 == mode:
        return True
    os.fchmod(fd, mode)
    return mode <= 0o777 or os.fstat(fd).st_mode & 0o7777 == mode


def manifest_rule(manifest: Manifest) -> Rule:
    """Make the rule that says what the manifest lists."""
    return lambda path: manifest.find("./" + os.fsdecode(path)) is not None


def path_error(error: OSError, destination: Path, path: str) -> SnapsyncError:
    """Say which path of a snapshot could not be laid out, and why."""
    if error.errno == errno.EXDEV:
        return ActionFailed(
            f"a hard link can't lead from the cache's mount to {destination}: {path}",
            hint="Use --mode auto, or a destination in the mount that holds the cache.",
        )
    return fsops.translate(error, "can't lay out", destination / path)


def _is_listed(path: bytes, listed: Rule) -> bool:
    return listed(path) or listed(path + b"/")
