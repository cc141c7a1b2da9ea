"""Set-uid, set-gid and sticky bits, which are in a manifest but not always on the disk."""

from __future__ import annotations

from snapd.model.ids import SnapshotId
from snapd.model.manifest import Manifest

_SPECIAL = 0o7000
_LAYOUTS = ((0o0777, 0o1777), (0o0777, 0o7777), (0o1777, 0o7777))
"""What is kept of the modes of files and of directories: in a tree, in a checkout by hard links,
and in one by copies."""


def ids_without_special_bits(manifest: Manifest) -> frozenset[SnapshotId]:
    """Tell the IDs that a snapshot has on disk where special bits were withheld, as they should be.

    Empty if it has no such bits. Takes a few times as long as reading the manifest.
    """
    if not any(entry.mode & _SPECIAL for entry in manifest):
        return frozenset()
    return frozenset(_masked(manifest, *kept).id for kept in _LAYOUTS)


def _masked(manifest: Manifest, of_files: int, of_directories: int) -> Manifest:
    return Manifest.from_entries(
        entry._replace(mode=entry.mode & (of_files if entry.kind == "F" else of_directories))
        for entry in manifest
    )
