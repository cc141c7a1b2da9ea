"""fs-verity: a sealed file can be read, linked, renamed and removed, but not changed, by nobody.

The kernel then checks every page against a hash tree as it is read from the disk, so that bytes
that rotted are an I/O error and never data. Not every kernel and file system can do it.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import struct
from typing import Any, Literal, NamedTuple

from snapd.disk import fsops
from snapd.model.errors import CacheUnusable

logger = logging.getLogger(__name__)

SealMode = Literal["auto", "off", "require"]

_FS_IOC_ENABLE_VERITY = 0x40806685
_FS_IOC_GETFLAGS = 0x80086601
_VERITY_FLAG = 0x00100000
_VERSION, _SHA256, _BLOCK_BYTES = 1, 1, 4096
_ARGUMENT = struct.pack("=IIII112x", _VERSION, _SHA256, _BLOCK_BYTES, 0)
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC

_REASONS = {
    errno.ENOTTY: "this kind of file system has no fs-verity",
    errno.EOPNOTSUPP: "the kernel or this file system was made without fs-verity",
    errno.EINVAL: "this file system has no fs-verity with blocks of 4096 bytes",
}


class SealState(NamedTuple):
    """Whether objects are sealed, as `[cache] seal` wants it, and if not why."""

    mode: SealMode
    active: bool
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Render for `GET /v1/status`."""
        return self._asdict()


class Seal:
    """Seals objects, or does nothing if that is off or impossible. Safe to use from many threads.

    With the mode `require` a new object that can't be sealed is an error; otherwise it stays as it
    is, and the first such file is logged.
    """

    def __init__(self, state: SealState) -> None:
        self.state = state
        self._said = False

    def apply(self, fd: int) -> None:
        """Seal a file that is open for reading only, by nobody for writing.

        A sealed one stays so. Raises `OSError` if the disk is full, and with `require` for any
        other reason too.
        """
        self._enable(fd, full_is_an_error=True, required=self.state.mode == "require")

    def attempt(self, fd: int) -> None:
        """Seal a file as `apply` does, but leave it as it is if that does not work."""
        self._enable(fd, full_is_an_error=False, required=False)

    def _enable(self, fd: int, *, full_is_an_error: bool, required: bool) -> None:
        if not self.state.active:
            return
        try:
            enable_verity(fd)
        except OSError as exc:
            if required or (full_is_an_error and exc.errno in fsops.FULL_ERRNOS):
                raise
            if not self._said:
                self._said = True
                logger.warning("an object could not be sealed: %s", exc.strerror)


UNSEALED = Seal(SealState("off", active=False, reason="switched off"))


def choose_seal(mode: SealMode, dir_fd: int, directory: str) -> Seal:
    """Find out what is possible in a directory of ours, and go by what is wanted.

    Raises `CacheUnusable` if `require` can't be had, and `OSError` if the disk is full.
    """
    if mode == "off":
        return Seal(SealState(mode, active=False, reason="switched off by `[cache] seal`"))
    reason = why_unsealable(dir_fd, "seal-probe")
    if reason and mode == "require":
        raise CacheUnusable(
            f"`[cache] seal` requires fs-verity, which {directory} does not offer: {reason}",
            hint='On ext4: tune2fs -O verity DEVICE, blocks of 4096 bytes. Or set seal = "auto".',
            directory=directory,
        )
    return Seal(SealState(mode, active=not reason, reason=reason))


def why_unsealable(dir_fd: int, name: str) -> str:
    """Try it with a file of that name, which is removed again: empty if it works, else why not."""
    fd = os.open(name, _CREATE, 0o600, dir_fd=dir_fd)
    try:
        try:
            fsops.write_all(fd, b"seal")
        finally:
            os.close(fd)
        return _try_to_seal(dir_fd, name)
    finally:
        os.unlink(name, dir_fd=dir_fd)


def _try_to_seal(dir_fd: int, name: str) -> str:
    fd = os.open(name, _READ, dir_fd=dir_fd)
    try:
        enable_verity(fd)
        if not is_sealed(fd):
            return "the kernel says that it sealed a file, and then that it did not"
    except OSError as exc:
        if exc.errno in fsops.FULL_ERRNOS:
            raise
        return _REASONS.get(exc.errno or 0, os.strerror(exc.errno or 0))
    finally:
        os.close(fd)
    return ""


def enable_verity(fd: int) -> None:
    """Seal a file, whose bytes go to the disk on the way; one that is sealed stays so."""
    try:
        fcntl.ioctl(fd, _FS_IOC_ENABLE_VERITY, _ARGUMENT)
    except OSError as exc:
        if exc.errno != errno.EEXIST:
            raise


def is_sealed(fd: int) -> bool:
    """Tell whether an open file is sealed."""
    flags = bytearray(8)
    try:
        fcntl.ioctl(fd, _FS_IOC_GETFLAGS, flags)
    except OSError as exc:
        if exc.errno in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL):
            return False
        raise
    return bool(struct.unpack_from("=I", flags)[0] & _VERITY_FLAG)
