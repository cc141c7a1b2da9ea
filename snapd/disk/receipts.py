"""Receipts of finished pulls: `receipts/<id>.json`, for whoever may read the cache."""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterator
from contextlib import suppress
from pathlib import Path

from snapd.disk import fsops
from snapd.disk.staging import Staging
from snapd.model.errors import UsageError
from snapd.model.ids import SnapshotId, is_digest
from snapd.model.receipts import Receipt

_SUFFIX = ".json"


class Receipts:
    """The receipt of each snapshot that the cache holds. Safe to use from many threads.

    With `durable` a saved receipt survives power loss once `save` has returned. `host` is what new
    receipts call this node; by default what it calls itself.
    """

    def __init__(self, path: Path, staging: Staging, *, durable: bool, host: str = "") -> None:
        self.root = path
        self.host = host or os.uname().nodename
        self._fd = os.open(path, fsops.DIRECTORY)
        self._staging = staging
        self._durable = durable

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._fd)

    def save(self, receipt: Receipt) -> None:
        """Keep a receipt in the place of an older one of the same snapshot."""
        snapshot_id = receipt.snapshot_id
        text = json.dumps(receipt.to_json(), indent=2).encode() + b"\n"
        with fsops.translated(f"can't save the receipt of {snapshot_id}", self.root):
            name = f"{snapshot_id}{_SUFFIX}"
            self._staging.place(text, name, self._fd, durable=self._durable)

    def has(self, snapshot_id: SnapshotId) -> bool:
        """Tell whether there is a receipt of a snapshot."""
        return os.access(f"{snapshot_id}{_SUFFIX}", os.F_OK, dir_fd=self._fd)

    def load(self, snapshot_id: SnapshotId) -> Receipt | None:
        """Read a receipt; None if there is none that can be read as one of this snapshot."""
        with fsops.translated(f"can't read the receipt of {snapshot_id}", self.root):
            return read_receipt(self.root.parent, snapshot_id)

    def remove(self, snapshot_id: SnapshotId) -> None:
        """Forget a receipt; an absent one is no error."""
        with (
            fsops.translated(f"can't remove the receipt of {snapshot_id}", self.root),
            suppress(FileNotFoundError),
        ):
            os.unlink(f"{snapshot_id}{_SUFFIX}", dir_fd=self._fd)

    def keep_only(self, snapshot_ids: Container[SnapshotId]) -> None:
        """Forget the receipts of all other snapshots."""
        for snapshot_id in list(self.iterate()):
            if snapshot_id not in snapshot_ids:
                self.remove(snapshot_id)

    def iterate(self) -> Iterator[SnapshotId]:
        """Walk the IDs of which there is a receipt."""
        for name in os.listdir(self._fd):
            stem = name.removesuffix(_SUFFIX)
            if name.endswith(_SUFFIX) and is_digest(stem):
                yield SnapshotId(stem)


def read_receipt(state_directory: Path, snapshot_id: SnapshotId) -> Receipt | None:
    """Read a receipt of a cache that may be somebody else's; None if there is none of use.

    Raises `OSError` if it is there and can't be read.
    """
    path = state_directory / "receipts" / f"{snapshot_id}{_SUFFIX}"
    try:
        receipt = Receipt.parse(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, UsageError):
        return None
    return receipt if receipt.snapshot_id == snapshot_id else None
