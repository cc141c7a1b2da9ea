"""From bytes to a verified object at its final name, or into the quarantine."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from blake3 import blake3

from snapd.disk import fsops
from snapd.disk.quarantine import Exhibit, Quarantine
from snapd.disk.seal import UNSEALED, Seal
from snapd.disk.staging import Staging
from snapd.model.errors import DigestMismatch, NoSpace, SnapsyncError
from snapd.model.ids import Digest
from snapd.model.plan import ObjectRef
from snapd.model.settings import MIB
from snapd.model.units import format_size

SHARDS = tuple(f"{number:02x}" for number in range(256))
PERMISSION_BITS = 0o777
_KEPT_FREE_BYTES_MAX = 512 * MIB
_KEPT_FREE_SHARE = 64
"""Of the disk, if that is less."""

_READ_BYTES = MIB
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def blob_name(digest: Digest, mode: int) -> str:
    """Name the file of an object: `("49dc...", 0o644)` -> `49dc....644`."""
    return f"{digest}.{mode:o}"


def hash_file(fd: int, on_piece: Callable[[], None] | None = None) -> Digest:
    """Hash an open file from its start; `on_piece` is called now and then and may raise."""
    hasher = blake3()
    buffer = bytearray(_READ_BYTES)
    offset = 0
    with memoryview(buffer) as view:
        while count := os.preadv(fd, [buffer], offset):
            hasher.update(view[:count])
            offset += count
            if on_piece is not None:
                on_piece()
    return Digest(hasher.hexdigest())


def hash_stretch(hasher: blake3, fd: int, offset: int, length: int) -> None:
    """Go on hashing with a stretch of a file, which must have all of it."""
    buffer = bytearray(min(length, _READ_BYTES))
    end = offset + length
    with memoryview(buffer) as view:
        while offset < end:
            count = os.preadv(fd, [view[: end - offset]], offset)
            if not count:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            hasher.update(view[:count])
            offset += count


class StagedFile:
    """A file being written, mode 0600: without a name, or with one in the staging directory."""

    __slots__ = ("_name", "_staging", "fd")

    def __init__(self, staging: Staging, dir_fd: int, *, unnamed: bool) -> None:
        self._staging = staging
        self._name = ""
        if unnamed:
            self.fd = fsops.open_unnamed(dir_fd)
        else:
            self._name = staging.new_name()
            self.fd = os.open(self._name, _CREATE, 0o600, dir_fd=staging.fd)

    def __enter__(self) -> StagedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def link(self, name: str, dir_fd: int) -> None:
        """Give it a name; `FileExistsError` if that is taken."""
        if not self._name:
            fsops.link_unnamed(self.fd, name, dir_fd)
            return
        fsops.rename_noreplace(self._name, name, src_dir_fd=self._staging.fd, dst_dir_fd=dir_fd)
        self._name = ""

    def end_writing(self) -> None:
        """Keep it open for reading only."""
        reading_fd = os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_CLOEXEC)
        os.close(self.fd)
        self.fd = reading_fd

    def close(self) -> None:
        """Close it; unless `link` gave it a name it is gone."""
        os.close(self.fd)
        if self._name:
            os.unlink(self._name, dir_fd=self._staging.fd)


class Received(NamedTuple):
    """What arrived for an object: what it hashes to, how long it is, who sent it."""

    actual: str
    size_bytes: int
    source: str


StatFacts: TypeAlias = tuple[int, int, int, int]
"""What `stat` says of a file: size, inode, mtime_ns, ctime_ns."""

OnVerified = Callable[[Digest, int, StatFacts], None]
"""Told of each new object whose bytes were hashed on their way in: digest, mode, its file."""


def _tell_nobody(_digest: Digest, _mode: int, _facts: StatFacts) -> None:
    """Take no note."""


class Press:
    """Gives verified bytes their final names. Safe to use from many threads.

    Holds one open descriptor for each of the 256 directories until `close`. With `unnamed` new
    bytes go to files without a name; otherwise to names in the staging directory. An object that is
    longer than its snapshot says, for which nobody made room, never fills the disk.
    """

    def __init__(
        self,
        root: Path,
        staging: Staging,
        quarantine: Quarantine,
        *,
        unnamed: bool,
        seal: Seal = UNSEALED,
        on_verified: OnVerified = _tell_nobody,
    ) -> None:
        self.root = root
        self.seal = seal
        self.quarantine = quarantine
        self.shards = [os.open(root / shard, fsops.DIRECTORY) for shard in SHARDS]
        self._staging = staging
        self._unnamed = unnamed
        self.note_verified = on_verified

    def close(self) -> None:
        """Let go of the directories."""
        for fd in self.shards:
            os.close(fd)
        self.shards.clear()

    def shard(self, digest: Digest) -> int:
        """Give the descriptor of the directory in which an object lies or would lie."""
        return self.shards[int(digest[:2], 16)]

    def stage(self, digest: Digest) -> StagedFile:
        """Open a new file that can become the object."""
        return StagedFile(self._staging, self.shard(digest), unnamed=self._unnamed)

    def refuse_overrun(self, ref: ObjectRef, more_bytes: int, *, held_bytes: int = 0) -> None:
        """Raise `NoSpace` if that much more than the snapshot says would nearly fill the disk.

        `held_bytes` of the object are on the disk already, and go with it if it is refused.
        What is kept is less than what pulls leave free unless told otherwise: a sweep makes room
        again after an object that is somewhat longer, so that a full node goes on.
        """
        with fsops.translated(f"can't store object {ref.digest} ({ref.path})", self.root):
            space = fsops.space(self.shards[0])
        kept_bytes = min(_KEPT_FREE_BYTES_MAX, space.total_bytes // _KEPT_FREE_SHARE)
        available_bytes = held_bytes + max(0, space.free_bytes - kept_bytes)
        required_bytes = held_bytes + more_bytes
        if required_bytes > available_bytes:
            raise NoSpace(
                f"object {ref.digest} ({ref.path}) is longer than the {format_size(ref.size_bytes)}"
                f" that its snapshot says: at least {format_size(required_bytes)} are"
                f" needed in {self.root}, and {format_size(available_bytes)} can be had",
                object=ref.digest,
                directory=os.fspath(self.root),
                required_bytes=required_bytes,
                available_bytes=available_bytes,
                hint="In snapshots made with links followed a link's own length stands for its"
                " file's: make room with `snapctl cache gc --free SIZE` and pull again. Otherwise"
                " ask who keeps the store.",
            )

    def publish(self, staged: StagedFile, digest: Digest, mode: int) -> bool:
        """Give bytes their final name; False if somebody else's copy is there, which is as good."""
        if self.seal.state.active:
            staged.end_writing()
            self.seal.apply(staged.fd)
        os.fchmod(staged.fd, mode & PERMISSION_BITS)
        try:
            staged.link(blob_name(digest, mode), self.shard(digest))
        except FileExistsError:
            return False
        return True

    def _publish_verified(self, staged: StagedFile, ref: ObjectRef) -> StatFacts | None:
        if not self.publish(staged, ref.digest, ref.mode):
            return None
        found = os.fstat(staged.fd)
        return found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns

    def settle_pieces(
        self, ref: ObjectRef, pieces: Sequence[bytes | bytearray], source: str
    ) -> StatFacts | None:
        """Verify bytes in memory and publish them; raises `DigestMismatch`, `NoSpace`, ...

        Returns how the new file looks, which the caller passes on to `note_verified`; None if
        somebody else's copy is there.
        """
        hasher = blake3()
        for piece in pieces:
            hasher.update(piece)
        actual, size_bytes = hasher.hexdigest(), sum(map(len, pieces))
        if actual != ref.digest:

            def place(name: str) -> None:
                fd = os.open(name, _CREATE, 0o600, dir_fd=self.quarantine.fd)
                try:
                    fsops.write_pieces(fd, pieces)
                finally:
                    os.close(fd)

            received = Received(actual, size_bytes, source)
            raise self._mismatch(ref, received, place)
        if size_bytes > ref.size_bytes:
            self.refuse_overrun(ref, size_bytes - ref.size_bytes)
        try:
            if self._unnamed and not self.seal.state.active:
                return self._publish_pieces(ref, pieces)
            with self.stage(ref.digest) as staged:
                fsops.write_pieces(staged.fd, pieces)
                return self._publish_verified(staged, ref)
        except OSError as exc:
            raise self.failure(ref, exc) from exc

    def _publish_pieces(
        self, ref: ObjectRef, pieces: Sequence[bytes | bytearray]
    ) -> StatFacts | None:
        """Publish verified bytes in as few system calls as can be: this runs for every object.

        The file has its mode from the start, since it has no name as long as bytes are missing. The
        look at it that is due anyway tells if the umask or an ACL took something away.
        """
        digest, mode = ref.digest, ref.mode & PERMISSION_BITS
        shard = self.shard(digest)
        fd = fsops.open_unnamed(shard, mode)
        try:
            fsops.write_pieces(fd, pieces)
            try:
                fsops.link_unnamed(fd, blob_name(digest, ref.mode), shard)
            except FileExistsError:
                return None
            found = os.fstat(fd)
            if found.st_mode & 0o7777 != mode:
                os.fchmod(fd, mode)
                found = os.fstat(fd)
            return found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns
        finally:
            os.close(fd)

    def settle_file(self, ref: ObjectRef, staged: StagedFile, received: Received) -> None:
        """Publish a staged file if its bytes are right; raises as `settle_pieces` does."""
        if received.actual != ref.digest:
            raise self._mismatch(ref, received, lambda name: staged.link(name, self.quarantine.fd))
        try:
            facts = self._publish_verified(staged, ref)
        except OSError as exc:
            raise self.failure(ref, exc) from exc
        if facts is not None:
            self.note_verified(ref.digest, ref.mode, facts)

    def failure(self, ref: ObjectRef, exc: OSError) -> SnapsyncError:
        """Say which object could not be stored, where and why."""
        return fsops.translate(exc, f"can't store object {ref.digest} ({ref.path})", self.root)

    def _mismatch(
        self, ref: ObjectRef, received: Received, place: Callable[[str], None]
    ) -> DigestMismatch:
        """Keep wrong bytes in the quarantine and make the error that says so."""
        actual, size_bytes, source = received
        kept = self.quarantine.keep(
            Exhibit(ref.digest, actual, size_bytes, ref.path, source), place
        )
        return DigestMismatch(
            f"object {ref.digest} ({ref.path}) came as {size_bytes} bytes that hash to {actual}",
            object=ref.digest,
            expected=ref.digest,
            actual=actual,
            path=ref.path,
            quarantined=os.fspath(kept) if kept else "",
        )
