"""Remember the digests of a tree's files by how `stat` saw them: docs/stat-cache.md says why.

One file for each root, in the walk's order, so that an unchanged directory is found by comparing
one block of bytes. It is replaced as a whole and never written to; whatever is wrong with it, it
is as if it were not there. Losing it costs a hash of each file, so failures to write are no errors.
"""

from __future__ import annotations

import os
import stat
from array import array
from contextlib import suppress
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from snapd.disk.hashing import DIGEST_BYTES, ROW, ROW_FIELDS, Columns
from snapd.disk.mounts import Mounts, boot_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from snapd.disk.listing import Listing

SETTLED_NS = 2_000_000_000
"""How old a change must be before a file is read, so that another one can't bear the same stamp:
the coarsest clock of a trusted file system, and the steps back of a clock that are not noticed."""

STEP_MAX_NS = 1_000_000_000
"""A clock that was put back by more than this since the cache was written makes it void."""

TOTAL_MAX_BYTES = 1 << 29
FILES_MAX = 512
"""What all caches of a user may take; those that were not used for longest go first."""

_ABANDONED_NS = 3600 * 1_000_000_000
_USED_NS = 3600 * 1_000_000_000
_MAGIC = b"snapstat1\n\0\0\0\0\0\0"
_HEADER = Struct("<16s32sqq32s32sQQQQQ32s")
_DIRECTORY = Struct("<QQQ")
_NEVER = -(1 << 63)
"""The change time of a file that is hashed anew in any case; no file has it."""

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Clock:
    """The time by which the kernel stamps files, and one that nobody can set."""

    @staticmethod
    def now_ns() -> int:
        """Tell the time of day."""
        import time

        return time.clock_gettime_ns(time.CLOCK_REALTIME)

    @staticmethod
    def uptime_ns() -> int:
        """Tell the time since boot, sleep included."""
        import time

        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Summary(NamedTuple):
    """What is to be said of a whole tree."""

    snapshot_id: str
    files: int
    directories: int
    size_bytes: int


class Header(NamedTuple):
    """What stands before the columns."""

    key: bytes
    written_ns: int
    offset_ns: int
    """How far the time of day was ahead of the time since boot."""
    fingerprint: bytes
    """Of everything that the ID is a function of; zero if some file is to be hashed anew."""
    summary: Summary
    directory_count: int
    body_checksum: bytes

    def pack(self) -> bytes:
        """Render it with a checksum of its own."""
        summary = self.summary
        packed = _HEADER.pack(
            _MAGIC,
            self.key,
            self.written_ns,
            self.offset_ns,
            self.fingerprint,
            bytes.fromhex(summary.snapshot_id),
            summary.files,
            summary.directories,
            # The sum of many sizes may need more than 64 bits.
            summary.size_bytes & (1 << 64) - 1,
            summary.size_bytes >> 64,
            self.directory_count,
            self.body_checksum,
        )
        return packed + blake3(packed).digest()

    @classmethod
    def unpack(cls, raw: bytes) -> Header | None:
        """Read it; None if it is not what `pack` made."""
        packed, checksum = raw[: _HEADER.size], raw[_HEADER.size :]
        if len(packed) != _HEADER.size or blake3(packed).digest() != checksum:
            return None
        magic, key, written_ns, offset_ns, fingerprint, snapshot_id, *counts = _HEADER.unpack(
            packed
        )
        files, directories, low, high, directory_count, body_checksum = counts
        if magic != _MAGIC:
            return None
        summary = Summary(snapshot_id.hex(), files, directories, high << 64 | low)
        return cls(key, written_ns, offset_ns, fingerprint, summary, directory_count, body_checksum)


_HEADER_BYTES = _HEADER.size + 32


