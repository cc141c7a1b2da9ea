"""Which snapshots go when space is needed: arithmetic over links, with nothing done yet.

A blob's bytes come free when nothing links to it any more but its own name. Each file of a tree is
one link, and so is each file of a hard-linked checkout somewhere else: whoever counts links knows
what is shared with a kept snapshot, and what evicting would not free at all.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from snapd.model.ids import Digest, SnapshotId
from snapd.model.objects import MODE_BITS, NUMBER_BITS

PREFIX_DIGITS = NUMBER_BITS // 4
_FILE_LINE = re.compile(rb"^F ([0-7]+) ([0-9a-f]{13})", re.MULTILINE)

Reason = Literal[
    "least_recently_used", "requested", "leased", "used_later", "not_needed", "frees_nothing"
]


def blob_key(digest: Digest | str, mode: int) -> int:
    """Number a blob: 52 bits of its digest, then its mode.

    Two blobs with one key make a decision inexact, never wrong: what is removed is checked by the
    link count of the very file.
    """
    return int(digest[:PREFIX_DIGITS], 16) << MODE_BITS | mode


def object_of(key: int) -> int:
    """Give the part of a blob's key that stands for the object, whatever its mode."""
    return key >> MODE_BITS


def links_in(manifest_text: bytes) -> array[int]:
    """Give the key of each file of a snapshot, hence of each link that its tree makes."""
    return array(
        "Q",
        [
            int(prefix, 16) << MODE_BITS | int(mode, 8)
            for mode, prefix in _FILE_LINE.findall(manifest_text)
        ],
    )


def objects_in(manifest_text: bytes) -> array[int]:
    """Give what `object_of` gives for each distinct object of a snapshot, in order."""
    return array("Q", sorted({int(each[1], 16) for each in _FILE_LINE.findall(manifest_text)}))


def holds(numbers: Sequence[int], number: int) -> bool:
    """Tell whether ordered numbers have one among them."""
    index = bisect_left(numbers, number)
    return index < len(numbers) and numbers[index] == number


@dataclass(frozen=True, slots=True)
class Census:
    """All blobs of a cache, in the order of their keys; about 28 bytes each."""

    keys: array[int] = field(default_factory=lambda: array("Q"))
    allocated_bytes: array[int] = field(default_factory=lambda: array("Q"))
    links: array[int] = field(default_factory=lambda: array("I"))
    """Links beside the blob's own name."""
    written_at: array[float] = field(default_factory=lambda: array("d"))

    def add(self, key: int, allocated_bytes: int, links: int, written_at: float) -> None:
        """Add the blob that comes next in order."""
        self.keys.append(key)
        self.allocated_bytes.append(allocated_bytes)
        self.links.append(links)
        self.written_at.append(written_at)

    @property
    def total_bytes(self) -> int:
        """What all blobs take."""
        return sum(self.allocated_bytes)

    def orphans(self) -> Iterable[int]:
        """Walk the rows of the blobs that nothing links to."""
        return (row for row, links in enumerate(self.links) if links == 0)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A snapshot that may have to go. `leases` says in words who holds it; nobody: it may go."""

    snapshot_id: SnapshotId
    used_at: float
    size_bytes: int
    leases: tuple[str, ...] = ()
    own_bytes: int = 0
    """What its directories and its manifest take, which it shares with nobody."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of one snapshot, and why."""

    snapshot_id: str
    evict: bool
    reason: Reason
    used_at: float
    size_bytes: int
    freed_bytes: int = 0
    leases: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Render for the wire."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Verdict:
        """Read what `to_json` wrote; keys of a newer daemon are ignored."""
        known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        return cls(**known | {"leases": tuple(document.get("leases", ()))})

    def explain(self) -> str:
        """Say why, to a person."""
        if self.reason == "leased":
            return f"held: {'; '.join(self.leases)}"
        return _EXPLANATIONS[self.reason]


