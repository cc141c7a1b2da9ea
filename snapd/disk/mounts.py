"""Which file systems stamp every change of a file by a clock that nobody can put into a file."""

from __future__ import annotations

import os

TRUSTED = frozenset(
    {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "ramfs", "tmpfs", "xfs", "zfs"}
)
"""Local ones that set the change time themselves. Network file systems stamp by a clock elsewhere
and show it late; FUSE, overlays and images show what somebody made up, maybe the same twice."""

_MOUNTS = "/proc/self/mountinfo"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Mounts:
    """What is mounted, by device."""

    def __init__(self, trusted: frozenset[int]) -> None:
        self._trusted = trusted

    @classmethod
    def read(cls, root_fd: int, path: str = _MOUNTS) -> Mounts:
        """Read the table of this process's mounts; none is trusted if that can't be read.

        The device of `root_fd` is known even if its file system shows another one in the table.
        """
        here = _mount_of(root_fd)
        trusted: dict[int, bool] = {}
        for line in _read(path).splitlines():
            mount, _, filesystem = line.partition(b" - ")
            kind, _, options = filesystem.split(b" ", 2)
            mount_id, _, shown, _ = mount.split(b" ", 3)
            major, _, minor = shown.partition(b":")
            devices = {os.makedev(int(major), int(minor))}
            if mount_id == here:
                devices.add(os.fstat(root_fd).st_dev)
            # What can't be written to was made elsewhere, with whatever stamps its maker chose.
            is_trusted = kind.decode() in TRUSTED and b"ro" not in options.split(b",")
            for device in devices:
                trusted[device] = trusted.get(device, True) and is_trusted
        return cls(frozenset(device for device, is_trusted in trusted.items() if is_trusted))

    def is_trusted(self, device: int) -> bool:
        """Tell whether stamps on this device can be relied on."""
        return device in self._trusted


def boot_id() -> str:
    """Give what tells this boot of this machine from all others; empty if nobody knows."""
    return _read(_BOOT_ID).decode("ascii", "replace").strip()


def _mount_of(fd: int) -> bytes:
    for line in _read(f"/proc/self/fdinfo/{fd}").splitlines():
        name, _, value = line.partition(b":")
        if name == b"mnt_id":
            return value.strip()
    return b""


def _read(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    except OSError:
        return b""
    finally:
        os.close(fd)
