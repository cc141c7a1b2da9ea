"""Walk a directory: list it, hash every file, and make the manifest (format sections 3, 4, 6).

The three steps follow each other over compact columns, so that a million files cost some hundred
bytes each and no object.
"""

from __future__ import annotations

import errno
import os
import time
from array import array
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from snapd.disk.hash_workers import (
    WORKERS_FROM_SECONDS,
    Answer,
    FileToHash,
    default_jobs,
    hash_in_workers,
    hash_inline,
    hash_large,
)
from snapd.disk.hashing import CHANGED, ContentChanged, FileRow, Group
from snapd.disk.listing import DIRECTORY, Lister, Listing, source_error
from snapd.disk.reading import read_and_give
from snapd.model.errors import AccessDenied, SnapsyncError, SourceChanged, SourceUnfit
from snapd.model.manifest import Manifest, directory_checksum

if TYPE_CHECKING:
    from snapd.model.exclude import Excludes

_BATCH_FILES = 256
_LARGE_AT_ONCE = 4096
_INLINE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class WalkOptions:
    """How to walk. `jobs` 0 means the processors at hand, at most 16.

    With `stat_cache_dir` a file that looks as it did when it was last hashed is not read again, and
    what this walk hashes is remembered there.
    """

    follow: bool = True
    excludes: Excludes | None = None
    jobs: int = 0
    stat_cache_dir: str | None = None


class ContentTaker(Protocol):
    """Takes the content of files as they are hashed, on the walking thread; may wait, may raise.

    Not every file comes this way: those that the stat cache knows are not read.
    """

    def wants(self, files: int) -> bool:
        """Tell whether contents are wanted, once it is known how many files there are."""
        ...

    def take(self, file: FileToHash, row: FileRow, data: bytes) -> None:
        """Take a small file that was read whole, with the very bytes that were hashed."""
        ...

    def take_large(self, file: FileToHash, row: FileRow) -> None:
        """Take note that a large file has been hashed."""
        ...


@dataclass(frozen=True, slots=True)
class WalkProgress:
    """How far a walk is; `files_total` is 0 while the directory is being listed."""

    entries_listed: int = 0
    files_total: int = 0
    files_hashed: int = 0
    bytes_hashed: int = 0


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What told each file apart when it was hashed: columns in the manifest's order of files.

    They describe the content: for a followed link, the file at its end. `modes` and `listed_sizes`
    are the manifest's, so those of the link.
    """

    devices: array[int]
    inodes: array[int]
    sizes: array[int]
    mtimes_ns: array[int]
    ctimes_ns: array[int]
    modes: array[int]
    listed_sizes: array[int]
    links: bytearray
    """1 for a file that was reached through a link of its own."""

    @classmethod
    def blank(cls, count: int) -> FileFacts:
        """Make room for `count` files."""
        return cls(
            devices=array("Q", bytes(8 * count)),
            inodes=array("Q", bytes(8 * count)),
            sizes=array("Q", bytes(8 * count)),
            mtimes_ns=array("q", bytes(8 * count)),
            ctimes_ns=array("q", bytes(8 * count)),
            modes=array("H", bytes(2 * count)),
            listed_sizes=array("Q", bytes(8 * count)),
            links=bytearray(count),
        )

    def same(self, number: int, status: os.stat_result) -> bool:
        """Tell whether `status` is that of the content that was hashed."""
        return (
            status.st_size == self.sizes[number]
            and status.st_mtime_ns == self.mtimes_ns[number]
            and status.st_ctime_ns == self.ctimes_ns[number]
            and status.st_ino == self.inodes[number]
            and status.st_dev == self.devices[number]
        )


@dataclass(frozen=True, slots=True)
class WalkedTree:
    """A directory's manifest, and by what to notice that a file changed since."""

    root: str
    manifest: Manifest
    facts: FileFacts


def absolute_root(root: Path) -> str:
    """Make a root absolute as the format wants it: `..` and links stay, `.` and `/` at the end go.

    An empty path means the working directory.
    """
    return "/" + str(root.absolute()).lstrip("/")


