"""What a pull has to do, decided before the first object is fetched."""

from __future__ import annotations

from array import array
from binascii import unhexlify
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from snapd.model.batches import in_batches
from snapd.model.ids import Digest
from snapd.model.manifest import Manifest

BLOCK_BYTES = 4096
"""What file systems allocate at least for a file that is not empty, and for a directory."""


class ObjectRef(NamedTuple):
    """One object as a snapshot wants it; `path` is one of the paths that hold it, for messages."""

    digest: Digest
    mode: int
    size_bytes: int
    path: str


def refs(manifest: Manifest, indexes: Iterable[int]) -> Iterator[ObjectRef]:
    """Name the objects of the entries at `indexes`, one at a time."""
    for index in indexes:
        entry = manifest[index]
        yield ObjectRef(entry.checksum, entry.mode, entry.size_bytes, entry.path)


@dataclass(frozen=True, slots=True)
class PullPlan:
    """Which objects to fetch, and which only need another mode; entry indexes, 4 bytes each.

    Objects are counted by digest, whatever modes they are wanted under. `bytes_to_fetch` goes by
    the manifest's size column, which is a hint only.
    """

    manifest: Manifest | None
    small: array[int]
    large: array[int]
    derive: array[int]
    objects_total: int
    objects_cached: int
    bytes_total: int
    bytes_cached: int
    allocated_bytes: int = 0
    """What the blobs to be made take at most, in whole blocks."""

    @classmethod
    def complete(cls, *, objects: int, size_bytes: int) -> PullPlan:
        """Make the plan of a snapshot that is complete already: nothing to do."""
        nothing = array("I")
        return cls(None, nothing, nothing, nothing, objects, objects, size_bytes, size_bytes)

    @property
    def bytes_to_fetch(self) -> int:
        """How many bytes have to come from elsewhere."""
        return self.bytes_total - self.bytes_cached

    def small_batches(self, objects_max: int, bytes_max: int) -> Iterator[list[ObjectRef]]:
        """Group the small objects into batches of so many objects and so many bytes at most."""
        return in_batches(
            self._refs(self.small),
            attrgetter("size_bytes"),
            objects_max=objects_max,
            bytes_max=bytes_max,
        )

    def large_objects(self) -> Iterator[ObjectRef]:
        """Name the objects that are worth parallel ranges."""
        return self._refs(self.large)

    def derived(self) -> Iterator[ObjectRef]:
        """Name the objects that will lie in the cache under another mode than the wanted one."""
        return self._refs(self.derive)

    def _refs(self, indexes: array[int]) -> Iterator[ObjectRef]:
        return iter(()) if self.manifest is None else refs(self.manifest, indexes)


def plan_pull(
    manifest: Manifest,
    wanted: Sequence[int],
    survey: Iterable[tuple[ObjectRef, int | None]],
    *,
    large_object_bytes: int,
) -> PullPlan:
    """Decide what to fetch.

    `wanted` are the entry indexes of the distinct (digest, mode) pairs; `survey` tells of each, in
    the same order, under which mode the cache has the object, if it has it. Each digest is fetched
    once; its other modes are derived from that copy.
    """
    small, large, derive = array("I"), array("I"), array("I")
    seen: set[bytes] = set()
    counts = _Counts()
    blocks = 0
    for index, ((digest, mode, size_bytes, _), held_mode) in zip(wanted, survey, strict=True):
        before = len(seen)
        seen.add(unhexlify(digest))
        first = len(seen) > before
        if first:
            counts.add(size_bytes, cached=held_mode is not None)
        if held_mode == mode:
            continue
        blocks -= -size_bytes // BLOCK_BYTES
        if not first or held_mode is not None:
            derive.append(index)
        elif size_bytes >= large_object_bytes:
            large.append(index)
        else:
            small.append(index)
    return PullPlan(
        manifest=manifest,
        small=small,
        large=large,
        derive=derive,
        objects_total=counts.objects,
        objects_cached=counts.objects_cached,
        bytes_total=counts.size_bytes,
        bytes_cached=counts.bytes_cached,
        allocated_bytes=blocks * BLOCK_BYTES,
    )


@dataclass(slots=True)
class _Counts:
    objects: int = 0
    objects_cached: int = 0
    size_bytes: int = 0
    bytes_cached: int = 0

    def add(self, size_bytes: int, *, cached: bool) -> None:
        self.objects += 1
        self.size_bytes += size_bytes
        if cached:
            self.objects_cached += 1
            self.bytes_cached += size_bytes
