"""Verified objects: `blobs/<first 2 hex>/<digest>.<mode>`.

A file gets such a name only after its bytes hashed to the digest. It lies there with the permission
bits of its mode; set-uid, set-gid and sticky are in the name only and never on disk.
"""

from __future__ import annotations

import errno
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path

from snapd.disk import fsops
from snapd.disk.publishing import PERMISSION_BITS, SHARDS, Press, StatFacts, blob_name, hash_file
from snapd.disk.quarantine import Exhibit
from snapd.disk.records import Facts, Records
from snapd.disk.writers import BlobWriter, LargeBlobWriter, OnBytes
from snapd.model.eviction import PREFIX_DIGITS, holds
from snapd.model.ids import Digest
from snapd.model.manifest import Manifest
from snapd.model.objects import ABSENT, Objects
from snapd.model.plan import ObjectRef

__all__ = ["BlobWriter", "Blobs", "LargeBlobWriter"]

_NAME = re.compile(r"([0-9a-f]{64})\.(0|[1-7][0-7]{0,3})", re.ASCII)

USUAL_MODES = (0o644, 0o755, 0o664, 0o775, 0o600, 0o444, 0o640, 0o555, 0o666, 0o777, 0o700, 0o400)

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC

CENSUS_OBJECTS = 2000
"""From this many objects on, listing the cache is cheaper than asking for each."""