def walk(
    root: Path,
    options: WalkOptions | None = None,
    on_progress: Callable[[WalkProgress], None] = lambda progress: None,
    taker: ContentTaker | None = None,
) -> WalkedTree:
    """Read a directory and everything below it, and make its manifest.

    `on_progress` is called on this thread, some times a second or more, and may raise to stop; no
    process or thread is left then. Raises `SourceUnfit` for what the format can't carry (names,
    link cycles, a root that is no directory), `AccessDenied` for what may not be read,
    `SourceChanged` for a file that changes while it is hashed; each names the path. A file that is
    rewritten with the same size within one tick of the file system's clock goes unnoticed.
    """
    options = options or WalkOptions()
    path = absolute_root(root)
    root_fd, root_mode = _open_root(path)
    try:
        return _Walk(path, root_fd, options, on_progress, taker).run(root_mode)
    finally:
        os.close(root_fd)


def _open_root(path: str) -> tuple[int, int]:
    try:
        root_mode = os.lstat(path).st_mode & 0o7777
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY), root_mode
    except PermissionError as exc:
        raise AccessDenied(f"cannot read {path!r}: {exc.strerror}", path=path) from exc
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise SourceUnfit(
            f"not a readable directory: {path!r}: {reason}",
            hint="Give a directory that exists.",
            path=path,
        ) from exc


class _Walk:
    """One walk; holds the columns that its steps fill."""

    def __init__(
        self,
        root: str,
        root_fd: int,
        options: WalkOptions,
        on_progress: Callable[[WalkProgress], None],
        taker: ContentTaker | None,
    ) -> None:
        self._root = root
        self._taker = taker
        self._root_fd = root_fd
        self._options = options
        self._jobs = options.jobs or default_jobs()
        self._on_progress = on_progress
        self._files_hashed = 0
        self._bytes_hashed = 0

    def run(self, root_mode: int) -> WalkedTree:
        """List, hash, render."""
        excludes = self._options.excludes
        lister = Lister(
            self._root,
            self._root_fd,
            follow=self._options.follow and not (excludes is not None and excludes.no_follow),
            excludes=excludes,
            on_listed=lambda count: self._on_progress(WalkProgress(entries_listed=count)),
        )
        self._listing = lister.run(root_mode)
        count = self._listing.file_count
        self._facts = FileFacts.blank(count)
        self._digests = bytearray(32 * count)
        if self._taker is not None and not self._taker.wants(count):
            self._taker = None
        self._hash()
        text = _render(self._listing, self._facts, self._digests)
        return WalkedTree(self._root, Manifest.parse(text), self._facts)

    def _hash(self) -> None:
        large: list[FileToHash] = []
        # An error that is on its way holds the generator: only closing ends its processes now.
        with closing(self._answers()) as answers:
            for files, rows in answers:
                for file, row in zip(files, rows, strict=False):
                    if isinstance(row, int):
                        raise self._failure(row, file)
                    if row[-1]:
                        self._keep(file, row)
                        self._bytes_hashed += row[2]
                    else:
                        large.append(file)
                self._report()
                if len(large) >= _LARGE_AT_ONCE:
                    self._hash_large(large)
                    large.clear()
        self._hash_large(large)

    def _answers(self) -> Generator[tuple[list[FileToHash], Answer], None, None]:
        """Hash inline for a moment, then with workers if there is enough left to do."""
        batches = _batches(self._listing)
        if self._taker is not None:
            yield from read_and_give(self._root_fd, batches, self._taker.take)
            return
        started_at = time.monotonic()
        for answer in hash_inline(self._root_fd, batches):
            yield answer
            seconds = time.monotonic() - started_at
            if (
                self._jobs > 1
                and seconds >= _INLINE_SECONDS
                and self._left(seconds) >= WORKERS_FROM_SECONDS
            ):
                break
        else:
            return
        yield from hash_in_workers(self._root_fd, batches, self._jobs)

    def _left(self, seconds: float) -> float:
        """Estimate how long the rest takes, if so many files were hashed in `seconds`."""
        hashed = max(1, self._files_hashed)
        return seconds * (self._listing.file_count - hashed) / hashed

    def _hash_large(self, files: list[FileToHash]) -> None:
        def count(size_bytes: int) -> None:
            self._bytes_hashed += size_bytes
            self._report()

        hashed = hash_large(self._root_fd, files, self._jobs, count)
        with closing(hashed):
            for file, row in hashed:
                if isinstance(row, ContentChanged):
                    raise self._failure(CHANGED, file)
                if isinstance(row, OSError):
                    raise self._failure(row.errno or errno.EIO, file) from row
                self._keep(file, row)
                if self._taker is not None:
                    self._taker.take_large(file, row)
        self._report()

    def _keep(self, file: FileToHash, row: FileRow) -> None:
        number, facts = self._listing.numbers[file.entry], self._facts
        mode, listed_size, size, device, inode, mtime_ns, ctime_ns, digest = row
        facts.modes[number] = mode
        facts.listed_sizes[number] = listed_size
        facts.sizes[number] = size
        facts.devices[number] = device
        facts.inodes[number] = inode
        facts.mtimes_ns[number] = mtime_ns
        facts.ctimes_ns[number] = ctime_ns
        facts.links[number] = file.is_link
        self._digests[32 * number : 32 * number + 32] = digest
        self._files_hashed += 1

    def _report(self) -> None:
        self._on_progress(
            WalkProgress(
                len(self._listing.kinds),
                self._listing.file_count,
                self._files_hashed,
                self._bytes_hashed,
            )
        )

    def _failure(self, code: int, file: FileToHash) -> SnapsyncError:
        shown = self._listing.absolute(file.directory + file.name)
        if code == CHANGED:
            return SourceChanged(f"{shown!r} changed while it was hashed", path=shown)
        return source_error(OSError(code, os.strerror(code)), shown)


