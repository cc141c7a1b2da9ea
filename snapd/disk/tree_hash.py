"""Hash a directory tree: list it, hash what is not known, and say what the whole is.

`snapctl id` starts with little more than this module, so it imports as little as it can.
"""

from __future__ import annotations

import os
import time
from array import array
from contextlib import closing
from typing import TYPE_CHECKING

from blake3 import blake3

from snapd.disk.hash_workers import default_jobs, do_in_processes, do_inline, new_buffer
from snapd.disk.hashing import (
    CHANGED,
    LARGE_FILE_BYTES,
    Columns,
    FileFailure,
    FileToHash,
    hash_group,
    look_at_group,
)
from snapd.disk.large_files import hash_large
from snapd.disk.listing import FILE, DirectoryPaths, Lister, Listing, source_error
from snapd.disk.rendering import render
from snapd.disk.stat_cache import StatCache, Summary, fingerprint
from snapd.model.errors import AccessDenied, SnapsyncError, SourceChanged, SourceUnfit

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from typing import Protocol

    from snapd.disk.hash_workers import Answer, Work
    from snapd.disk.hashing import FileRow, Group
    from snapd.model.exclude import Excludes

    OnProgress = Callable[[int, int, int, int], None]
    """Takes entries listed, files in total (0 while listing), files hashed and bytes hashed."""

    class ContentTaker(Protocol):
        """Takes the content of files as they are hashed, on the walking thread; may wait or raise.

        Not every file comes this way: those that the stat cache knows are not read.
        """

        def wants(self, files: int) -> bool:
            """Tell whether contents are wanted, once it is known how many files will be read."""
            ...

        def take(self, file: FileToHash, row: FileRow, data: bytes) -> None:
            """Take a small file that was read whole, with the very bytes that were hashed."""
            ...

        def take_large(self, file: FileToHash, row: FileRow) -> None:
            """Take note that a large file has been hashed."""
            ...


_BATCH_FILES = 256
_LARGE_AT_ONCE = 4096
_LOOKS_PER_PROCESS = 4000
_INLINE_SECONDS = 0.008
WORKERS_FROM_SECONDS = 0.015
"""Less work than this is done before other processes are forked and gone again."""


def absolute_path(path: str) -> str:
    """Make a path absolute as the format wants it: `..` and links stay, `.` and `/` at the end go.

    An empty path means the working directory.
    """
    whole = path if path.startswith("/") else f"{os.getcwd()}/{path}"
    return "/" + "/".join(part for part in whole.split("/") if part not in ("", "."))


def open_root(path: str) -> tuple[int, int]:
    """Open the directory that is to be hashed; give its descriptor and the mode it is listed with.

    That is the link's if the root is one. Raises `SourceUnfit` or `AccessDenied`.
    """
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


def _lies_in(directory: str, root: str) -> bool:
    """Tell whether writing to `directory` would change the tree that is hashed."""
    top = os.path.realpath(root).rstrip("/")
    return os.path.realpath(directory).startswith(f"{top}/")


