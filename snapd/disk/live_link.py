"""The directory of a follow: `current`, which leads to a tree, and a mark that says whose it is.

Everything is done below a descriptor of the directory. One that somebody named over the socket is
reached without following a link, and only if that user could make the link without us: through
directories that they may search, in one that they may write to.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from snapd.disk import fsops
from snapd.model.access import Peer
from snapd.model.errors import AccessDenied, DestinationMissing, DestinationTaken
from snapd.model.follows import LINK
from snapd.model.ids import SnapshotId

MARK = ".snapsync-follow"
_HALF_DONE = re.compile(r"\.snapsync-[0-9a-f]{8}")
_TREE = re.compile(r"/trees/([0-9a-f]{64})/?$", re.ASCII)
_MARK_MAX_BYTES = 16 * 1024
_NAMES_MAX = 1000
_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class LiveLink:
    """The open directory of one follow; valid inside the block of `open_live_link`."""

    def __init__(self, dest: str, fd: int, *, owner: str, durable: bool) -> None:
        self.dest = dest
        self._fd = fd
        self._owner = owner
        self._durable = durable

    def claim(self) -> None:
        """Take the directory over if nothing else is in it, or it is taken over already.

        What a killed daemon left half-done is removed. Raises `DestinationTaken`.
        """
        names = self._some_names()
        for name in filter(_HALF_DONE.fullmatch, names):
            self._discard(name)
        owner = self._marked()
        if owner is not None and owner != self._owner:
            raise DestinationTaken(
                f"{self.dest} is followed by another daemon: {owner[:200]!a}",
                hint=f"If that daemon is no more, remove {self.dest}/{MARK}.",
                destination=self.dest,
            )
        target = self._target()
        if target is not None and not _TREE.search(target):
            raise DestinationTaken(
                f"{self.dest}/{LINK} leads elsewhere than to a tree of a cache: {target!a}",
                hint="Remove it, or choose another directory.",
                destination=self.dest,
            )
        if owner is None:
            for name in names:
                if name != LINK and not _HALF_DONE.fullmatch(name):
                    raise DestinationTaken(
                        f"{self.dest} is not empty: it holds {name[:80]!a}",
                        destination=self.dest,
                    )
            self._mark()

    def tree(self) -> tuple[str, SnapshotId] | None:
        """Tell to which tree the link leads, and of which snapshot; None if there is no link."""
        target = self._target()
        matched = None if target is None else _TREE.search(target)
        if target is None or matched is None:
            return None
        return target, SnapshotId(matched[1])

    def switch(self, tree: Path) -> None:
        """Let the link lead to a tree, in one step; durable when it returns."""
        new = self._new_name()
        try:
            os.symlink(os.fspath(tree), new, dir_fd=self._fd)
            os.rename(new, LINK, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except IsADirectoryError as exc:
            raise DestinationTaken(
                f"{self.dest}/{LINK} is a directory", destination=self.dest
            ) from exc
        finally:
            self._discard(new)
        if self._durable:
            fsops.fsync(self._fd)

    def release(self) -> None:
        """Take the mark away; the link stays as it is."""
        if self._marked() == self._owner:
            self._discard(MARK)

    def _some_names(self) -> list[str]:
        """Name what is here, but not the millions of names that somebody may put here."""
        with os.scandir(self._fd) as entries:
            return [entry.name for entry in islice(entries, _NAMES_MAX)]

    def _target(self) -> str | None:
        try:
            return os.readlink(LINK, dir_fd=self._fd)
        except FileNotFoundError:
            return None
        except OSError as exc:
            if exc.errno != errno.EINVAL:
                raise
            raise DestinationTaken(
                f"{self.dest}/{LINK} is not a link", destination=self.dest
            ) from exc

    def _marked(self) -> str | None:
        """Tell who has the directory: empty if the mark can't be read, None if there is none."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(MARK, flags, dir_fd=self._fd)
        except FileNotFoundError:
            return None
        except OSError:
            return ""
        try:
            is_file = stat.S_ISREG(os.fstat(fd).st_mode)
            document = json.loads(os.read(fd, _MARK_MAX_BYTES)) if is_file else None
        except (OSError, ValueError, RecursionError):
            return ""
        finally:
            os.close(fd)
        owner = document.get("owner") if isinstance(document, dict) else None
        return owner if isinstance(owner, str) else ""

    def _mark(self) -> None:
        about = "A snapd of this node keeps `current` here; `snapctl follow status` tells more."
        text = json.dumps({"owner": self._owner, "about": about}, indent=1).encode() + b"\n"
        new = self._new_name()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(new, flags, 0o644, dir_fd=self._fd)
            try:
                fsops.write_all(fd, text)
                if self._durable:
                    fsops.fsync(fd)
            finally:
                os.close(fd)
            os.rename(new, MARK, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        finally:
            self._discard(new)

    def _discard(self, name: str) -> None:
        with suppress(OSError):
            os.unlink(name, dir_fd=self._fd)

    @staticmethod
    def _new_name() -> str:
        return f".snapsync-{os.urandom(4).hex()}"


@contextmanager
def open_live_link(
    dest: str, *, owner: str, durable: bool, asker: Peer | None = None, make: bool = False
) -> Iterator[LiveLink]:
    """Open the directory of a follow; blocking.

    `asker` is somebody for whom it must be in reach, None for whoever configured the daemon; links
    on the way are followed for the latter only. With `make` a missing directory is made, but not
    the one around it: that may be a volume which is not mounted. Raises `DestinationMissing`,
    `DestinationTaken` for what is no directory, `AccessDenied`.
    """
    with fsops.translated("can't use the destination", dest):
        fd = _open(dest, make=make) if asker is None else _open_for(dest, asker)
        try:
            yield LiveLink(dest, fd, owner=owner, durable=durable)
        finally:
            os.close(fd)


def _open(dest: str, *, make: bool) -> int:
    parent, name = os.path.split(dest)
    try:
        parent_fd = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as exc:
        raise DestinationMissing(
            f"there is no {parent}, in which {name} is to be", destination=dest
        ) from exc
    try:
        if make:
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=parent_fd)
        return _open_last(parent_fd, name, dest)
    finally:
        os.close(parent_fd)


