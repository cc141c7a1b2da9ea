"""The objects of a snapshot as columns, which plans and records go through."""

from __future__ import annotations

import sys
from array import array
from binascii import unhexlify
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import compress, pairwise
from operator import not_

NUMBER_BITS = 52
MODE_BITS = 12

ABSENT = -1
"""Stands for the mode of an object that is not in the cache."""

_DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Objects:
    """The distinct pairs of checksum and mode of a snapshot, in the order of its text.

    Each takes 31 bytes. An object is known by its number, which is the first 52 bits of its digest:
    two objects may share one, and whoever must not mix them up looks at the digest.
    """

    firsts: array[int]
    """The index of the first `F` line of each pair."""
    numbers: array[int]
    modes: array[int]
    sizes: array[int]
    """What the text says, which is a hint."""
    repeats: bytearray
    """1 where a pair before it has the same digest under another mode."""
    ordered: array[int]
    """The numbers of all objects in ascending order, some perhaps more than once."""
    count: int
    """How many digests there are, whatever their modes."""
    size_bytes: int
    """The sum of their sizes, each counted once."""

    def __len__(self) -> int:
        return len(self.firsts)

    def keys(self) -> Iterator[int]:
        """Number each pair as `eviction.blob_key` does."""
        for number, mode in zip(self.numbers, self.modes, strict=True):
            yield number << MODE_BITS | mode

    def only(self, chosen: Mapping[int, object]) -> Objects:
        """Leave out all but some pairs, given by their positions in ascending order, with digests.

        What stands for a digest need only be equal where digests are.
        """
        seen: set[object] = set()
        repeats = bytearray()
        for digest in chosen.values():
            repeats.append(digest in seen)
            seen.add(digest)
        return self._picked(array("I", chosen), repeats)

    def _picked(self, positions: array[int], repeats: bytearray) -> Objects:
        numbers = array("Q", map(self.numbers.__getitem__, positions))
        sizes = array("Q", map(self.sizes.__getitem__, positions))
        return Objects(
            firsts=array("I", map(self.firsts.__getitem__, positions)),
            numbers=numbers,
            modes=array("H", map(self.modes.__getitem__, positions)),
            sizes=sizes,
            repeats=repeats,
            ordered=array("Q", sorted(set(numbers))),
            count=len(positions) - sum(repeats),
            size_bytes=sum(compress(sizes, map(not_, repeats))),
        )

    def distinct(self, head_at: Callable[[int], tuple[bytes, bytes]]) -> Objects:
        """Drop pairs that were there before; only those whose number occurs again are looked at."""
        repeated = {one for one, other in pairwise(self.ordered) if one == other}
        if not repeated:
            return self
        pairs: set[bytes] = set()
        digests: set[bytes] = set()
        kept = array("I")
        repeats = bytearray()
        for position, number in enumerate(self.numbers):
            known = False
            if number in repeated:
                checksum, mode = head_at(self.firsts[position])
                digest = unhexlify(checksum)
                before = len(pairs)
                pairs.add(digest + mode)
                if len(pairs) == before:
                    continue
                known = digest in digests
                digests.add(digest)
            kept.append(position)
            repeats.append(known)
        return self._picked(kept, repeats)


def collect(blocks: Iterable[bytes], head_at: Callable[[int], tuple[bytes, bytes]]) -> Objects:
    """Find the objects in the text of a valid manifest, given in blocks of whole lines.

    `head_at` gives checksum and mode of a line by its index, as the text spells them. It is asked
    only about lines that may repeat another.
    """
    firsts, numbers = array("I"), array("Q")
    modes, sizes = array("H"), array("Q")
    mode_of = _Octal()
    first = 0
    for block in blocks:
        lines = block[:-1].split(b"\n")
        rows = [line.split(b" ", 4) for line in lines]
        firsts.extend(index for index, row in enumerate(rows, first) if row[0] == b"F")
        first += len(rows)
        files = [row for row in rows if row[0] == b"F"]
        numbers.extend(_numbers(b"".join([row[2] for row in files])))
        modes.extend([mode_of[row[1]] for row in files])
        sizes.extend([int(row[3]) for row in files])
    every = Objects(
        firsts=firsts,
        numbers=numbers,
        modes=modes,
        sizes=sizes,
        repeats=bytearray(len(firsts)),
        ordered=array("Q", sorted(numbers)),
        count=len(firsts),
        size_bytes=sum(sizes),
    )
    return every.distinct(head_at)


class _Octal(dict[bytes, int]):
    """Reads modes; there are few, so each is read once."""

    def __missing__(self, text: bytes) -> int:
        mode = self[text] = int(text, 8)
        return mode


def _numbers(digests_hex: bytes) -> array[int]:
    """Take the number of each digest."""
    words = array("Q", unhexlify(digests_hex))[:: _DIGEST_BYTES // 8]
    if sys.byteorder == "little":
        words.byteswap()
    return array("Q", [word >> (64 - NUMBER_BITS) for word in words])
