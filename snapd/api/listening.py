"""Where the daemon can be reached: a Unix socket that is its own."""

from __future__ import annotations

import fcntl
import grp
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from snapd.model.errors import (
    AccessDenied,
    ActionFailed,
    InvalidConfig,
    NotAllowed,
    SnapsyncError,
    SocketBusy,
    UsageError,
)

PATH_MAX_BYTES = 107
"""The kernel's bound on the path of a Unix socket."""
BACKLOG = 512


@contextmanager
def control_socket(
    path: Path, *, mode: int, group: str = "", handed_over: int | None = None
) -> Iterator[socket.socket]:
    """Listen at `path` for the length of the block, as the only one.

    Nobody can connect before it has its final mode and group. What a daemon that is gone left
    behind is replaced. `handed_over` is a descriptor that listens there already and goes on doing
    so afterwards. Raises `SocketBusy` if a daemon is alive, `NotAllowed`
    if the directory could be somebody else's, `UsageError` for an unfit path or an unknown group.
    """
    if len(os.fsencode(path)) > PATH_MAX_BYTES:
        raise UsageError(f"the path of the socket is too long: {path}")
    group_id = _group_id(group)
    with ExitStack() as held:
        try:
            _prepare_directory(path.parent, shared=bool(group) or os.geteuid() == 0)
            held.enter_context(_lock(path))
            if handed_over is None:
                _refuse_unless_stale(path)
                listener = held.enter_context(_bound(path, mode, group_id))
            else:
                listener = held.enter_context(_adopted(handed_over, path))
        except OSError as error:
            raise _translated(error, path) from error
        yield listener


def _adopted(fd: int, path: Path) -> socket.socket:
    """Take over a socket with its mode and owner, which are its maker's business."""
    os.set_inheritable(fd, False)
    listener = socket.socket(fileno=fd)
    where = listener.getsockname()
    if listener.family != socket.AF_UNIX or where != os.fspath(path):
        listener.close()
        raise InvalidConfig(
            f"the socket that was handed over is at {where!r}, but `[daemon] socket` is {path}",
            hint="Write the same path in the socket unit (ListenStream) and the configuration.",
        )
    return listener


def _translated(error: OSError, path: Path) -> SnapsyncError:
    reason = f"can't make the control socket {path}: {error.strerror or error}"
    if isinstance(error, PermissionError):
        return AccessDenied(reason, hint="Choose another --socket, or ask who owns the directory.")
    return ActionFailed(reason)


def _group_id(group: str) -> int:
    if not group:
        return -1
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise InvalidConfig(
            f"[daemon] socket_group: there is no group {group!r}", hint="Create it first."
        ) from None


def _prepare_directory(directory: Path, *, shared: bool) -> None:
    """Make the socket's directory, or make sure that an existing one is not a trap.

    Below a directory that anybody may write to (`/tmp`) somebody else may have been first.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
        if shared:
            directory.chmod(0o755)
    if not directory.parent.stat().st_mode & stat.S_IWOTH:
        return
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise NotAllowed(
            f"{directory} is not a directory of this user alone",
            hint="Somebody else may have made it: remove it, or set XDG_RUNTIME_DIR.",
        )


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the lock beside the socket; its file stays, because removing it would be a race."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path.with_name(f"{path.name}.lock"), flags, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SocketBusy(f"another daemon serves {path}") from None
        yield
    finally:
        os.close(descriptor)


def _refuse_unless_stale(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ActionFailed(
            f"{path} exists and is not a socket", hint="Remove it or choose another --socket."
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return
        except BlockingIOError:
            pass
    raise SocketBusy(f"something answers at {path} already")


@contextmanager
def _bound(path: Path, mode: int, group_id: int) -> Iterator[socket.socket]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        listener.bind(os.fspath(path))
        ours = path.lstat().st_ino
        try:
            # Nobody can connect before `listen`, so the first mode and group do not matter.
            if group_id != -1:
                os.chown(path, -1, group_id)
            os.chmod(path, mode)
            listener.listen(BACKLOG)
            yield listener
        finally:
            _remove_if_ours(path, ours)
    finally:
        listener.close()


def _remove_if_ours(path: Path, inode: int) -> None:
    """Leave alone what an administrator has put there meanwhile."""
    try:
        if path.lstat().st_ino == inode:
            path.unlink()
    except FileNotFoundError:
        pass