def _open_last(parent_fd: int, name: str, dest: str) -> int:
    try:
        return os.open(name, fsops.DIRECTORY, dir_fd=parent_fd)
    except FileNotFoundError as exc:
        raise DestinationMissing(f"there is no directory {dest}", destination=dest) from exc
    except OSError as exc:
        if exc.errno not in _ABSENT:
            raise
        raise DestinationTaken(
            f"{dest} is a link or a file, not a directory", destination=dest
        ) from exc


def _open_for(dest: str, asker: Peer) -> int:
    """Walk down from the root as the asker could, and open what they may write to."""
    *above, last = dest.strip("/").split("/")
    current = os.open("/", _STEP)
    try:
        walked = ""
        for name in above:
            _require(asker, current, os.X_OK, walked or "/")
            walked = f"{walked}/{name}"
            current = _stepped(current, _step(current, name, walked, dest))
        _require(asker, current, os.X_OK, walked or "/")
        fd = _open_last(current, last, dest)
    finally:
        os.close(current)
    try:
        _require(asker, fd, os.W_OK | os.X_OK, dest)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _step(parent_fd: int, name: str, walked: str, dest: str) -> int:
    try:
        return os.open(name, _STEP, dir_fd=parent_fd)
    except OSError as exc:
        if exc.errno not in _ABSENT:
            raise
        raise DestinationMissing(
            f"{walked} is not a directory",
            hint="Name the destination by its real path, without links on the way.",
            destination=dest,
        ) from exc


def _stepped(old_fd: int, new_fd: int) -> int:
    os.close(old_fd)
    return new_fd


def _require(asker: Peer, fd: int, wanted: int, path: str) -> None:
    if not may(asker, os.fstat(fd), wanted):
        doing = "write to" if wanted & os.W_OK else "enter"
        raise AccessDenied(
            f"user {asker.uid} may not {doing} {path}",
            hint="Choose a directory of your own.",
            directory=path,
        )
    # Beyond the mode a list may refuse somebody; who it would is not worth finding out here.
    with suppress(OSError):
        os.getxattr(f"/proc/self/fd/{fd}", "system.posix_acl_access")
        raise AccessDenied(
            f"{path} has an access control list, which is not read here",
            hint="Choose a directory without one, or let the configuration follow ([[follow]]).",
            directory=path,
        )


def may(asker: Peer, found: os.stat_result, wanted: int) -> bool:
    """Tell whether the mode of a file lets somebody do what is `wanted` (`os.W_OK`, `os.X_OK`)."""
    if found.st_uid == asker.uid:
        granted = found.st_mode >> 6
    elif found.st_gid == asker.gid or found.st_gid in asker.groups:
        granted = found.st_mode >> 3
    else:
        granted = found.st_mode
    return granted & wanted == wanted