def _batches(listing: Listing) -> Iterator[tuple[list[Group], list[FileToHash]]]:
    """Fill batches of some hundred files with whole or cut directories."""
    groups: list[Group] = []
    files: list[FileToHash] = []
    for group, entries in listing.groups(_BATCH_FILES):
        path, names, links = group
        groups.append(group)
        files += [
            FileToHash(entry, path, name, bool(is_link))
            for entry, name, is_link in zip(entries, names, links, strict=True)
        ]
        if len(files) >= _BATCH_FILES:
            yield groups, files
            groups, files = [], []
    if files:
        yield groups, files


def _render(listing: Listing, facts: FileFacts, digests: bytearray) -> bytes:
    """Write the manifest's text; files have their digests, directories get theirs here."""
    directory_digests, directory_sizes = _sum_up(listing, facts, digests)
    kinds, numbers = listing.kinds, listing.numbers
    text = bytearray(
        b"D %o %b %d ./\n"
        % (listing.modes[0], directory_digests[:32].hex().encode(), directory_sizes[0])
    )
    prefix, lengths, current = b"./", [2], 0
    for directory, entry in listing.in_order():
        if directory != current:
            current, depth = directory, listing.depths[directory]
            prefix = prefix[: lengths[max(depth - 1, 0)]]
            if depth:
                prefix += listing.name(listing.own_entries[directory])
            lengths[depth:] = [len(prefix)]
        number = numbers[entry]
        start = 32 * number
        if kinds[entry] == DIRECTORY:
            kind, mode, size = b"D", listing.modes[number], directory_sizes[number]
            digest = directory_digests[start : start + 32]
        else:
            kind, mode, size = b"F", facts.modes[number], facts.listed_sizes[number]
            digest = digests[start : start + 32]
        name = listing.name(entry)
        text += b"%b %o %b %d %b%b\n" % (kind, mode, digest.hex().encode(), size, prefix, name)
    return bytes(text)


def _sum_up(listing: Listing, facts: FileFacts, digests: bytearray) -> tuple[bytearray, array[int]]:
    """Give checksum and size of every directory, children before parents."""
    count = len(listing.modes)
    sums, sizes = bytearray(32 * count), array("Q", bytes(8 * count))
    kinds, numbers = listing.kinds, listing.numbers
    for directory in range(count - 1, -1, -1):
        children: set[str] = set()
        size = 0
        for entry in range(listing.firsts[directory], listing.ends[directory]):
            number = numbers[entry]
            is_directory = kinds[entry] == DIRECTORY
            column = sums if is_directory else digests
            children.add(column[32 * number : 32 * number + 32].hex())
            size += sizes[number] if is_directory else facts.listed_sizes[number]
        sums[32 * directory : 32 * directory + 32] = bytes.fromhex(directory_checksum(children))
        sizes[directory] = size
    return sums, sizes
