"""Which objects of a push the store has already, in as few requests as that takes."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from enum import IntEnum
from random import Random

import anyio

from snapd.actions.rehash import RehashSink
from snapd.disk.source import SourceObject
from snapd.disk.walk import WalkedTree
from snapd.model.batches import in_batches
from snapd.model.errors import DigestMismatch, KeyMissing, SnapsyncError, StoreMissing
from snapd.model.ids import Digest
from snapd.model.layout import OBJECTS_PREFIX, digest_in_key, object_key
from snapd.model.manifest import Manifest
from snapd.model.settings import TransferSettings
from snapd.remote.base import Get, RemoteStore

_LISTING_FROM_OBJECTS = 1000
_LISTED_FOR_EACH_WANTED = 4
_HEADS_AT_ONCE = 1024
_SAMPLE_MAX = 16
_TAKEN_FOR_EACH_SAMPLED = 64
_ESTIMATE_SLACK = 1.2
"""The estimate from the first thousand keys is right to some percent."""


class Presence(IntEnum):
    """What is known of an object in the store."""

    UNKNOWN = 0
    PRESENT = 1
    ABSENT = 2
    DAMAGED = 3
    SENT = 4
    """Given to the store by this very push."""
    REPAIRED = 5
    """Given to the store by this very push in place of a damaged one."""


class PushObjects:
    """The distinct objects of a walked tree in the order of their digests, and what is known.

    Costs about 41 bytes an object, and for a moment about 80 bytes a file.
    """

    def __init__(self, tree: WalkedTree) -> None:
        self._tree = tree
        files = ((index, entry) for index, entry in enumerate(tree.manifest) if entry.kind == "F")
        found = [
            bytes.fromhex(entry.checksum) + index.to_bytes(4, "big") + number.to_bytes(4, "big")
            for number, (index, entry) in enumerate(files)
        ]
        found.sort()
        self._digests = bytearray()
        self._entries, self._numbers = array("I"), array("I")
        for row in found:
            if not self._digests.endswith(row[:32]):
                self._digests += row[:32]
                self._entries.append(int.from_bytes(row[32:36], "big"))
                self._numbers.append(int.from_bytes(row[36:], "big"))
        self.states = bytearray(len(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> SourceObject:
        entry, number = self._tree.manifest[self._entries[index]], self._numbers[index]
        return SourceObject(entry.checksum, self.size_bytes(index), number, entry.path)

    def size_bytes(self, index: int) -> int:
        """Tell the length of the content of an object."""
        return self._tree.facts.sizes[self._numbers[index]]

    def find(self, digest: Digest) -> int | None:
        """Look an object up by its digest."""
        wanted = bytes.fromhex(digest)
        index = bisect_left(range(len(self)), wanted, key=self._digest)
        return index if index < len(self) and self._digest(index) == wanted else None

    def _digest(self, index: int) -> bytes:
        return bytes(self._digests[32 * index : 32 * index + 32])

    def indexes(self, *states: Presence) -> list[int]:
        """List the objects that are in one of these states, in the order of their paths."""
        wanted = bytes(states)
        found = [index for index, state in enumerate(self.states) if state in wanted]
        found.sort(key=self._entries.__getitem__)
        return found

    def judge(self, index: int, size_bytes: int | None) -> None:
        """Take note of the size that the store tells of an object; None: it has no such object."""
        if size_bytes is None:
            self.states[index] = Presence.ABSENT
        elif size_bytes == self.size_bytes(index):
            self.states[index] = Presence.PRESENT
        else:
            self.states[index] = Presence.DAMAGED

    def judge_unlisted(self, last: Digest | None) -> None:
        """Count as absent what a listing up to `last`, or a whole one, did not show."""
        raw = None if last is None else bytes.fromhex(last)
        end = len(self) if raw is None else bisect_right(range(len(self)), raw, key=self._digest)
        listed = self.states[:end].replace(bytes([Presence.UNKNOWN]), bytes([Presence.ABSENT]))
        self.states[:end] = listed

    def take_from_parent(self, parent: Manifest) -> list[int]:
        """Count as present what a snapshot has that is complete in the store; tell which it is."""
        taken = []
        for entry in parent:
            index = self.find(entry.checksum) if entry.kind == "F" else None
            if index is not None and self.states[index] == Presence.UNKNOWN:
                self.states[index] = Presence.PRESENT
                taken.append(index)
        return taken

    def count_as_sent(self, digests: Iterable[bytes]) -> None:
        """Take note of objects that are on their way already."""
        for digest in digests:
            index = self.find(Digest(digest.hex()))
            if index is not None:
                self.states[index] = Presence.SENT

    def count_as_uploaded(self, indexes: Iterable[int]) -> None:
        """Take note of objects that have just been given to the store."""
        for index in indexes:
            damaged = self.states[index] == Presence.DAMAGED
            self.states[index] = Presence.REPAIRED if damaged else Presence.SENT

    def forget(self, indexes: Iterable[int]) -> None:
        """Know nothing of these any more."""
        for index in indexes:
            self.states[index] = Presence.UNKNOWN


def listed_keys_max(objects: int) -> int:
    """Decide how many keys of a listing are worth reading to look up so many objects; 0: none.

    A listing gives 1000 keys a request, but only one page after the other, and a store may hold
    far more than one snapshot. Asking for each object runs hundreds side by side, and costs on S3
    the price of a page for every dozen. So a few objects are asked for one by one; for many, the
    listing is read as long as it is short against them, and the rest is asked for one by one.
    """
    return objects * _LISTED_FOR_EACH_WANTED if objects >= _LISTING_FROM_OBJECTS else 0


async def look_up(store: RemoteStore, objects: PushObjects) -> None:
    """Find out about every object that is still unknown; what has another size is damaged.

    A directory store that does not exist yet has nothing.
    """
    try:
        limit = listed_keys_max(len(objects.indexes(Presence.UNKNOWN)))
        # A directory is asked for a key faster than it is listed, three levels deep.
        if limit and store.uri.scheme != "file":
            await _list(store, objects, limit)
        unknown = objects.indexes(Presence.UNKNOWN)
        for start in range(0, len(unknown), _HEADS_AT_ONCE):
            await _head(store, objects, unknown[start : start + _HEADS_AT_ONCE])
    except StoreMissing:
        if store.uri.scheme != "file":
            raise
        for index in objects.indexes(Presence.UNKNOWN):
            objects.judge(index, None)


async def confirm_sample(
    store: RemoteStore, objects: PushObjects, taken: Sequence[int], choose: Random
) -> bool:
    """Ask for some of what a parent promises, chosen by chance; False if one is not as promised.

    Then all that was taken from the parent is unknown again. A store that lost a thirtieth of a
    large snapshot is found out with a probability of 0.42, one that lost a fifth with 0.97; what
    gets by is found by the next look at everything, which comes after a few pushes.
    """
    wanted = min(_SAMPLE_MAX, len(taken) // _TAKEN_FOR_EACH_SAMPLED)
    sample = sorted(choose.sample(taken, wanted))
    await _head(store, objects, sample)
    if all(objects.states[index] == Presence.PRESENT for index in sample):
        return True
    objects.forget(taken)
    return False


async def list_few(store: RemoteStore, objects_max: int) -> set[bytes] | None:
    """List what a store has, if that is no more than so many objects; None if it is more.

    Stops as soon as that shows: digests are spread evenly, so the first page tells how many there
    are. A directory is not listed: it looks at each key before it writes it.
    """
    found: set[bytes] = set()
    if store.uri.scheme == "file":
        return found
    async with aclosing(store.list(OBJECTS_PREFIX)) as listing:
        async for info in listing:
            digest = digest_in_key(info.key, OBJECTS_PREFIX)
            if digest is None:
                continue
            found.add(bytes.fromhex(digest))
            if len(found) == _LISTING_FROM_OBJECTS:
                passed = max(1, int(digest[:8], 16)) / 0xFFFFFFFF
                if len(found) / passed > objects_max * _ESTIMATE_SLACK:
                    return None
            if len(found) > objects_max:
                return None
    return found


async def _list(store: RemoteStore, objects: PushObjects, limit: int) -> None:
    """Settle what a listing tells, as far as it is read: keys come in the order of digests."""
    last: Digest | None = None
    async with aclosing(store.list(OBJECTS_PREFIX)) as listing:
        async for info in listing:
            digest = digest_in_key(info.key, OBJECTS_PREFIX)
            if digest is None:
                continue
            index = objects.find(digest)
            if index is not None and objects.states[index] == Presence.UNKNOWN:
                objects.judge(index, info.size_bytes)
            limit -= 1
            if not limit:
                last = digest
                break
    objects.judge_unlisted(last)


async def _head(store: RemoteStore, objects: PushObjects, indexes: Sequence[int]) -> None:
    outcomes = await store.head_batch([object_key(objects[index].digest) for index in indexes])
    for index, outcome in zip(indexes, outcomes, strict=True):
        if isinstance(outcome, SnapsyncError):
            raise outcome
        objects.judge(index, None if outcome is None else outcome.size_bytes)


async def read_again(
    store: RemoteStore,
    objects: PushObjects,
    settings: TransferSettings,
    on_object: Callable[[int], None],
) -> None:
    """Read every object that counts as present, and count as damaged what does not hash right.

    `on_object` is told the size of each that was read. Raises the store's error if one can't be
    read for another reason.
    """
    failures: list[SnapsyncError] = []

    async def read_batch(batch: list[int]) -> None:
        items = [objects[index] for index in batch]
        gets = [
            Get(
                object_key(item.digest),
                RehashSink(item.digest, item.path, str(store.uri)),
                None,
                item.size_bytes,
            )
            for item in items
        ]
        outcomes = await store.get_batch(gets)
        for index, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, KeyMissing):
                objects.judge(index, None)
            elif isinstance(outcome, DigestMismatch):
                objects.states[index] = Presence.DAMAGED
            elif isinstance(outcome, SnapsyncError):
                failures.append(outcome)
                group.cancel_scope.cancel()
            else:
                on_object(objects.size_bytes(index))

    lanes = max(1, settings.objects_in_flight // settings.batch_objects)
    batches = batches_of(objects, objects.indexes(Presence.PRESENT), settings)

    async def run_lane() -> None:
        for batch in batches:
            await read_batch(batch)

    async with anyio.create_task_group() as group:
        for _ in range(lanes):
            group.start_soon(run_lane)
    if failures:
        raise failures[0]


def batches_of(
    objects: PushObjects, indexes: Sequence[int], settings: TransferSettings
) -> Iterator[list[int]]:
    """Cut objects into batches of so many objects and so many bytes, one object at least."""
    return in_batches(
        indexes,
        objects.size_bytes,
        objects_max=settings.batch_objects,
        bytes_max=settings.batch_bytes,
    )