class Blobs:
    """All verified objects of the cache. Safe to use from many threads; every call blocks."""

    def __init__(self, press: Press, records: Records) -> None:
        self.root = press.root
        self.shards = {name.encode(): fd for name, fd in zip(SHARDS, press.shards, strict=True)}
        """The directories by the first two digits of the digests that they hold."""
        self._press = press
        self._records = records

    def note_verified(self, arrived: Iterable[tuple[ObjectRef, StatFacts]]) -> bool:
        """Take note of objects that another process of ours hashed and published.

        Does not block. True: so much is noted that `write_notes` is due.
        """
        return self._records.note_arrived(arrived)

    def write_notes(self) -> None:
        """Write down what was noted."""
        self._records.flush()

    def shard(self, digest: Digest) -> int:
        """Give the descriptor of the directory in which an object lies or would lie."""
        return self._press.shard(digest)

    def path(self, digest: Digest, mode: int) -> Path:
        """Tell where an object lies or would lie."""
        return self.root / digest[:2] / blob_name(digest, mode)

    def has(self, digest: Digest, mode: int) -> bool:
        """Tell whether the object is here under that very mode."""
        return os.access(blob_name(digest, mode), os.F_OK, dir_fd=self.shard(digest))

    def present(self, refs: Iterable[ObjectRef]) -> list[bool]:
        """Tell of each reference whether its object is here under its mode."""
        access, shards = os.access, self._press.shards
        return [
            access(f"{digest}.{mode:o}", os.F_OK, dir_fd=shards[int(digest[:2], 16)])
            for digest, mode, _, _ in refs
        ]

    def other_mode(self, digests: Iterable[Digest]) -> dict[Digest, int]:
        """Find objects whatever their mode: each digest that is here, with one of its modes.

        Lists every directory concerned once.
        """
        found: dict[Digest, int] = {}
        for shard, group in groupby(sorted(set(digests)), key=lambda digest: digest[:2]):
            wanted = set(group)
            found.update(each for each in self._listing(shard) if each[0] in wanted)
        return found

    def survey(self, manifest: Manifest, objects: Objects) -> array[int]:
        """Tell of each object the mode under which it is here, its own if possible, or `ABSENT`."""
        held = array("h", [ABSENT]) * len(objects)
        likely = self.likely(objects)
        for position, name in zip(likely, self.names(manifest, objects, likely), strict=True):
            if self.stat(name) is not None:
                held[position] = objects.modes[position]
            else:
                mode = self.any_mode(Digest(name[:64].decode("ascii")))
                held[position] = ABSENT if mode is None else mode
        return held

    def likely(self, objects: Objects) -> Sequence[int]:
        """Tell the positions of objects that are worth a look; the others are surely not here.

        From some thousands on all directories are listed once for that, which takes 8 bytes an
        object of the cache; fewer are simply looked for.
        """
        if len(objects) < CENSUS_OBJECTS:
            return range(len(objects))
        known = self._census()
        if not known:
            return ()
        return array("I", [at for at, number in enumerate(objects.numbers) if holds(known, number)])

    def names(
        self, manifest: Manifest, objects: Objects, positions: Iterable[int]
    ) -> Iterator[bytes]:
        """Name the files of some objects under their own modes."""
        return manifest.blob_names(map(objects.firsts.__getitem__, positions))

    def any_mode(self, digest: Digest) -> int | None:
        """Find one mode under which an object is here; None if it is not."""
        for mode in USUAL_MODES:
            if self.has(digest, mode):
                return mode
        return self.other_mode([digest]).get(digest)

    def _census(self) -> array[int]:
        """Note the number of every object here, in order."""
        numbers: array[int] = array("Q")
        for shard in range(len(SHARDS)):
            names = os.listdir(self._press.shards[shard])
            found = (name[:PREFIX_DIGITS] for name in names if _NAME.fullmatch(name))
            numbers.extend(sorted(int(digits, 16) for digits in found))
        return numbers

    def iterate(self) -> Iterator[tuple[Digest, int]]:
        """Walk all objects here, once for each mode."""
        for shard in SHARDS:
            yield from self._listing(shard)

    def _listing(self, shard: str) -> Iterator[tuple[Digest, int]]:
        for name in os.listdir(self._press.shards[int(shard, 16)]):
            match = _NAME.fullmatch(name)
            if match is not None and name.startswith(shard):
                yield Digest(match[1]), int(match[2], 8)

    def derive(self, digest: Digest, *, from_mode: int, to_mode: int) -> None:
        """Make an object that is here under one mode available under another.

        Shares the blocks where the file system can, else copies. Raises `NoSpace` and the like.
        """
        with fsops.translated(f"can't give object {digest} the mode {to_mode:o}", self.root):
            source_fd = fsops.open_own_file(blob_name(digest, from_mode), self.shard(digest))
            try:
                with self._press.stage(digest) as staged:
                    fsops.reflink_or_copy(source_fd, staged.fd)
                    self._press.publish(staged, digest, to_mode)
            finally:
                os.close(source_fd)

    def copy(self, digest: Digest, mode: int, name: str, dir_fd: int) -> None:
        """Make a file of its own that has an object's bytes and permissions.

        For where a blob can't have more links. After an error a part of the file may be there.
        """
        source_fd = fsops.open_own_file(blob_name(digest, mode), self.shard(digest))
        try:
            fd = os.open(name, _CREATE, 0o600, dir_fd=dir_fd)
            try:
                fsops.reflink_or_copy(source_fd, fd)
                os.fchmod(fd, mode & PERMISSION_BITS)
            finally:
                os.close(fd)
        finally:
            os.close(source_fd)

    def writer(
        self, ref: ObjectRef, on_bytes: OnBytes | None = None, *, source: str = ""
    ) -> BlobWriter:
        """Make a sink for one whole object. `source` says in a quarantine's note who sent it."""
        return BlobWriter(self._press, ref, on_bytes, source)

    def large_writer(
        self,
        ref: ObjectRef,
        size_bytes: int,
        on_bytes: OnBytes | None = None,
        *,
        source: str = "",
    ) -> LargeBlobWriter:
        """Make a writer for an object of known size that arrives in parts."""
        return LargeBlobWriter(self._press, ref, size_bytes, on_bytes, source)

    def verify(self, digest: Digest, mode: int) -> bool:
        """Hash an object anew; False if the bytes are wrong or the object is not here."""
        proof = self.prove(digest, mode)
        return proof is not None and proof[1]

    def prove(
        self, digest: Digest, mode: int, on_step: Callable[[], None] | None = None
    ) -> tuple[Facts, bool] | None:
        """Hash an object anew: how its file looked before that, and whether its bytes are right.

        A wrong permission on disk is put right first, and the file is sealed if the cache is. None
        if the object is not here. A file that can't be read as the disk is failing counts as wrong.
        """
        with fsops.translated(f"can't verify object {digest}", self.root):
            try:
                fd = fsops.open_own_file(blob_name(digest, mode), self.shard(digest))
            except FileNotFoundError:
                return None
            try:
                if os.fstat(fd).st_mode & 0o7777 != mode & PERMISSION_BITS:
                    os.fchmod(fd, mode & PERMISSION_BITS)
                self._press.seal.attempt(fd)
                facts = Facts.of(os.fstat(fd))
                try:
                    return facts, hash_file(fd, on_step) == digest
                except OSError as exc:
                    if exc.errno != errno.EIO:
                        raise
                    return facts, False
            finally:
                os.close(fd)

    def facts(self, digest: Digest, mode: int) -> Facts | None:
        """Tell how the file of an object looks; None if it is not here."""
        found = self.stat(blob_name(digest, mode).encode())
        return None if found is None else Facts(*found)

    def stat(self, name: bytes) -> tuple[int, int, int, int] | None:
        """Tell what `Facts` hold, by the file's name and as a plain tuple: it is asked often."""
        try:
            found = os.stat(name, dir_fd=self.shards[name[:2]], follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise fsops.translate(exc, "can't look at an object", self.root) from exc
        return found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns

    def links(self, name: bytes) -> int:
        """Tell how many links a blob has beside its own name; 0 if it is not here."""
        try:
            found = os.stat(name, dir_fd=self.shards[name[:2]])
        except FileNotFoundError:
            return 0
        return found.st_nlink - 1

    def changed_ns(self, digest: Digest, mode: int) -> int:
        """Tell when the bytes of an object that is here were written."""
        name = blob_name(digest, mode)
        return os.stat(name, dir_fd=self.shard(digest), follow_symlinks=False).st_mtime_ns

    def quarantine(self, digest: Digest, mode: int, *, inode: int | None = None) -> None:
        """Take an object whose bytes are wrong out of the cache; an absent one is no error.

        With `inode` only that very file: another one has come in its place meanwhile. Trees that
        hold it are the caller's business.
        """
        name, shard, kept_in = blob_name(digest, mode), self.shard(digest), self._press.quarantine
        with (
            fsops.translated(f"can't quarantine object {digest}", self.root),
            suppress(FileNotFoundError),
        ):
            fd = fsops.open_own_file(name, shard)
            try:
                found = os.fstat(fd)
                if inode not in (None, found.st_ino):
                    return
                actual = _hash_if_readable(fd)
            finally:
                os.close(fd)
            kept = kept_in.keep(
                Exhibit(digest, actual, found.st_size, path=name, source=os.fspath(self.root)),
                lambda kept: os.rename(name, kept, src_dir_fd=shard, dst_dir_fd=kept_in.fd),
            )
            if kept is None:
                os.unlink(name, dir_fd=shard)


def blob_of(name: bytes) -> tuple[Digest, int]:
    """Read digest and mode back from the name of an object's file."""
    return Digest(name[:64].decode("ascii")), int(name[65:], 8)


def _hash_if_readable(fd: int) -> str:
    try:
        return hash_file(fd)
    except OSError as exc:
        if exc.errno != errno.EIO:
            raise
        return "unreadable"
