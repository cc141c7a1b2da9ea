"""How much a cache takes on the disk, in allocated blocks, and what each of its blobs takes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from snapd.disk.publishing import SHARDS
from snapd.model.eviction import Census, blob_key
from snapd.model.ids import SnapshotId, is_digest
from snapd.model.plan import BLOCK_BYTES

_STAT_BLOCK_BYTES = 512


class Usage(NamedTuple):
    """What a cache takes, by part."""

    linked_bytes: int
    """Objects that are in a tree."""
    loose_bytes: int
    """Objects that nothing links to: of pulls that run or failed."""
    tree_bytes: int
    staging_bytes: int
    quarantine_bytes: int
    other_bytes: int
    """Manifests, index, leases and the like."""

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return sum(self)

    @property
    def blob_bytes(self) -> int:
        """All objects."""
        return self.linked_bytes + self.loose_bytes


def take_census(root: Path) -> Census:
    """List all blobs with what they take and how many links they have beside their names.

    What comes or goes meanwhile may or may not be counted. A million objects take seconds.
    """
    census = Census()
    for shard in SHARDS:
        with suppress(FileNotFoundError):
            for row in sorted(_blobs_in(root / "blobs" / shard)):
                census.add(*row)
    return census


def _blobs_in(shard: Path) -> Iterator[tuple[int, int, int, float]]:
    fd = os.open(shard, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in os.listdir(fd):
            digest, _, mode = name.partition(".")
            with suppress(ValueError, FileNotFoundError):
                found = os.stat(name, dir_fd=fd, follow_symlinks=False)
                key = blob_key(digest, int(mode, 8))
                blocks, links = found.st_blocks, found.st_nlink
                yield key, blocks * _STAT_BLOCK_BYTES, links - 1, found.st_mtime
    finally:
        os.close(fd)


class Accountant:
    """Counts what one cache takes. Trees never change, so each is looked at once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._tree_bytes: dict[str, int] = {}
        self._one_at_a_time = threading.Lock()

    def count(self, census: Census) -> Usage:
        """Add up everything in the state directory; `census` is what was just taken of it."""
        with self._one_at_a_time:
            loose_bytes = sum(census.allocated_bytes[row] for row in census.orphans())
            others = self._count_others()
            return Usage(
                linked_bytes=census.total_bytes - loose_bytes,
                loose_bytes=loose_bytes,
                tree_bytes=self._count_trees(),
                staging_bytes=others.pop("staging", 0),
                quarantine_bytes=others.pop("quarantine", 0),
                other_bytes=sum(others.values()),
            )

    def own_bytes(self, snapshot_id: SnapshotId) -> int:
        """Tell what the directories and the manifest of a snapshot take."""
        manifest = self._root / "manifests" / snapshot_id
        directories = self._tree_bytes.get(snapshot_id, BLOCK_BYTES)
        return directories + _allocated(manifest)

    def _count_trees(self) -> int:
        known, self._tree_bytes = self._tree_bytes, {}
        for name in os.listdir(self._root / "trees"):
            if is_digest(name):
                found = known.get(name)
                if found is None:
                    found = _directories_below(os.fspath(self._root / "trees" / name))
                self._tree_bytes[name] = found
        return sum(self._tree_bytes.values())

    def _count_others(self) -> dict[str, int]:
        found: dict[str, int] = {}
        with os.scandir(self._root) as entries:
            for entry in entries:
                if entry.name in ("blobs", "trees"):
                    continue
                is_directory = entry.is_dir(follow_symlinks=False)
                count = _everything_below if is_directory else _allocated
                found[entry.name] = count(entry.path)
        return found


def _directories_below(tree: str) -> int:
    """Add up the directories of a tree; its files are blobs."""
    return sum(_allocated(place) for place, _, _ in os.walk(tree))


def _everything_below(directory: str) -> int:
    """Add up directories and files, but no links to blobs, of which half-built trees consist."""
    total_bytes = 0
    for place, _, names in os.walk(directory):
        total_bytes += _allocated(place)
        for name in names:
            with suppress(FileNotFoundError):
                found = os.lstat(os.path.join(place, name))
                if found.st_nlink == 1:
                    total_bytes += found.st_blocks * _STAT_BLOCK_BYTES
    return total_bytes


def _allocated(path: str | os.PathLike[str]) -> int:
    try:
        return os.lstat(path).st_blocks * _STAT_BLOCK_BYTES
    except FileNotFoundError:
        return 0
