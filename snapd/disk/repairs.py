"""Objects that were found damaged and whose trees have not been put right yet.

One empty file each, `repairs/<digest>.<mode>`, durable before the damaged blob goes away. As long
as it is there, no tree that holds the object counts as complete.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from snapd.disk import fsops
from snapd.disk.manifests import Manifests
from snapd.disk.publishing import blob_name
from snapd.disk.trees import Trees
from snapd.model.ids import Digest, SnapshotId

_NAME = re.compile(r"([0-9a-f]{64})\.(0|[1-7][0-7]{0,3})", re.ASCII)

Blob = tuple[Digest, int]
"""An object under one of its modes."""


class Repairs:
    """What is still to be repaired, for many threads and many processes."""

    def __init__(self, path: Path, trees: Trees, manifests: Manifests, *, durable: bool) -> None:
        self.root = path
        self._fd = os.open(path, fsops.DIRECTORY)
        self._trees = trees
        self._manifests = manifests
        self._durable = durable
        self._added = 0
        self._holding: dict[tuple[SnapshotId, Blob], bool] = {}

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._fd)

    def generation(self) -> tuple[int, int]:
        """Give something that is another after damage was noted, by whomever."""
        return self._added, os.fstat(self._fd).st_mtime_ns

    def add(self, digest: Digest, mode: int) -> None:
        """Remember that the trees with this object need it anew; durable when it returns."""
        self._added += 1
        with fsops.translated(f"can't note the damage of object {digest}", self.root):
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
            os.close(os.open(blob_name(digest, mode), flags, 0o600, dir_fd=self._fd))
            if self._durable:
                fsops.fsync(self._fd)

    def done(self, digest: Digest, mode: int) -> None:
        """Forget it; all trees are right."""
        with (
            fsops.translated(f"can't forget the damage of object {digest}", self.root),
            suppress(FileNotFoundError),
        ):
            os.unlink(blob_name(digest, mode), dir_fd=self._fd)

    def pending(self) -> list[Blob]:
        """List what is still to be repaired."""
        with fsops.translated("can't list the repairs", self.root):
            names = os.listdir(self._fd)
        if not names:
            self._holding.clear()
            return []
        matches = map(_NAME.fullmatch, sorted(names))
        return [(Digest(match[1]), int(match[2], 8)) for match in matches if match]

    def concern(self, snapshot_id: SnapshotId) -> bool:
        """Tell whether a tree holds an object that is still to be repaired."""
        return any(self.holds(snapshot_id, blob) for blob in self.pending())

    def holders(self, blob: Blob) -> list[SnapshotId]:
        """List the snapshots with trees that hold an object."""
        return [each for each in self._trees.iterate() if self.holds(each, blob)]

    def holds(self, snapshot_id: SnapshotId, blob: Blob) -> bool:
        """Tell whether a snapshot has an object; looked up once in its manifest, then known."""
        key = (snapshot_id, blob)
        if key not in self._holding:
            text = self._manifests.load(snapshot_id)
            if text is None:
                return False
            self._holding[key] = f"F {blob[1]:o} {blob[0]} ".encode() in text
        return self._holding[key]
