"""Snapshots laid out once for all jobs of the node: `trees/<id>/`, hard links to blobs.

A tree is built in the staging directory and appears by one rename, whole or not at all; it
disappears the same way. Whatever has a name below `trees/` is complete.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from snapd.disk import fsops
from snapd.disk.blobs import Blobs, blob_of
from snapd.disk.staging import Staging
from snapd.model.errors import ObjectLost
from snapd.model.ids import SnapshotId, is_digest
from snapd.model.manifest import Manifest

_PROGRESS_STEP_FILES = 1000
DIRECTORY_BITS = 0o1777

OnProgress = Callable[[int], None]
"""Told how many files have been laid out so far."""


class Trees:
    """All complete trees of the cache. Safe to use from many threads; every call blocks."""

    def __init__(self, path: Path, blobs: Blobs, staging: Staging) -> None:
        self.root = path
        self._fd = os.open(path, fsops.DIRECTORY)
        self._blobs = blobs
        self._staging = staging

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._fd)

    def path(self, snapshot_id: SnapshotId) -> Path:
        """Tell where a tree lies or would lie."""
        return self.root / snapshot_id

    def has(self, snapshot_id: SnapshotId) -> bool:
        """Tell whether the tree is here, hence complete."""
        return os.access(snapshot_id, os.F_OK, dir_fd=self._fd)

    def open(self, snapshot_id: SnapshotId) -> int:
        """Open the root of a tree that is about to be repaired; its mode may have widened."""
        return fsops.open_directory(snapshot_id, self._fd)

    def changed_ns(self, snapshot_id: SnapshotId) -> int:
        """Tell when the tree appeared or its root changed last."""
        found = os.stat(snapshot_id, dir_fd=self._fd)
        return max(found.st_mtime_ns, found.st_ctime_ns)

    def iterate(self) -> Iterator[SnapshotId]:
        """Walk the IDs of all trees here; other names are nobody's business."""
        for name in os.listdir(self._fd):
            if is_digest(name):
                yield SnapshotId(name)

    def build(self, manifest: Manifest, on_progress: OnProgress | None = None) -> Path:
        """Lay out a snapshot all of whose objects are here; an existing tree is success.

        After any error nothing is left. Raises `NoSpace` and the like, and `ObjectLost` naming
        the first object that is not here.
        """
        snapshot_id = manifest.id
        if not self.has(snapshot_id):
            with fsops.translated(f"can't lay out snapshot {snapshot_id}", self.root):
                self._build(manifest, on_progress)
        self.put_right(snapshot_id, manifest[0].mode)
        return self.path(snapshot_id)

    def _build(self, manifest: Manifest, on_progress: OnProgress | None) -> None:
        name, staging_fd = self._staging.new_name(), self._staging.fd
        try:
            os.mkdir(name, 0o700, dir_fd=staging_fd)
            with _Layout(self._blobs, self._staging, name) as layout:
                layout.fill(manifest, on_progress)
            fsops.rename_noreplace(name, manifest.id, src_dir_fd=staging_fd, dst_dir_fd=self._fd)
        except OSError as exc:
            if exc.errno not in (errno.EEXIST, errno.ENOTEMPTY) or not self.has(manifest.id):
                raise
        finally:
            fsops.remove_tree(name, staging_fd)

    def put_right(self, snapshot_id: SnapshotId, mode: int) -> None:
        """Give the root of a tree its mode.

        The root comes with u+rwx only, since an ordinary user can't move a directory that he may
        not write to; so the rename comes first, and a crash between the two leaves this to do.
        """
        with fsops.translated(f"can't set the mode of snapshot {snapshot_id}", self.root):
            wanted = mode & DIRECTORY_BITS
            if os.stat(snapshot_id, dir_fd=self._fd).st_mode & 0o7777 != wanted:
                os.chmod(snapshot_id, wanted, dir_fd=self._fd)

    def remove(self, snapshot_id: SnapshotId) -> None:
        """Remove a tree; it is gone at once, and an absent one is no error."""
        self.discard(self.detach(snapshot_id))

    def detach(self, snapshot_id: SnapshotId) -> str | None:
        """Take a tree away in one step; `discard` what it gives. None: there was none."""
        name, staging_fd = self._staging.new_name(), self._staging.fd
        with fsops.translated(f"can't remove the tree of {snapshot_id}", self.root):
            try:
                mode = os.stat(snapshot_id, dir_fd=self._fd).st_mode & 0o7777
                os.chmod(snapshot_id, mode | 0o700, dir_fd=self._fd)
                os.rename(snapshot_id, name, src_dir_fd=self._fd, dst_dir_fd=staging_fd)
            except FileNotFoundError:
                return None
        return name

    def discard(self, name: str | None) -> None:
        """Remove for good what `detach` took away."""
        if name is not None:
            with fsops.translated("can't remove a tree", self._staging.path):
                fsops.remove_tree(name, self._staging.fd)