class Known:
    """A cache that was found: its header at once, its columns when they are asked for."""

    def __init__(self, fd: int, header: Header) -> None:
        self._fd = fd
        self.header = header
        self._directories = memoryview(b"")
        self._rows = memoryview(b"")
        self._digests = memoryview(b"")
        self._firsts: array[int] = array("Q")
        self._by_identity: dict[tuple[int, int], int] = {}

    def close(self) -> None:
        """Let go of the file; once."""
        os.close(self._fd)

    def load(self) -> bool:
        """Read the columns; False if they are damaged."""
        files, directories = self.header.summary.files, self.header.directory_count
        size_bytes = directories * _DIRECTORY.size + files * (ROW.size + DIGEST_BYTES)
        try:
            if os.fstat(self._fd).st_size != _HEADER_BYTES + size_bytes:
                return False
            body = bytearray(size_bytes)
            view = memoryview(body)
            done = 0
            while done < size_bytes:
                count = os.preadv(self._fd, [view[done:]], _HEADER_BYTES + done)
                if not count:
                    return False
                done += count
        except (OSError, MemoryError):
            return False
        if blake3(body).digest() != self.header.body_checksum:
            return False
        rows = directories * _DIRECTORY.size
        self._directories = view[:rows]
        self._rows = view[rows : rows + files * ROW.size]
        self._digests = view[rows + files * ROW.size :]
        self._firsts = array("Q", [0])
        for _, _, count in _DIRECTORY.iter_unpack(self._directories):
            self._firsts.append(self._firsts[-1] + count)
        return True

    def fill(self, listing: Listing, columns: Columns) -> array[int]:
        """Give files their digests whose rows in `columns` are known; tell the numbers of the rest.

        Only after `load`.
        """
        unknown = array("Q")
        for directory in range(len(listing.modes)):
            first, end = listing.file_firsts[directory], listing.end_of_files(directory)
            if first == end:
                continue
            known = self._find(directory, (listing.devices[directory], listing.inodes[directory]))
            if known is None:
                unknown.extend(range(first, end))
                continue
            start, stop = self._firsts[known], self._firsts[known + 1]
            rows = columns.rows[ROW.size * first : ROW.size * end]
            if rows.tobytes() == self._rows_of(start, stop).tobytes():
                columns.digests[DIGEST_BYTES * first : DIGEST_BYTES * end] = self._digests[
                    DIGEST_BYTES * start : DIGEST_BYTES * stop
                ]
            else:
                unknown.extend(self._fill_one_by_one(columns, range(first, end), start, stop))
        return unknown

    def _fill_one_by_one(
        self, columns: Columns, files: Iterable[int], start: int, stop: int
    ) -> Iterable[int]:
        known = {bytes(self._rows_of(each, each + 1)): each for each in range(start, stop)}
        for file in files:
            found = known.get(bytes(columns.rows[ROW.size * file : ROW.size * (file + 1)]))
            if found is None:
                yield file
            else:
                columns.digests[DIGEST_BYTES * file : DIGEST_BYTES * (file + 1)] = self._digests[
                    DIGEST_BYTES * found : DIGEST_BYTES * (found + 1)
                ]

    def _rows_of(self, start: int, stop: int) -> memoryview:
        return self._rows[ROW.size * start : ROW.size * stop]

    def _find(self, guess: int, identity: tuple[int, int]) -> int | None:
        """Look a directory up, which is mostly where it was."""
        count = self.header.directory_count
        if guess < count and self._identity(guess) == identity:
            return guess
        if not self._by_identity:
            self._by_identity = {self._identity(number): number for number in range(count)}
        return self._by_identity.get(identity)

    def _identity(self, directory: int) -> tuple[int, int]:
        device, inode, _ = _DIRECTORY.unpack_from(self._directories, _DIRECTORY.size * directory)
        return device, inode


def default_directory(environment: Mapping[str, str]) -> str | None:
    """Give the user's own place for what is known of files, which is no daemon's business."""
    for variable, below in (("XDG_CACHE_HOME", ""), ("HOME", "/.cache")):
        base = environment.get(variable, "")
        if base.startswith("/"):
            return f"{base}{below}/snapsync/stat"
    return None