_EXPLANATIONS: dict[Reason, str] = {
    "least_recently_used": "nobody holds it, and it was used longest ago",
    "requested": "somebody asked for it",
    "used_later": "enough comes free without it, and it was used later",
    "not_needed": "enough comes free without it",
    "frees_nothing": "it would free nothing: kept snapshots or checkouts share its files",
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What to evict, the least recently used first, and what stays.

    `orphans` are keys of blobs that no snapshot holds. `freed_bytes` is what all of it frees.
    """

    needed_bytes: int
    freed_bytes: int
    evict: tuple[Verdict, ...] = ()
    kept: tuple[Verdict, ...] = ()
    orphans: array[int] = field(default_factory=lambda: array("Q"))
    orphan_bytes: int = 0

    @property
    def satisfied(self) -> bool:
        """Tell whether enough comes free."""
        return self.freed_bytes >= self.needed_bytes


def decide(
    candidates: Iterable[Candidate],
    *,
    needed_bytes: int,
    census: Census,
    links_of: Callable[[SnapshotId], Sequence[int]],
    is_wanted: Callable[[int], bool] = lambda _: False,
    orphans_before: float = 0.0,
) -> Decision:
    """Choose exactly enough of the least recently used snapshots that nobody holds.

    Orphans written before that moment always go; younger ones only if nothing else suffices. Blobs
    of objects that are `is_wanted` stay and count as not freed. `links_of` is asked only about
    snapshots that come into question. If the needed bytes can't be had, everything that would help
    is chosen, and the decision is not satisfied. Only blobs make a snapshot worth evicting; what it
    has for itself comes free beside them.
    """
    tally = _Tally(census, links_of, is_wanted)
    old, young = _split_orphans(census, is_wanted, orphans_before)
    tally.add(old)
    kept: list[Verdict] = []
    chosen: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda each: (each.used_at, each.snapshot_id)):
        if candidate.leases:
            kept.append(_verdict(candidate, "leased"))
        elif tally.freed_bytes >= needed_bytes:
            kept.append(_verdict(candidate, "used_later"))
        else:
            tally.take(candidate)
            chosen.append(candidate)
    if tally.freed_bytes < needed_bytes:
        tally.add(young)
        old.extend(young)
    evict, spared = _without_needless(tally, chosen, needed_bytes)
    orphans = array("Q", sorted(census.keys[row] for row in old))
    orphan_bytes = sum(census.allocated_bytes[row] for row in old)
    return Decision(
        needed_bytes=needed_bytes,
        freed_bytes=orphan_bytes + sum(each.freed_bytes for each in evict),
        evict=tuple(evict),
        kept=tuple(sorted([*kept, *spared], key=lambda each: (each.used_at, each.snapshot_id))),
        orphans=orphans,
        orphan_bytes=orphan_bytes,
    )


def _split_orphans(
    census: Census, is_wanted: Callable[[int], bool], before: float
) -> tuple[array[int], array[int]]:
    """Give the rows of the orphans that nobody wants: the old ones and the young ones."""
    old, young = array("I"), array("I")
    for row in census.orphans():
        if not is_wanted(object_of(census.keys[row])):
            (old if census.written_at[row] < before else young).append(row)
    return old, young


def _without_needless(
    tally: _Tally, chosen: list[Candidate], needed_bytes: int
) -> tuple[list[Verdict], list[Verdict]]:
    """Spare whatever was chosen and turns out not to help, the last used first."""
    spared: list[Verdict] = []
    evicted: list[Candidate] = []
    for candidate in reversed(chosen):
        shared_only = tally.give_back(candidate)
        reason: Reason = "frees_nothing" if shared_only else "not_needed"
        if shared_only or tally.freed_bytes >= needed_bytes:
            spared.append(_verdict(candidate, reason))
        else:
            tally.take(candidate)
            evicted.append(candidate)
    evicted.reverse()
    for candidate in reversed(evicted):
        tally.give_back(candidate)
    verdicts = []
    for candidate in evicted:
        before = tally.freed_bytes
        tally.take(candidate)
        freed_bytes = tally.freed_bytes - before + candidate.own_bytes
        verdicts.append(_verdict(candidate, "least_recently_used", freed_bytes=freed_bytes))
    return verdicts, spared


def _verdict(candidate: Candidate, reason: Reason, *, freed_bytes: int = 0) -> Verdict:
    return Verdict(
        snapshot_id=candidate.snapshot_id,
        evict=reason == "least_recently_used",
        reason=reason,
        used_at=candidate.used_at,
        size_bytes=candidate.size_bytes,
        freed_bytes=freed_bytes,
        leases=candidate.leases,
    )


class _Tally:
    """What would be free if certain snapshots were gone."""

    def __init__(
        self,
        census: Census,
        links_of: Callable[[SnapshotId], Sequence[int]],
        is_wanted: Callable[[int], bool],
    ) -> None:
        self.freed_bytes = 0
        self._census = census
        self._links_of = links_of
        self._is_wanted = is_wanted
        self._left = array("q", census.links)
        self._rows: dict[SnapshotId, array[int]] = {}

    def add(self, rows: Iterable[int]) -> None:
        """Count orphans as gone."""
        self.freed_bytes += sum(self._census.allocated_bytes[row] for row in rows)

    def take(self, candidate: Candidate) -> None:
        """Count a snapshot as gone."""
        left, allocated_bytes = self._left, self._census.allocated_bytes
        freed_bytes = 0
        for row in self._rows_of(candidate.snapshot_id):
            left[row] -= 1
            if left[row] == 0:
                freed_bytes += allocated_bytes[row]
        self.freed_bytes += freed_bytes

    def give_back(self, candidate: Candidate) -> bool:
        """Undo `take`; tells whether no blob had come free by it."""
        left, allocated_bytes = self._left, self._census.allocated_bytes
        freed_bytes = 0
        for row in self._rows_of(candidate.snapshot_id):
            if left[row] == 0:
                freed_bytes += allocated_bytes[row]
            left[row] += 1
        self.freed_bytes -= freed_bytes
        return freed_bytes == 0

    def _rows_of(self, snapshot_id: SnapshotId) -> array[int]:
        """Find the rows of a snapshot's links, without those of wanted objects."""
        rows = self._rows.get(snapshot_id)
        if rows is None:
            keys, is_wanted = self._census.keys, self._is_wanted
            rows = array("I")
            for key in self._links_of(snapshot_id):
                row = bisect_left(keys, key)
                if row < len(keys) and keys[row] == key and not is_wanted(object_of(key)):
                    rows.append(row)
            self._rows[snapshot_id] = rows
        return rows
