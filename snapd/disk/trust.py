"""Whether a blob may be handed to a new tree: as it looks it is what was verified, or it is hashed.

A tree's files are the blobs themselves, so whoever may write to a tree can write into the cache.
That changes what `stat` tells, and is found here before anybody else is given the object.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from snapd.disk.blobs import Blobs
from snapd.disk.records import LOOKUP_BLOBS, Record, Records, Seen
from snapd.disk.repairs import Blob, Repairs
from snapd.model.errors import ObjectLost
from snapd.model.eviction import blob_key
from snapd.model.ids import Digest
from snapd.model.plan import ObjectRef

logger = logging.getLogger(__name__)

Surveyed = tuple[ObjectRef, int | None]
OnStep = Callable[[], None]
"""Called now and then during long work; may raise to stop it."""
OnRehash = Callable[[int, bool], None]
"""Told of each blob that had to be hashed again: its size, and whether it was right."""

_T = TypeVar("_T")


def _carry_on() -> None:
    """Never stop."""


def tell_nobody(_size_bytes: int, _right: bool) -> None:
    """Take no note."""


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

    def check(self, survey: Iterable[Surveyed], on_step: OnStep = _carry_on) -> Iterator[Surveyed]:
        """Pass on what `Blobs.survey` tells, without the blobs that prove to be damaged.

        Those are in the quarantine then, and their trees wait for repair.
        """
        for chunk in _chunks(survey):
            keys = [blob_key(ref.digest, mode) for ref, mode in chunk if mode is not None]
            known = self._records.find(keys) if keys else {}
            for ref, mode in chunk:
                on_step()
                held = mode
                while held is not None and not self._is_good(ref.digest, held, known, on_step):
                    held = self._blobs.any_mode(ref.digest)
                yield ref, held

    def look(self, refs: Iterable[ObjectRef], on_step: OnStep = _carry_on) -> Seen:
        """Compare all blobs of a snapshot with their records just before it links to them.

        Raises `ObjectLost` for the first that is not here or damaged.
        """
        seen = Seen()
        for chunk in _chunks(refs):
            known = self._records.find([blob_key(ref.digest, ref.mode) for ref in chunk])
            for ref in chunk:
                record = known.get(blob_key(ref.digest, ref.mode))
                if record is None or self._blobs.facts(ref.digest, ref.mode) != record.facts:
                    record = self.prove(ref.digest, ref.mode, on_step)
                if record is None:
                    raise ObjectLost(
                        f"the cache has lost object {ref.digest} ({ref.path})",
                        hint="Pull the snapshot again: only what is missing is fetched.",
                        object=ref.digest,
                        path=ref.path,
                    )
                seen.add(record)
        return seen

    def settle(self, refs: Iterable[ObjectRef], seen: Seen) -> list[Blob]:
        """Renew the records of blobs that just got links; lists those that are other files now."""
        changed: list[Blob] = []
        numbered = enumerate(refs)
        for chunk in _chunks(numbered):
            records: dict[int, Record] = {}
            settled_ns = self._records.settled_ns()
            for number, (digest, mode, _, _) in chunk:
                facts = self._blobs.facts(digest, mode)
                record = None if facts is None else seen.again(number, facts, settled_ns)
                if record is None:
                    changed.append((digest, mode))
                else:
                    records[blob_key(digest, mode)] = record
            self._records.write(records)
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
        self._records.remember(
            blob_key(digest, mode), Record(facts.if_settled(settled_ns), verified_at)
        )
        return Record(facts, verified_at)

    def condemn(self, digest: Digest, mode: int, inode: int) -> None:
        """Put a damaged blob into the quarantine; first note that its trees need repair."""
        logger.warning("object %s (mode %o) is damaged; it goes to the quarantine", digest, mode)
        self._repairs.add(digest, mode)
        self._blobs.quarantine(digest, mode, inode=inode)

    def _is_good(
        self, digest: Digest, mode: int, known: dict[int, Record], on_step: OnStep
    ) -> bool:
        record = known.get(blob_key(digest, mode))
        if record is not None and self._blobs.facts(digest, mode) == record.facts:
            return True
        return self.prove(digest, mode, on_step) is not None


def _chunks(items: Iterable[_T]) -> Iterator[list[_T]]:
    rest = iter(items)
    while chunk := list(islice(rest, LOOKUP_BLOBS)):
        yield chunk
