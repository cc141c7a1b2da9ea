"""Find, and remove if asked, what lies in a directory and should not; no link is ever followed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from snapd.disk import fsops
from snapd.disk.descent import Descent

Rule = Callable[[bytes], bool]
"""A question about a path below the root: `a/b` for anything, `a/b/` for a directory."""

_OWNER_ALL = 0o700


class _Level:
    """A directory that is being looked through."""

    __slots__ = ("files", "held", "path", "pending")

    def __init__(self, path: bytes) -> None:
        self.path = path
        self.pending: list[bytes] = []
        self.files: list[bytes] = []
        self.held = False


def extraneous(root_fd: int, *, listed: Rule, protected: Rule, remove: bool) -> Iterator[bytes]:
    """Yield what is not `listed`, content before its directory; with `remove` it is gone by then.

    What `protected` says stays with everything below it, and so do the directories above it and
    mount points. The `filename` of an `OSError` is the path below the root.
    """
    device = os.fstat(root_fd).st_dev
    with Descent(root_fd) as descent:
        levels = [_scan(descent, b"", device, listed, protected, unlock=remove)]
        while levels:
            level = levels[-1]
            for path in level.files:
                if remove:
                    with _named(path):
                        os.unlink(_name(path), dir_fd=descent.at(level.path))
                yield path
            level.files.clear()
            if level.pending:
                below = level.path + level.pending.pop() + b"/"
                levels.append(_scan(descent, below, device, listed, protected, unlock=remove))
                continue
            levels.pop()
            if not levels or listed(level.path):
                continue
            if level.held:
                levels[-1].held = True
                continue
            if remove:
                with _named(level.path):
                    os.rmdir(_name(level.path), dir_fd=descent.at(levels[-1].path))
            yield level.path


def _scan(
    descent: Descent, path: bytes, device: int, listed: Rule, protected: Rule, *, unlock: bool
) -> _Level:
    level = _Level(path)
    with _named(path):
        _fill(level, descent, device, listed, protected, unlock=unlock)
    level.files.sort()
    level.pending.sort(reverse=True)
    return level


def _fill(
    level: _Level, descent: Descent, device: int, listed: Rule, protected: Rule, *, unlock: bool
) -> None:
    path = level.path
    if unlock and path:
        parent, name = split(path)
        grant_owner(descent.at(parent), name)
    with os.scandir(descent.at(path)) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            below = path + name
            is_directory = entry.is_dir(follow_symlinks=False)
            if protected(below) and not listed(below + b"/" if is_directory else below):
                level.held = True
            elif not is_directory:
                if not listed(below):
                    level.files.append(below)
            elif entry.stat(follow_symlinks=False).st_dev == device:
                level.pending.append(name)
            else:
                level.held = True


@contextmanager
def _named(path: bytes) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        exc.filename = path
        raise


def remove_entry(directory_fd: int, name: bytes) -> None:
    """Remove a file, a link or a whole directory; one that is not there is no error."""
    try:
        os.unlink(name, dir_fd=directory_fd)
    except FileNotFoundError:
        return
    except IsADirectoryError:
        fsops.remove_tree(name, directory_fd)


def grant_owner(directory_fd: int, name: bytes) -> None:
    """Let the owner of the directory `name` read, change and enter it, if that is not so yet."""
    restrict(directory_fd, name, lambda mode: mode | _OWNER_ALL)


def restrict(directory_fd: int, name: bytes, wanted: Callable[[int], int]) -> None:
    """Change the mode of the directory `name` to what `wanted` makes of it.

    It goes through a descriptor that needs no permission on the directory itself and follows no
    link, which `chmod` of a name would.
    """
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=directory_fd)
    try:
        mode = os.fstat(fd).st_mode & 0o7777
        if wanted(mode) != mode:
            os.chmod(f"/proc/self/fd/{fd}", wanted(mode))
    finally:
        os.close(fd)


def split(directory: bytes) -> tuple[bytes, bytes]:
    """`a/b/c/` -> (`a/b/`, `c`): a directory's parent and name."""
    head, separator, name = directory[:-1].rpartition(b"/")
    return head + separator, name


def _name(path: bytes) -> bytes:
    return path.rstrip(b"/").rpartition(b"/")[2]
