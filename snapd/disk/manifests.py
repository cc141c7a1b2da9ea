"""Verified manifest texts: `manifests/<id>`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from snapd.disk import fsops
from snapd.disk.quarantine import Exhibit, Quarantine
from snapd.disk.staging import Staging
from snapd.model.errors import DigestMismatch
from snapd.model.ids import SnapshotId, digest_of, is_digest

_FIRST_LINE_BYTES = 256


class Manifests:
    """The manifests that the cache holds, each whole and hashing to its name.

    With `durable` a saved manifest survives power loss once `save` has returned.
    """

    def __init__(
        self, path: Path, staging: Staging, quarantine: Quarantine, *, durable: bool
    ) -> None:
        self.root = path
        self._fd = os.open(path, fsops.DIRECTORY)
        self._staging = staging
        self._quarantine = quarantine
        self._durable = durable

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._fd)

    def save(self, snapshot_id: SnapshotId, text: bytes) -> None:
        """Keep a manifest; one that is there already is as good.

        Raises `DigestMismatch` if the text does not hash to the ID, `NoSpace` and the like.
        """
        actual = SnapshotId(digest_of(text))
        if actual != snapshot_id:
            raise DigestMismatch(
                f"the manifest of {snapshot_id} hashes to {actual}",
                expected=snapshot_id,
                actual=actual,
            )
        with fsops.translated(f"can't save the manifest of {snapshot_id}", self.root):
            self._staging.place(text, snapshot_id, self._fd, durable=self._durable)

    def load(self, snapshot_id: SnapshotId) -> bytes | None:
        """Read a manifest; None if it is not here.

        One that is damaged is moved to the quarantine and counts as not here.
        """
        with fsops.translated(f"can't read the manifest of {snapshot_id}", self.root):
            try:
                fd = os.open(
                    snapshot_id, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd
                )
            except FileNotFoundError:
                return None
            with open(fd, "rb") as source:
                text = source.read()
            actual = SnapshotId(digest_of(text))
            if actual == snapshot_id:
                return text
            self._reject(snapshot_id, actual, len(text))
            return None

    def _reject(self, snapshot_id: SnapshotId, actual: str, size_bytes: int) -> None:
        self._quarantine.keep(
            Exhibit(snapshot_id, actual, size_bytes, path="", source=os.fspath(self.root)),
            lambda kept: os.rename(
                snapshot_id, kept, src_dir_fd=self._fd, dst_dir_fd=self._quarantine.fd
            ),
        )
        self.remove(snapshot_id)

    def root_mode(self, snapshot_id: SnapshotId) -> int | None:
        """Tell the mode of the snapshot's root without reading the manifest; None if not here."""
        with fsops.translated(f"can't read the manifest of {snapshot_id}", self.root):
            try:
                fd = os.open(
                    snapshot_id, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd
                )
            except FileNotFoundError:
                return None
            try:
                fields = os.read(fd, _FIRST_LINE_BYTES).split(b" ", 2)
            finally:
                os.close(fd)
        try:
            return int(fields[1], 8)
        except (IndexError, ValueError):
            return None

    def saved_at(self, snapshot_id: SnapshotId) -> float:
        """Tell when a manifest was written; 0 if it is not here."""
        try:
            return os.stat(snapshot_id, dir_fd=self._fd, follow_symlinks=False).st_mtime
        except FileNotFoundError:
            return 0.0

    def remove(self, snapshot_id: SnapshotId) -> None:
        """Forget a manifest; an absent one is no error."""
        with (
            fsops.translated(f"can't remove the manifest of {snapshot_id}", self.root),
            suppress(FileNotFoundError),
        ):
            os.unlink(snapshot_id, dir_fd=self._fd)

    def iterate(self) -> Iterator[SnapshotId]:
        """Walk the IDs of all manifests here."""
        for name in os.listdir(self._fd):
            if is_digest(name):
                yield SnapshotId(name)
