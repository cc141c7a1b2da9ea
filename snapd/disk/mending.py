"""Give trees a repaired object: each of its names there is linked anew, one rename a name.

Whoever has the damaged file open keeps it; whoever opens it from then on gets the right bytes.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

from snapd.disk import fsops
from snapd.disk.blobs import Blobs
from snapd.disk.locks import RangeLock
from snapd.disk.manifests import Manifests
from snapd.disk.publishing import blob_name
from snapd.disk.repairs import Blob, Repairs
from snapd.disk.staging import Staging
from snapd.disk.trees import DIRECTORY_BITS, Trees
from snapd.model.errors import ActionFailed
from snapd.model.ids import Digest, SnapshotId
from snapd.model.manifest import Manifest

logger = logging.getLogger(__name__)


class Mender:
    """Repairs the trees of one cache. Every call blocks; one mends at a time."""

    def __init__(
        self,
        blobs: Blobs,
        trees: Trees,
        manifests: Manifests,
        staging: Staging,
        repairs: Repairs,
        *,
        prove: Callable[[Digest, int], object | None],
        lock: Callable[[SnapshotId], RangeLock],
        barrier: Callable[[], None],
    ) -> None:
        self._blobs = blobs
        self._trees = trees
        self._manifests = manifests
        self._staging = staging
        self._repairs = repairs
        self._prove = prove
        self._lock = lock
        self._barrier = barrier
        self._one_at_a_time = threading.Lock()

    def mend(self, *, holding: SnapshotId | None = None) -> dict[Blob, int]:
        """Repair what can be: trees whose damaged objects are here again, and prove to be right.

        A tree that somebody brings in or evicts at the moment has to wait for the next time; the
        caller has the lock of `holding` itself. Tells of each repaired object how many trees held
        it.
        """
        mended: dict[Blob, int] = {}
        with self._one_at_a_time:
            for blob in self._repairs.pending():
                holders = self._repairs.holders(blob)
                if holders and self._prove(*blob) is None:
                    continue
                waiting = [each for each in holders if not self._mend_one(each, blob, holding)]
                if waiting:
                    logger.info("object %s waits for %d busy trees", blob[0], len(waiting))
                    continue
                self._barrier()
                self._repairs.done(*blob)
                mended[blob] = len(holders)
        return mended

    def _mend_one(self, snapshot_id: SnapshotId, blob: Blob, holding: SnapshotId | None) -> bool:
        if snapshot_id == holding:
            return self._relink(snapshot_id, blob)
        lock = self._lock(snapshot_id)
        if not lock.try_acquire():
            return False
        try:
            return not self._trees.has(snapshot_id) or self._relink(snapshot_id, blob)
        finally:
            lock.release()

    def _relink(self, snapshot_id: SnapshotId, blob: Blob) -> bool:
        """Give one tree the object, or the whole tree anew if its directories are not right."""
        text = self._manifests.load(snapshot_id)
        if text is None:
            return False
        try:
            with fsops.translated(f"can't repair snapshot {snapshot_id}", self._trees.root):
                for path in _paths(text, blob):
                    self._replace(snapshot_id, path, blob, text)
        except ActionFailed as error:
            logger.warning("%s; it is laid out anew", error.message)
            self._trees.remove(snapshot_id)
            self._trees.build(Manifest.parse(text, expected_id=snapshot_id))
        return True

    def _replace(self, snapshot_id: SnapshotId, path: bytes, blob: Blob, text: bytes) -> None:
        """Let one name of a tree be the blob; its directories keep the modes of the manifest."""
        *above, name = path.split(b"/")
        with ExitStack() as opened:
            fd = self._trees.open(snapshot_id)
            opened.callback(os.close, fd)
            below = b"./"
            opened.callback(_set_mode, fd, _directory_mode(text, below))
            for component in above:
                fd = fsops.open_directory(component, fd)
                opened.callback(os.close, fd)
                below += component + b"/"
                opened.callback(_set_mode, fd, _directory_mode(text, below))
            if not self._is_blob(fd, name, blob):
                self._put(fd, name, blob)

    def _is_blob(self, fd: int, name: bytes, blob: Blob) -> bool:
        facts = self._blobs.facts(*blob)
        try:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return facts is not None and found.st_ino == facts.inode

    def _put(self, fd: int, name: bytes, blob: Blob) -> None:
        staged = self._staging.new_name()
        try:
            self._stage(staged, blob)
            os.rename(staged, name, src_dir_fd=self._staging.fd, dst_dir_fd=fd)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(staged, dir_fd=self._staging.fd)

    def _stage(self, staged: str, blob: Blob) -> None:
        digest, mode = blob
        shard_fd, staging_fd = self._blobs.shard(digest), self._staging.fd
        try:
            os.link(
                blob_name(digest, mode),
                staged,
                src_dir_fd=shard_fd,
                dst_dir_fd=staging_fd,
                follow_symlinks=False,
            )
        except OSError as exc:
            if exc.errno != errno.EMLINK:
                raise
            self._blobs.copy(digest, mode, staged, staging_fd)


def _paths(text: bytes, blob: Blob) -> Iterator[bytes]:
    """Find the paths of an object in a valid manifest, without the leading `./`."""
    digest, mode = blob
    line = rb"^F %o %b \d+ \./([^\n]+)$" % (mode, digest.encode())
    return (match[1] for match in re.finditer(line, text, re.MULTILINE))


def _directory_mode(text: bytes, path: bytes) -> int | None:
    line = rb"^D ([0-7]+) [0-9a-f]{64} \d+ %b$" % re.escape(path)
    match = re.search(line, text, re.MULTILINE)
    return int(match[1], 8) & DIRECTORY_BITS if match else None


def _set_mode(fd: int, mode: int | None) -> None:
    if mode is not None and os.fstat(fd).st_mode & 0o7777 != mode:
        os.fchmod(fd, mode)