class _Layout:
    """One tree being built; a single directory is open at a time, however deep the tree is."""

    def __init__(self, blobs: Blobs, staging: Staging, name: str) -> None:
        self._blobs = blobs
        self._staging = staging
        self._fd = os.open(name, fsops.DIRECTORY, dir_fd=staging.fd)
        self._above: list[tuple[bytes, int]] = []
        self._prefix = b"./"
        self._spares: dict[bytes, str] = {}
        self._all_spares: list[str] = []

    def __enter__(self) -> _Layout:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        for name in self._all_spares:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._staging.fd)

    def fill(self, manifest: Manifest, on_progress: OnProgress | None) -> None:
        """Make all entries below the root; directories get their modes when they are full."""
        lines = manifest.lines()
        next(lines)
        files = 0
        # Texts stay the bytes that they are: this runs for every file of every pull.
        shards, link = self._blobs.shards, os.link
        for line in lines:
            kind, mode, checksum, _, path = line.split(b" ", 4)
            while not path.startswith(self._prefix):
                self._ascend()
            name = path[len(self._prefix) :]
            if kind == b"D":
                self._descend(name[:-1], path, int(mode, 8))
                continue
            blob, shard_fd = checksum + b"." + mode, shards[checksum[:2]]
            try:
                link(blob, name, src_dir_fd=shard_fd, dst_dir_fd=self._fd, follow_symlinks=False)
            except OSError as exc:
                self._link_otherwise(exc, blob, name, path)
            files += 1
            if on_progress is not None and files % _PROGRESS_STEP_FILES == 0:
                on_progress(files)
        while self._above:
            self._ascend()
        if on_progress is not None:
            on_progress(files)

    def _descend(self, name: bytes, path: bytes, mode: int) -> None:
        os.mkdir(name, 0o700, dir_fd=self._fd)
        self._move_to(os.open(name, fsops.DIRECTORY, dir_fd=self._fd))
        self._above.append((self._prefix, mode))
        self._prefix = path

    def _ascend(self) -> None:
        """Go back to the parent, which must be open before the mode may forbid to look it up."""
        self._prefix, mode = self._above.pop()
        parent = os.open("..", fsops.DIRECTORY, dir_fd=self._fd)
        try:
            os.fchmod(self._fd, mode & DIRECTORY_BITS)
        finally:
            self._move_to(parent)

    def _move_to(self, fd: int) -> None:
        os.close(self._fd)
        self._fd = fd

    def _link_otherwise(self, error: OSError, blob: bytes, name: bytes, path: bytes) -> None:
        """Link to a copy of a blob that can't have more links; raise what else is wrong."""
        if isinstance(error, FileNotFoundError):
            digest, _ = blob_of(blob)
            raise ObjectLost(
                f"the cache has lost object {digest} ({path.decode()})",
                object=digest,
                path=path.decode(),
            ) from error
        if error.errno != errno.EMLINK:
            raise error
        spare = self._spares.get(blob)
        if spare is None or not self._link_spare(spare, name):
            self._link_spare(self._new_spare(blob), name)

    def _link_spare(self, spare: str, name: bytes) -> bool:
        """Link to a copy; False if that can't have more links either."""
        try:
            os.link(spare, name, src_dir_fd=self._staging.fd, dst_dir_fd=self._fd)
        except OSError as exc:
            if exc.errno != errno.EMLINK:
                raise
            return False
        return True

    def _new_spare(self, blob: bytes) -> str:
        """Copy a blob that can't have more links; further entries are links to the copy."""
        name = self._staging.new_name()
        self._all_spares.append(name)
        self._blobs.copy(*blob_of(blob), name, self._staging.fd)
        self._spares[blob] = name
        return name
