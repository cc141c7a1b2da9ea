"""Whether a blob may be handed to a new tree: as it looks it is what was verified, or it is hashed.

A tree's files are the blobs themselves, so whoever may write to a tree can write into the cache.
That changes what `stat` tells, and is found here before anybody else is given the object.
"""

from __future__ import annotations

import logging
import re
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple, TypeVar

from snapd.disk.blobs import Blobs, blob_of
from snapd.disk.index import BlobRow
from snapd.disk.records import LOOKUP_BLOBS, Record, Records, Seen
from snapd.disk.repairs import Blob, Repairs
from snapd.model.errors import ObjectLost
from snapd.model.eviction import PREFIX_DIGITS, blob_key
from snapd.model.ids import Digest
from snapd.model.manifest import HEAD_MAX_BYTES, Entry, Manifest
from snapd.model.objects import ABSENT, MODE_BITS, Objects

logger = logging.getLogger(__name__)

OnStep = Callable[[], None]
"""Called now and then during long work; may raise to stop it."""
OnRehash = Callable[[int, bool], None]
"""Told of each blob that had to be hashed again: its size, and whether it was right."""

_T = TypeVar("_T")

_FRESH_SECONDS = 60

_FILE_LINE = re.compile(rb"^F ", re.MULTILINE)


def _carry_on() -> None:
    """Never stop."""


def tell_nobody(_size_bytes: int, _right: bool) -> None:
    """Take no note."""


class _Linked(NamedTuple):
    """A tree whose blobs got links, and how they were before that."""

    manifest: Manifest
    seen: Seen


