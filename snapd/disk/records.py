"""What was verified when, and how `stat` saw it then: a blob that looks different is hashed again.

Records are a convenience: one that is missing, lost or older than the blob costs a hash, and never
makes a blob count as verified that is not. So a record that can't be written is no failure.
"""

from __future__ import annotations

import logging
import os
import threading
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from snapd.disk.index import BlobRow, Index
from snapd.model.errors import SnapsyncError
from snapd.model.eviction import blob_key
from snapd.model.ids import Digest
from snapd.model.plan import ObjectRef

logger = logging.getLogger(__name__)

LOOKUP_BLOBS = 4096
"""Records that are looked up in one statement."""

_NOTES_MAX = 32768
_TICK_NS = 10_000_000
"""How coarse the clock that stamps files may be: whatever changes within it may look the same."""


class Facts(NamedTuple):
    """What tells whether a file is still the one that was verified."""

    size_bytes: int
    inode: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> Facts:
        """Take what `stat` gave."""
        return cls(found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)

    def if_settled(self, settled_ns: int) -> Facts:
        """Give facts that fit nothing if the file changed after that time stamp.

        Another change so soon after the last may bear the same stamp, and would not be seen.
        """
        return self if self.ctime_ns < settled_ns else self._replace(ctime_ns=0)


Record = tuple[int, int, int, int, int]
"""The facts of a blob when it was verified, and when that was: plain, as there are many."""


class Records:
    """The records of all blobs. Safe to use from many threads and many processes.

    Objects that just arrived are noted in memory, up to a bound, and reach the index in batches.
    """

    def __init__(
        self, index: Index, *, clock_ns: Callable[[], int], now: Callable[[], float]
    ) -> None:
        self._index = index
        self._clock_ns = clock_ns
        self._now = now
        self._notes: dict[int, Record] = {}
        self._swapping = threading.Lock()

    def note(self, digest: Digest, mode: int, facts: tuple[int, int, int, int]) -> None:
        """Take note of a blob whose bytes were hashed just now, on their way in."""
        self._notes[blob_key(digest, mode)] = (*facts, int(self._now()))
        if len(self._notes) >= _NOTES_MAX:
            self.flush()

    def note_arrived(self, arrived: Iterable[tuple[ObjectRef, tuple[int, int, int, int]]]) -> bool:
        """Take note of several such blobs, without ever waiting; True: `flush` is due."""
        now = int(self._now())
        self._notes.update(
            {blob_key(ref.digest, ref.mode): (*facts, now) for ref, facts in arrived}
        )
        return len(self._notes) >= _NOTES_MAX

    def remember(self, key: int, record: Record) -> None:
        """Take note of a record; it is written down with many others, or lost."""
        self._notes[key] = record
        if len(self._notes) >= _NOTES_MAX:
            self.flush()

    def flush(self) -> None:
        """Write all notes down."""
        with self._swapping:
            notes, self._notes = self._notes, {}
        # A copy, made in one go: a thread that was just about to note something may still do it.
        self._write([(key, *record) for key, record in list(notes.items())])

    def noted(self, keys: Iterable[int]) -> list[Record | None]:
        """Give what is noted in memory, in the order of the keys."""
        return list(map(self._notes.get, keys))

    def find(self, keys: Sequence[int]) -> dict[int, Record]:
        """Look up what is known of at most `LOOKUP_BLOBS` blobs."""
        notes = self._notes
        found = {key: notes[key] for key in keys if key in notes}
        if len(found) == len(keys):
            return found
        try:
            rows = self._index.blobs(key for key in keys if key not in found)
        except SnapsyncError as exc:
            logger.warning("can't read what was verified: %s", exc.message)
            return found
        for row in rows:
            found[row[0]] = row[1:]
        return found

    def settled_ns(self) -> int:
        """Tell before which time stamp nothing can have changed unseen, as of now."""
        return self._clock_ns() - _TICK_NS

    def write(self, rows: Sequence[BlobRow]) -> None:
        """Write records down; they take the place of notes."""
        notes = self._notes
        for row in rows:
            notes.pop(row[0], None)
        self._write(rows)

    def _write(self, rows: Sequence[BlobRow]) -> None:
        try:
            self._index.record_blobs(rows)
        except SnapsyncError as exc:
            logger.warning("can't write down what was verified: %s", exc.message)

    def forget_stale(self, shard: int, verified_before: float) -> None:
        """Forget the blobs of one of the 256 directories that nobody has found there since."""
        self._index.forget_blobs_before(verified_before, shard << 56, ((shard + 1) << 56) - 1)


class Seen:
    """How the blobs of a snapshot were just before it links to them; 32 bytes each."""

    def __init__(self) -> None:
        self.sizes, self.inodes = array("Q"), array("Q")
        self.mtimes_ns, self.verified_at = array("q"), array("q")

    def __len__(self) -> int:
        return len(self.inodes)

    def extend(self, records: Iterable[Record]) -> None:
        """Add the next ones."""
        sizes, inodes, mtimes_ns, _, verified_at = zip(*records, strict=True)
        self.sizes.extend(sizes)
        self.inodes.extend(inodes)
        self.mtimes_ns.extend(mtimes_ns)
        self.verified_at.extend(verified_at)
