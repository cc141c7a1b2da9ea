"""Remove blobs that nothing links to any more, and nobody relies on."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NamedTuple

from snapd.disk import fsops
from snapd.disk.blobs import Blobs
from snapd.disk.publishing import SHARDS
from snapd.disk.reliance import Reliance
from snapd.model.eviction import blob_key, object_of
from snapd.model.ids import Digest

_BATCH_BLOBS = 500
_SHARD_SHIFT = 56
_STAT_BLOCK_BYTES = 512


class Cleared(NamedTuple):
    """What was removed; `in_use`: some was left because another process relies on blobs."""

    blobs: int = 0
    freed_bytes: int = 0
    in_use: bool = False

    def plus(self, other: Cleared) -> Cleared:
        """Add up."""
        return Cleared(
            self.blobs + other.blobs,
            self.freed_bytes + other.freed_bytes,
            self.in_use or other.in_use,
        )


def clear(
    blobs: Blobs,
    reliance: Reliance,
    keys: Sequence[int],
    *,
    stopping: Callable[[], bool] = lambda: False,
) -> Cleared:
    """Remove those of the blobs with these ordered keys that have no link but their own name.

    Pulls may begin in between. It ends early once it is `stopping`. Whoever dies on the way leaves
    blobs that the next sweep finds.
    """
    cleared = Cleared()
    for number, shard in enumerate(SHARDS):
        first = bisect_left(keys, number << _SHARD_SHIFT)
        doomed = set(keys[first : bisect_left(keys, number + 1 << _SHARD_SHIFT)])
        if not doomed or stopping():
            continue
        shard_fd = blobs.shard(Digest(shard))
        with fsops.translated("can't remove objects", blobs.root / shard):
            names = [name for name in os.listdir(shard_fd) if _key_of(name) in doomed]
            for start in range(0, len(names), _BATCH_BLOBS):
                batch = names[start : start + _BATCH_BLOBS]
                cleared = cleared.plus(_clear_batch(shard_fd, batch, reliance))
        if cleared.in_use:
            break
    return cleared


def _clear_batch(shard_fd: int, names: list[str], reliance: Reliance) -> Cleared:
    removed = freed_bytes = 0
    with reliance.removing() as is_wanted:
        if is_wanted is None:
            return Cleared(in_use=True)
        for name in names:
            with suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=shard_fd, follow_symlinks=False)
                if found.st_nlink == 1 and not is_wanted(object_of(_key_of(name))):
                    os.unlink(name, dir_fd=shard_fd)
                    removed += 1
                    freed_bytes += found.st_blocks * _STAT_BLOCK_BYTES
    return Cleared(removed, freed_bytes)


def _key_of(name: str) -> int:
    digest, _, mode = name.partition(".")
    try:
        return blob_key(digest, int(mode, 8))
    except ValueError:
        return -1
