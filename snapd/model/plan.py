"""What a pull has to do, decided before the first object is fetched."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from snapd.model.batches import in_batches
from snapd.model.ids import Digest
from snapd.model.manifest import Manifest
from snapd.model.objects import ABSENT, Objects

BLOCK_BYTES = 4096
"""What file systems allocate at least for a file that is not empty, and for a directory."""


class ObjectRef(NamedTuple):
    """One object as a snapshot wants it; `path` is one of the paths that hold it, for messages."""

    digest: Digest
    mode: int
    size_bytes: int
    path: str


def refs(manifest: Manifest, indexes: Iterable[int]) -> Iterator[ObjectRef]:
    """Name the objects of the `F` lines at `indexes`, one at a time."""
    new = tuple.__new__  # half of what making a named tuple costs is its own `__new__`
    for line in manifest.lines_at(indexes):
        _, mode, digest, size, path = line.decode().split(" ", 4)
        yield new(ObjectRef, (digest, int(mode, 8), int(size), path))


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
    manifest: Manifest, objects: Objects, held: Sequence[int], *, large_object_bytes: int
) -> PullPlan:
    """Decide what to fetch.

    `objects` are those of the manifest, or some of them; `held` tells of each under which mode the
    cache has it, or `ABSENT`. Each digest is fetched once; its other modes are derived from that
    copy.
    """
    small, large, derive = array("I"), array("I"), array("I")
    objects_cached = bytes_cached = blocks = 0
    columns = zip(objects.firsts, objects.modes, objects.sizes, objects.repeats, held, strict=True)
    for index, mode, size_bytes, repeats, held_mode in columns:
        if held_mode != ABSENT and not repeats:
            objects_cached += 1
            bytes_cached += size_bytes
        if held_mode == mode:
            continue
        blocks -= -size_bytes // BLOCK_BYTES
        if repeats or held_mode != ABSENT:
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
        objects_total=objects.count,
        objects_cached=objects_cached,
        bytes_total=objects.size_bytes,
        bytes_cached=bytes_cached,
        allocated_bytes=blocks * BLOCK_BYTES,
    )
