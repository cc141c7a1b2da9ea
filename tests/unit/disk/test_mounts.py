from __future__ import annotations

import os
from pathlib import Path

import pytest

from snapd.disk.mounts import Mounts, boot_id

LINE = "36 35 {device} / /data rw,noatime shared:1 - {kind} /dev/vdb {options}\n"


@pytest.fixture
def root_fd(tmp_path: Path) -> int:
    return os.open(tmp_path, os.O_RDONLY)


@pytest.mark.parametrize(
    ("kind", "options", "trusted"),
    [
        ("ext4", "rw,relatime", True),
        ("xfs", "rw", True),
        ("tmpfs", "rw,size=1k", True),
        ("ext4", "ro,relatime", False),
        ("nfs4", "rw,vers=4.2", False),
        ("fuse.s3fs", "rw", False),
        ("overlay", "rw,lowerdir=/ro", False),
        ("squashfs", "ro", False),
        ("vfat", "rw", False),
    ],
)
def test_only_local_file_systems_that_stamp_changes_are_trusted(
    tmp_path: Path, root_fd: int, kind: str, options: str, trusted: bool
) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(LINE.format(device="254:16", kind=kind, options=options), encoding="utf-8")
    mounts = Mounts.read(root_fd, str(table))
    assert mounts.is_trusted(os.makedev(254, 16)) == trusted
    assert not mounts.is_trusted(os.makedev(254, 17))
    os.close(root_fd)


def test_device_that_is_shown_twice_is_trusted_if_both_are(tmp_path: Path, root_fd: int) -> None:
    table = tmp_path / "mountinfo"
    text = "".join(LINE.format(device="0:9", kind=kind, options="rw") for kind in ("ext4", "fuse"))
    table.write_text(text, encoding="utf-8")
    assert not Mounts.read(root_fd, str(table)).is_trusted(9)
    os.close(root_fd)


def test_root_is_found_by_its_mount_where_the_device_is_another(
    tmp_path: Path, root_fd: int
) -> None:
    """A subvolume of btrfs shows files a device that the table does not have."""
    fields = Path(f"/proc/self/fdinfo/{root_fd}").read_text(encoding="ascii").split()
    mount_id = fields[fields.index("mnt_id:") + 1]
    line = LINE.replace("36", mount_id, 1).format(device="0:9999", kind="btrfs", options="rw")
    table = tmp_path / "mountinfo"
    table.write_text(line, encoding="utf-8")
    assert Mounts.read(root_fd, str(table)).is_trusted(tmp_path.stat().st_dev)
    os.close(root_fd)


def test_without_a_table_nothing_is_trusted(tmp_path: Path, root_fd: int) -> None:
    missing = str(tmp_path / "missing")
    assert not Mounts.read(root_fd, missing).is_trusted(tmp_path.stat().st_dev)
    os.close(root_fd)


def test_boot_has_an_id() -> None:
    assert len(boot_id()) == 36
    assert boot_id() == boot_id()