class Trust:
    """Compares blobs with their records. Safe to use from many threads; every call blocks."""

    def __init__(
        self,
        blobs: Blobs,
        records: Records,
        repairs: Repairs,
        *,
        now: Callable[[], float],
        on_rehash: OnRehash = tell_nobody,
    ) -> None:
        self._blobs = blobs
        self._records = records
        self._repairs = repairs
        self._now = now
        self._on_rehash = on_rehash
        self._linked: deque[_Linked] = deque()
        self._settling = threading.Lock()

    def check(
        self, manifest: Manifest, objects: Objects, on_step: OnStep = _carry_on
    ) -> array[int]:
        """Tell what `Blobs.survey` tells, without the blobs that prove to be damaged.

        Those are in the quarantine then, and their trees wait for repair.
        """
        self.settle_all()
        held = array("h", [ABSENT]) * len(objects)
        for positions in _chunks(self._blobs.likely(objects)):
            names = list(self._blobs.names(manifest, objects, positions))
            known = self._records.find(list(map(_key_of, names)))
            for position, name in zip(positions, names, strict=True):
                on_step()
                record = known.get(_key_of(name))
                found = self._blobs.stat(name)
                if found is None or record is None or found != record[:4]:
                    held[position] = self._best_mode(name, found is not None, known, on_step)
                else:
                    held[position] = objects.modes[position]
        return held

    def _best_mode(
        self, name: bytes, is_here: bool, known: dict[int, Record], on_step: OnStep
    ) -> int:
        """Find a mode under which an object is good; what is damaged goes on the way."""
        digest, mode = blob_of(name)
        held: int | None = mode if is_here else self._blobs.any_mode(digest)
        while held is not None and not self._is_good(digest, held, known, on_step):
            held = self._blobs.any_mode(digest)
        return ABSENT if held is None else held

    def look(self, manifest: Manifest, on_step: OnStep = _carry_on) -> Seen:
        """Compare all blobs of a snapshot with their records just before it links to them.

        What arrived a moment ago is only looked at afterwards, in `settle_all`. Raises `ObjectLost`
        for the first that is not here or damaged.
        """
        seen, wanted = Seen(), manifest.distinct_objects()
        fresh_since = int(self._now()) - _FRESH_SECONDS
        for keys in _chunks(manifest.objects().keys()):
            noted = [each for each in self._records.noted(keys) if each is not None]
            if len(noted) == len(keys) and min(each[4] for each in noted) >= fresh_since:
                seen.extend(noted)
                continue
            chunk = wanted[len(seen) : len(seen) + len(keys)]
            names, entries = manifest.blob_names(chunk), map(manifest.__getitem__, chunk)
            seen.extend(self._look_closely(zip(names, keys, entries, strict=True), on_step))
        return seen

    def _look_closely(
        self, blobs: Iterable[tuple[bytes, int, Entry]], on_step: OnStep
    ) -> list[Record]:
        chunk = list(blobs)
        known = self._records.find([key for _, key, _ in chunk])
        records = []
        for name, key, entry in chunk:
            record = known.get(key)
            if record is None or self._blobs.stat(name) != record[:4]:
                record = self._prove_entry(entry, on_step)
            records.append(record)
        return records

    def linked(self, manifest: Manifest, seen: Seen) -> None:
        """Take note that the tree of a snapshot was made, for the next `settle_all`."""
        self._linked.append(_Linked(manifest, seen))

    def settle_all(self) -> None:
        """Renew the records of all blobs that got links lately; waits if that is being done.

        Not part of making a tree, since nobody has to wait for it: what is used before that, or
        lost in a crash, is hashed again.
        """
        with self._settling:
            while self._linked:
                for blob in self.settle(*self._linked.popleft()):
                    self.prove(*blob)

    @contextmanager
    def losing_links(self, manifest_text: bytes) -> Iterator[None]:
        """Renew the records of blobs that lose the links of one tree in the block and have others.

        Only of those that are as they were verified before it. A crash, and a block that fails,
        costs a hash of each at its next use.
        """
        starts: array[int] = array("Q")
        seen = Seen()
        for chunk in _chunks(match.start() for match in _FILE_LINE.finditer(manifest_text)):
            names = {start: _name_at(manifest_text, start) for start in chunk}
            shared = {start: name for start, name in names.items() if self._blobs.links(name) > 1}
            known = self._records.find([_key_of(name) for name in shared.values()])
            for start, name in shared.items():
                record = known.get(_key_of(name))
                if record is not None and self._blobs.stat(name) == record[:4]:
                    starts.append(start)
                    seen.extend([record])
        yield
        self._renew((_name_at(manifest_text, start) for start in starts), seen)

    def _prove_entry(self, entry: Entry, on_step: OnStep) -> Record:
        record = self.prove(entry.checksum, entry.mode, on_step)
        if record is None:
            raise ObjectLost(
                f"the cache has lost object {entry.checksum} ({entry.path})",
                hint="Pull the snapshot again: only what is missing is fetched.",
                object=entry.checksum,
                path=entry.path,
            )
        return record

    def settle(self, manifest: Manifest, seen: Seen) -> list[Blob]:
        """Renew the records of blobs that just got links; lists those that are other files now."""
        return self._renew(manifest.blob_names(manifest.distinct_objects()), seen)

    def _renew(self, names: Iterable[bytes], seen: Seen) -> list[Blob]:
        changed: list[Blob] = []
        before = zip(
            names,
            seen.sizes,
            seen.inodes,
            seen.mtimes_ns,
            seen.verified_at,
            strict=True,
        )
        stat = self._blobs.stat
        for chunk in _chunks(before):
            rows: list[BlobRow] = []
            settled_ns = self._records.settled_ns()
            for name, size_bytes, inode, mtime_ns, verified_at in chunk:
                found = stat(name)
                if found is None or found[:3] != (size_bytes, inode, mtime_ns):
                    changed.append(blob_of(name))
                    continue
                ctime_ns = found[3] if found[3] < settled_ns else 0
                rows.append((_key_of(name), size_bytes, inode, mtime_ns, ctime_ns, verified_at))
            self._records.write(rows)
        return changed

    def prove(self, digest: Digest, mode: int, on_step: OnStep = _carry_on) -> Record | None:
        """Hash a blob and record it; None if it is not here, or damaged and now put away."""
        settled_ns = self._records.settled_ns()
        proof = self._blobs.prove(digest, mode, on_step)
        if proof is None:
            return None
        facts, right = proof
        self._on_rehash(facts.size_bytes, right)
        if not right:
            self.condemn(digest, mode, facts.inode)
            return None
        verified_at = int(self._now())
        settled = facts.if_settled(settled_ns)
        self._records.remember(blob_key(digest, mode), (*settled, verified_at))
        return (*facts, verified_at)

    def condemn(self, digest: Digest, mode: int, inode: int) -> None:
        """Put a damaged blob into the quarantine; first note that its trees need repair."""
        logger.warning("object %s (mode %o) is damaged; it goes to the quarantine", digest, mode)
        self._repairs.add(digest, mode)
        self._blobs.quarantine(digest, mode, inode=inode)

    def _is_good(
        self, digest: Digest, mode: int, known: dict[int, Record], on_step: OnStep
    ) -> bool:
        key = blob_key(digest, mode)
        record = known.get(key) or self._records.find([key]).get(key)
        if record is not None and self._blobs.facts(digest, mode) == record[:4]:
            return True
        return self.prove(digest, mode, on_step) is not None


def _name_at(manifest_text: bytes, start: int) -> bytes:
    """Give the name of the blob of the line that starts there."""
    _, mode, checksum, _ = manifest_text[start : start + HEAD_MAX_BYTES].split(b" ", 3)
    return b"%b.%b" % (checksum, mode)


def _key_of(name: bytes) -> int:
    """Give the `eviction.blob_key` of a blob by its file's name."""
    return int(name[:PREFIX_DIGITS], 16) << MODE_BITS | int(name[65:], 8)


def _chunks(items: Iterable[_T]) -> Iterator[list[_T]]:
    rest = iter(items)
    while chunk := list(islice(rest, LOOKUP_BLOBS)):
        yield chunk
