"""How much the objects of a cache take, counted on the disk."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def blob_bytes(root: Path) -> int:
    """Add up the sizes of all objects below the state directory `root`.

    What comes or goes meanwhile may or may not be counted. A million objects take seconds.
    """
    total_bytes = 0
    with os.scandir(root / "blobs") as shards:
        for shard in shards:
            with suppress(NotADirectoryError, FileNotFoundError), os.scandir(shard.path) as blobs:
                for blob in blobs:
                    with suppress(FileNotFoundError):
                        total_bytes += blob.stat(follow_symlinks=False).st_size
    return total_bytes