class StatCache:
    """The cache of one root, walked in one way. Safe with many processes at once.

    `walked_ns` is when this object was made, which must be before any file is read: what changed
    later, or shortly before, is not remembered.
    """

    def __init__(self, directory: str, key: bytes, clock: Clock, mounts: Mounts) -> None:
        self._directory = directory
        self._name = key.hex()[:32]
        self._key = key
        self._clock = clock
        self._mounts = mounts
        self.walked_ns = clock.now_ns()
        self._offset_ns = self.walked_ns - clock.uptime_ns()

    @classmethod
    def of(
        cls, directory: str, root_fd: int, walked_how: str, clock: Clock | None = None
    ) -> StatCache | None:
        """Make the cache of a root; None where stamps of files can't be relied on."""
        root = os.fstat(root_fd)
        boot = boot_id()
        mounts = Mounts.read(root_fd)
        if not boot or not mounts.is_trusted(root.st_dev):
            return None
        # After a reboot a device may be another one, the clock may be wrong, and after a crash a
        # file may have its new stamps and its old content.
        identity = (boot, root.st_dev, root.st_ino, os.fstatvfs(root_fd).f_fsid, walked_how)
        key = blake3(repr(identity).encode("utf-8", "surrogateescape")).digest()
        return cls(directory, key, clock or Clock(), mounts)

    def find(self) -> Known | None:
        """Look for what an earlier walk left; whoever gets it closes it."""
        try:
            directory_fd = self._open_directory()
            try:
                fd = os.open(self._name, _FLAGS, dir_fd=directory_fd)
            finally:
                os.close(directory_fd)
        except OSError:
            return None
        header = None
        try:
            status = os.fstat(fd)
            if _is_own(status) and stat.S_ISREG(status.st_mode):
                header = Header.unpack(os.pread(fd, _HEADER_BYTES, 0))
            if header is not None and not self._is_current(header):
                header = None
            if header is not None and status.st_mtime_ns < self.walked_ns - _USED_NS:
                os.utime(fd)
        except OSError:
            header = None
        if header is None:
            os.close(fd)
            return None
        return Known(fd, header)

    def _is_current(self, header: Header) -> bool:
        """Tell whether no clock was put back since, by which stamps of then may come again."""
        return (
            header.key == self._key
            and header.written_ns <= self.walked_ns + STEP_MAX_NS
            and header.offset_ns <= self._offset_ns + STEP_MAX_NS
        )

    def remember(self, listing: Listing, columns: Columns, summary: Summary) -> None:
        """Write down what was hashed, or was known and still is; whole or not at all."""
        rows, all_settled = self._settled_rows(columns)
        directories = bytearray()
        for number in range(len(listing.modes)):
            count = listing.end_of_files(number) - listing.file_firsts[number]
            directories += _DIRECTORY.pack(listing.devices[number], listing.inodes[number], count)
        body = [directories, rows, columns.digests]
        checksum = blake3()
        for part in body:
            checksum.update(part)
        header = Header(
            key=self._key,
            written_ns=self.walked_ns,
            offset_ns=self._offset_ns,
            fingerprint=fingerprint(listing, columns) if all_settled else bytes(32),
            summary=summary,
            directory_count=len(listing.modes),
            body_checksum=checksum.digest(),
        )
        if _HEADER_BYTES + sum(map(len, body)) > TOTAL_MAX_BYTES:
            return
        try:
            directory_fd = self._open_directory(make=True)
            try:
                _replace(directory_fd, self._name, [header.pack(), *body])
                self._drop_old(directory_fd)
            finally:
                os.close(directory_fd)
        except OSError:
            return

    def _settled_rows(self, columns: Columns) -> tuple[memoryview | bytearray, bool]:
        """Mark what another change may look like, and what no change need be seen of."""
        settled_ns = self.walked_ns - SETTLED_NS
        trusted = {device: self._mounts.is_trusted(device) for device in set(columns.column(3))}
        if all(trusted.values()) and max(columns.column(6), default=0) < settled_ns:
            return columns.rows, True
        rows = bytearray(columns.rows)
        devices = memoryview(rows).cast("Q")[3::ROW_FIELDS]
        changes = memoryview(rows).cast("q")[6::ROW_FIELDS]
        for file in range(columns.count):
            if changes[file] >= settled_ns or not trusted[devices[file]]:
                changes[file] = _NEVER
        return rows, False

    def _open_directory(self, *, make: bool = False) -> int:
        """Open the user's directory; one that others may write to is as good as missing."""
        if make:
            above = os.path.dirname(self._directory)
            os.makedirs(above, mode=0o700, exist_ok=True)
            with suppress(FileExistsError):
                os.mkdir(self._directory, 0o700)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._directory, flags)
        if not _is_own(os.fstat(fd)):
            os.close(fd)
            raise PermissionError(f"{self._directory} belongs to others")
        return fd

    def _drop_old(self, directory_fd: int) -> None:
        """Keep to the bounds; the cache that was written just now stays."""
        found = []
        for name in os.listdir(directory_fd):
            try:
                status = os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            is_partial = name.startswith(".")
            if is_partial and status.st_mtime_ns > self._clock.now_ns() - _ABANDONED_NS:
                continue
            newest_first = -1 if name == self._name else 0
            found.append((is_partial, newest_first, -status.st_mtime_ns, status.st_size, name))
        total_bytes = 0
        for number, (is_partial, _, _, size_bytes, name) in enumerate(sorted(found)):
            total_bytes += size_bytes
            if is_partial or number >= FILES_MAX or total_bytes > TOTAL_MAX_BYTES:
                os.unlink(name, dir_fd=directory_fd)


def fingerprint(listing: Listing, columns: Columns) -> bytes:
    """Hash all that a tree's manifest depends on, if each row tells a file's content."""
    hasher = blake3()
    parts = (
        listing.names,
        listing.kinds,
        listing.modes,
        listing.firsts,
        listing.ends,
        listing.parents,
        listing.own_entries,
        columns.rows,
    )
    for part in parts:
        view = memoryview(part).cast("B")
        hasher.update(view.nbytes.to_bytes(8, "little"))
        hasher.update(view)
    return hasher.digest()


def _is_own(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _replace(directory_fd: int, name: str, parts: list[bytes | bytearray | memoryview]) -> None:
    partial = f".{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(partial, flags, 0o600, dir_fd=directory_fd)
    try:
        try:
            for part in parts:
                view = memoryview(part).cast("B")
                while view:
                    view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
        os.rename(partial, name, src_dir_fd=directory_fd, dst_dir_fd=directory_fd)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial, dir_fd=directory_fd)
        raise