class TreeHash:
    """The hash of one tree; `summary` or `run`, once.

    `on_progress` is called on this thread and may raise to stop; no process is left then. `sha256`,
    which goes with neither a stat cache nor a taker, has every file hashed both ways as it is read.
    """

    def __init__(
        self,
        root: str,
        root_fd: int,
        root_mode: int,
        *,
        follow: bool,
        excludes: Excludes | None,
        jobs: int,
        stat_cache_dir: str | None,
        on_progress: OnProgress,
        taker: ContentTaker | None = None,
        sha256: bool = False,
    ) -> None:
        self._taker = taker
        self._root_fd = root_fd
        self._jobs = jobs or default_jobs()
        self._on_progress = on_progress
        self._files_hashed = 0
        self._bytes_hashed = 0
        self._cache = None
        follow = follow and not (excludes is not None and excludes.no_follow)
        if stat_cache_dir is not None and not _lies_in(stat_cache_dir, root):
            how = repr((follow, excludes.patterns if excludes is not None else ()))
            self._cache = StatCache.of(stat_cache_dir, root_fd, how)
        lister = Lister(
            root,
            root_fd,
            follow=follow,
            excludes=excludes,
            on_listed=lambda count: on_progress(count, 0, 0, 0),
        )
        self.listing = lister.run(root_mode)
        self.columns = Columns(self.listing.file_count, sha256=sha256)
        self._paths = DirectoryPaths(self.listing)
        self._buffer = new_buffer()

    def summary(self) -> Summary:
        """Tell what the tree is; of one that is known as a whole, nothing else is looked up."""
        known = self._run(summary_is_enough=True)
        return known if isinstance(known, Summary) else self._sum_up(known)

    def run(self) -> bytes:
        """Hash what is not known and write the manifest's text; the columns are complete then."""
        text = self._run(summary_is_enough=False)
        assert isinstance(text, bytes)
        return text

    def _run(self, *, summary_is_enough: bool) -> bytes | Summary:
        listing = self.listing
        known = self._cache.find() if self._cache is not None else None
        is_same = False
        unknown: Sequence[int] = range(listing.file_count)
        if known is not None:
            try:
                self._look()
                is_same = fingerprint(listing, self.columns) == known.header.fingerprint
                if is_same and summary_is_enough:
                    return known.header.summary
                if known.load():
                    unknown = known.fill(listing, self.columns)
            finally:
                known.close()
            self._files_hashed = listing.file_count - len(unknown)
        if self._taker is not None and not self._taker.wants(len(unknown)):
            self._taker = None
        self._hash(unknown)
        text = render(listing, self.columns)
        if self._cache is not None and (unknown or not is_same):
            self._cache.remember(listing, self.columns, self._sum_up(text))
        return text

    def _sum_up(self, text: bytes) -> Summary:
        listing = self.listing
        return Summary(
            blake3(text).hexdigest(),
            listing.file_count,
            len(listing.modes),
            sum(self.columns.column(1)),
        )

    def _look(self) -> None:
        """Write down how every file looks now."""
        batches = _Batches(self.listing, range(self.listing.file_count))

        def work(task: int) -> tuple[int, int]:
            for group in batches.groups(task, self._paths):
                look_at_group(self._root_fd, group, self.columns)
            return 0, 0

        jobs = min(self._jobs, self.listing.file_count // _LOOKS_PER_PROCESS)
        if jobs > 1:
            with closing(do_in_processes(range(len(batches)), work, jobs)) as answers:
                for _ in answers:
                    self._report()
        else:
            for _ in do_inline(range(len(batches)), work):
                self._report()

    def _hash(self, files: Sequence[int]) -> None:
        batches = _Batches(self.listing, files)
        large = array("Q")

        def work(task: int) -> tuple[int, int]:
            large_count = hashed_bytes = 0
            for group in batches.groups(task, self._paths):
                found, group_bytes = self._hash_group(group)
                large_count += len(found)
                hashed_bytes += group_bytes
            return large_count, hashed_bytes

        try:
            # An error that is on its way holds the generators: only closing ends the processes.
            with closing(self._answers(batches, work)) as answers:
                for answer in answers:
                    if answer is not None:
                        task, large_count, hashed_bytes = answer
                        self._files_hashed += batches.size(task) - large_count
                        self._bytes_hashed += hashed_bytes
                        if large_count:
                            large.extend(self._large_of(batches.files(task)))
                    self._report()
            self._hash_large(large)
        except FileFailure as failure:
            raise self._failure(failure.number, failure.code) from failure
        self._report()

    def _hash_group(self, group: Group) -> tuple[list[int], int]:
        if self._taker is None:
            return hash_group(self._root_fd, group, self.columns, self._buffer)
        from snapd.disk.reading import read_and_give

        return read_and_give(self._root_fd, group, self.columns, self._taker.take)

    def _answers(self, batches: _Batches, work: Work) -> Generator[Answer | None, None, None]:
        """Hash inline for a moment, then with other processes if there is enough left to do."""
        started_at = time.monotonic()
        count = len(batches)
        for task in range(count):
            yield (task, *work(task))
            seconds = time.monotonic() - started_at
            left_seconds = seconds * (count - task - 1) / (task + 1)
            if (
                self._jobs > 1
                and self._taker is None
                and seconds >= _INLINE_SECONDS
                and left_seconds >= WORKERS_FROM_SECONDS
            ):
                rest = range(task + 1, count)
                with closing(do_in_processes(rest, work, self._jobs)) as answers:
                    yield from answers
                return

    def _large_of(self, files: Iterable[int]) -> Iterator[int]:
        digests, sizes = self.columns.digests, self.columns.column(2)
        for file in files:
            if sizes[file] >= LARGE_FILE_BYTES and not any(digests[32 * file : 32 * file + 32]):
                yield file

    def _hash_large(self, files: array[int]) -> None:
        # The largest first, so that no thread ends long after the others.
        sizes = self.columns.column(2)
        in_order = sorted(files, key=sizes.__getitem__, reverse=True)

        def count(size_bytes: int) -> None:
            self._bytes_hashed += size_bytes
            self._report()

        for start in range(0, len(in_order), _LARGE_AT_ONCE):
            part = in_order[start : start + _LARGE_AT_ONCE]
            large = [FileToHash(file, *self._place(file)) for file in part]
            hash_large(self._root_fd, large, self.columns, self._jobs, count, self._keep_large)

    def _keep_large(self, file: FileToHash) -> None:
        self._files_hashed += 1
        if self._taker is not None:
            self._taker.take_large(file, self.columns.row(file.number))

    def _place(self, file: int) -> tuple[bytes, bytes, bool]:
        directory, entry = self.listing.locate(file)
        is_link = self.listing.kinds[entry] != FILE
        return self._paths.of(directory), self.listing.name(entry), is_link

    def _report(self) -> None:
        self._on_progress(
            len(self.listing.kinds),
            self.listing.file_count,
            self._files_hashed,
            self._bytes_hashed,
        )

    def _failure(self, file: int, code: int) -> SnapsyncError:
        directory, name, _ = self._place(file)
        shown = self.listing.absolute(directory + name)
        if code == CHANGED:
            return SourceChanged(f"{shown!r} changed while it was hashed", path=shown)
        return source_error(OSError(code, os.strerror(code)), shown)


class _Batches:
    """Files cut into batches of some hundred, each of which is made into groups where it is done.

    A batch is some pieces; a piece is some files in a row within one directory.
    """

    def __init__(self, listing: Listing, files: Sequence[int]) -> None:
        self._listing = listing
        self._files = files

    def __len__(self) -> int:
        return -(-len(self._files) // _BATCH_FILES)

    def files(self, task: int) -> Sequence[int]:
        """Give the numbers of the files of a batch, in order."""
        return self._files[_BATCH_FILES * task : _BATCH_FILES * (task + 1)]

    def size(self, task: int) -> int:
        """Count the files of a batch."""
        return min(_BATCH_FILES, len(self._files) - _BATCH_FILES * task)

    def groups(self, task: int, paths: DirectoryPaths) -> Iterator[Group]:
        """Make the groups of a batch."""
        files = self.files(task)
        done = 0
        while done < len(files):
            directory, entry = self._listing.locate(files[done])
            names: list[bytes] = []
            kinds = bytearray()
            for start, stop in self._stretch(files, done, directory, entry):
                names += self._listing.names_between(start, stop)
                kinds += self._listing.kinds[start:stop]
            end = done + len(names)
            yield paths.of(directory), names, bytes(kinds), files[done:end]
            done = end

    def _stretch(
        self, files: Sequence[int], done: int, directory: int, entry: int
    ) -> Iterator[tuple[int, int]]:
        """Give the entries of files that follow each other in a directory and are all asked for."""
        for start, stop in self._listing.files_of(directory, entry):
            count = _in_a_row(files, done, stop - start)
            yield start, start + count
            following = files[done] + count
            done += count
            if count < stop - start or done == len(files) or files[done] != following:
                return


def _in_a_row(numbers: Sequence[int], first: int, count: int) -> int:
    """Count the numbers that follow each other without a gap, at most `count`."""
    count = min(count, len(numbers) - first)
    if numbers[first + count - 1] == numbers[first] + count - 1:
        return count
    return next(index for index in range(count) if numbers[first + index] != numbers[first] + index)
