"""Walk a directory: list it, hash every file, and make the manifest (format sections 3, 4, 6).

The steps follow each other over compact columns, so that a million files cost some hundred bytes
each and no object.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from snapd.disk.hashing import DIGEST_BYTES
from snapd.disk.tree_hash import TreeHash, absolute_path, open_root
from snapd.model.manifest import Manifest

if TYPE_CHECKING:
    from snapd.disk.hashing import Columns
    from snapd.disk.listing import Listing
    from snapd.disk.stat_cache import Summary
    from snapd.disk.tree_hash import ContentTaker
    from snapd.model.exclude import Excludes


@dataclass(frozen=True, slots=True)
class WalkOptions:
    """How to walk. `jobs` 0 means the processors at hand, at most 16.

    With `stat_cache_dir` a file that looks as it did when it was last hashed is not read again, and
    what this walk hashes is remembered there. With `sha256` every file is read, once for both.
    """

    follow: bool = True
    excludes: Excludes | None = None
    jobs: int = 0
    stat_cache_dir: str | None = None
    sha256: bool = False


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
    def of(cls, listing: Listing, columns: Columns) -> FileFacts:
        """Take what was found, which is in another order."""
        facts = cls(
            devices=array("Q"),
            inodes=array("Q"),
            sizes=array("Q"),
            mtimes_ns=array("q"),
            ctimes_ns=array("q"),
            modes=array("H"),
            listed_sizes=array("Q"),
            links=bytearray(),
        )
        fields = (
            (facts.modes, 0),
            (facts.listed_sizes, 1),
            (facts.sizes, 2),
            (facts.devices, 3),
            (facts.inodes, 4),
            (facts.mtimes_ns, 5),
            (facts.ctimes_ns, 6),
        )
        for _, first, end, file in listing.runs():
            if end:
                for column, field in fields:
                    column.extend(columns.column(field, file, file + end - first))
                facts.links.extend(listing.kinds[first:end])
        return facts

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
    """A directory's manifest, and by what to notice that a file changed since.

    `sha256` are the 32 bytes of each file in the manifest's order of files, if they were wanted.
    """

    root: str
    manifest: Manifest
    facts: FileFacts
    sha256: bytes = b""


def absolute_root(root: Path) -> str:
    """Make a root absolute as the format wants it."""
    return absolute_path(str(root))


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
    rewritten with the same size while it is read, within one tick of the file system's clock, goes
    unnoticed.
    """
    path = absolute_root(root)
    with _hashing(path, options or WalkOptions(), on_progress, taker) as tree:
        text = tree.run()
        return WalkedTree(
            path,
            Manifest.parse(text),
            FileFacts.of(tree.listing, tree.columns),
            b"".join(_sha256_in_order(tree)),
        )


def identify(
    root: Path,
    options: WalkOptions | None = None,
    on_progress: Callable[[WalkProgress], None] = lambda progress: None,
) -> Summary:
    """Tell the ID of a directory and how big it is, as `walk` does, without making more of it."""
    with _hashing(absolute_root(root), options or WalkOptions(), on_progress) as tree:
        return tree.summary()


def _sha256_in_order(tree: TreeHash) -> Iterator[memoryview]:
    digests = tree.columns.sha256
    for _, first, end, file in tree.listing.runs() if digests else ():
        if end:
            yield digests[DIGEST_BYTES * file : DIGEST_BYTES * (file + end - first)]


@contextmanager
def _hashing(
    path: str,
    options: WalkOptions,
    on_progress: Callable[[WalkProgress], None],
    taker: ContentTaker | None = None,
) -> Iterator[TreeHash]:
    root_fd, root_mode = open_root(path)
    try:
        yield TreeHash(
            path,
            root_fd,
            root_mode,
            follow=options.follow,
            excludes=options.excludes,
            jobs=options.jobs,
            stat_cache_dir=None if options.sha256 else options.stat_cache_dir,
            on_progress=lambda *counts: on_progress(WalkProgress(*counts)),
            taker=taker,
            sha256=options.sha256,
        )
    finally:
        os.close(root_fd)
