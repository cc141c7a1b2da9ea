"""Put a directory into a store: hash once, upload what the store lacks, the manifest last."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import anyio
from anyio import from_thread, to_thread

from snapd.actions.presence import Presence, PushObjects, batches_of, look_up, read_again
from snapd.actions.read import read_manifest
from snapd.disk.pushed import PushedSnapshots
from snapd.disk.source import Source, SourceObject, SourceReader, open_source
from snapd.disk.walk import WalkedTree, WalkOptions, WalkProgress, walk
from snapd.model.errors import SnapsyncError
from snapd.model.ids import SnapshotId
from snapd.model.layout import manifest_key, object_key
from snapd.model.manifest import Manifest
from snapd.model.settings import TransferSettings
from snapd.remote.base import Put, RemoteStore
from snapd.runtime.limits import Budget

_LARGE_TRIES = 2
_LARGE_AT_ONCE = 2

PushStep = Literal["walking", "looking", "verifying", "uploading", "finishing"]


@dataclass(frozen=True, slots=True)
class PushOptions:
    """How to push.

    `parent` is a snapshot that the store has: what it has in common needs no request. Without it,
    `pushed_directory` may remember the one that was pushed last from the same directory.
    """

    walk: WalkOptions = field(default_factory=WalkOptions)
    parent: SnapshotId | None = None
    verify: bool = False
    dryrun: bool = False
    pushed_directory: Path | None = None
    transfer: TransferSettings = field(default_factory=TransferSettings)


@dataclass(frozen=True, slots=True)
class PushProgress:
    """How far a push is. Objects and bytes are those to be uploaded, or to be verified."""

    step: PushStep
    walk: WalkProgress = field(default_factory=WalkProgress)
    objects_total: int = 0
    objects_done: int = 0
    bytes_total: int = 0
    bytes_done: int = 0


@dataclass(frozen=True, slots=True)
class PushReport:
    """What a push did, or with `dryrun` would do. Objects are distinct contents."""

    snapshot_id: SnapshotId
    files: int
    objects_total: int
    objects_uploaded: int
    objects_present: int
    objects_repaired: int
    """Of the uploaded ones, those that the store had in a damaged form."""
    bytes_total: int
    bytes_uploaded: int
    seconds: float


ProgressReceiver = Callable[[PushProgress], None]


def ignore_progress(progress: PushProgress) -> None:
    """Take no notice."""


async def push(
    store: RemoteStore,
    source: Path,
    options: PushOptions,
    on_progress: ProgressReceiver = ignore_progress,
) -> PushReport:
    """Put the directory `source` into `store`.

    After success the store has every object of the snapshot, as far as its listing or the parent
    tells, and the manifest. After a failure or a cancellation it may have some objects more and no
    new manifest. An object that is there is trusted if it has the right size; with `verify` each
    is read and hashed, and a damaged one written anew. Raises `SourceChanged` naming a file that
    is not any more what was hashed, what `walk` raises, and the store's errors. `on_progress` is
    also called from worker threads, never by two at once.
    """
    started_at = time.monotonic()

    def on_walked(progress: WalkProgress) -> None:
        from_thread.check_cancelled()
        on_progress(PushProgress("walking", progress))

    tree = await to_thread.run_sync(partial(walk, source, options.walk, on_walked))
    objects = await to_thread.run_sync(PushObjects, tree)
    on_progress(PushProgress("looking", objects_total=len(objects)))
    await _find_present(store, tree, objects, options, on_progress)
    report = _planned(tree, objects)
    if not options.dryrun:
        await _upload(store, tree, objects, options.transfer, on_progress)
        on_progress(PushProgress("finishing"))
        await _write_manifest(store, tree.manifest)
        await _remember(store, tree, options)
    return replace(report, seconds=time.monotonic() - started_at)


def _planned(tree: WalkedTree, objects: PushObjects) -> PushReport:
    lacking = objects.indexes(Presence.ABSENT, Presence.DAMAGED)
    return PushReport(
        snapshot_id=tree.manifest.id,
        files=tree.manifest.file_count,
        objects_total=len(objects),
        objects_uploaded=len(lacking),
        objects_present=len(objects) - len(lacking),
        objects_repaired=objects.states.count(Presence.DAMAGED),
        bytes_total=sum(map(objects.size_bytes, range(len(objects)))),
        bytes_uploaded=sum(map(objects.size_bytes, lacking)),
        seconds=0.0,
    )


async def _find_present(
    store: RemoteStore,
    tree: WalkedTree,
    objects: PushObjects,
    options: PushOptions,
    on_progress: ProgressReceiver,
) -> None:
    parent = await _parent(store, tree, options)
    if parent is not None:
        await to_thread.run_sync(objects.take_from_parent, parent)
    await look_up(store, objects)
    if not options.verify:
        return
    present = objects.indexes(Presence.PRESENT)
    progress = PushProgress(
        "verifying",
        objects_total=len(present),
        bytes_total=sum(map(objects.size_bytes, present)),
    )
    counter = _Counter(progress, on_progress)
    await read_again(store, objects, options.transfer, counter.add)


async def _parent(store: RemoteStore, tree: WalkedTree, options: PushOptions) -> Manifest | None:
    """Read the parent's manifest; one that was only remembered is no error if it is not there.

    A snapshot is not its own parent by remembrance: pushing it again looks at every object, so
    that it repairs a store that lost some.
    """
    if options.parent is not None:
        return await read_manifest(store, options.parent)
    if options.pushed_directory is None:
        return None
    last = await to_thread.run_sync(
        PushedSnapshots(options.pushed_directory).last, tree.root, str(store.uri)
    )
    if last is None or last == tree.manifest.id:
        return None
    try:
        return await read_manifest(store, last)
    except SnapsyncError:
        # A hint that does not hold costs the requests that it would have saved.
        return None


async def _remember(store: RemoteStore, tree: WalkedTree, options: PushOptions) -> None:
    if options.pushed_directory is not None:
        pushed = PushedSnapshots(options.pushed_directory)
        await to_thread.run_sync(pushed.remember, tree.root, str(store.uri), tree.manifest.id)


class _Counter:
    """Adds up what is done and tells it."""

    def __init__(self, progress: PushProgress, on_progress: ProgressReceiver) -> None:
        self._progress = progress
        self._on_progress = on_progress
        on_progress(progress)

    def add(self, size_bytes: int, objects: int = 1) -> None:
        done = self._progress
        self._progress = replace(
            done,
            objects_done=done.objects_done + objects,
            bytes_done=done.bytes_done + size_bytes,
        )
        self._on_progress(self._progress)


async def _upload(
    store: RemoteStore,
    tree: WalkedTree,
    objects: PushObjects,
    settings: TransferSettings,
    on_progress: ProgressReceiver,
) -> None:
    """Write what the store lacks, then make sure that the source is still what was hashed."""
    lacking = objects.indexes(Presence.ABSENT, Presence.DAMAGED)
    progress = PushProgress(
        "uploading",
        objects_total=len(lacking),
        bytes_total=sum(map(objects.size_bytes, lacking)),
    )
    with open_source(tree) as source:
        upload = _Upload(store, source, objects, settings, _Counter(progress, on_progress))
        await upload.run(lacking)
        await to_thread.run_sync(source.check_unchanged)


class _Upload:
    """One run over the objects that a store lacks; the first failure ends it."""

    def __init__(
        self,
        store: RemoteStore,
        source: Source,
        objects: PushObjects,
        settings: TransferSettings,
        counter: _Counter,
    ) -> None:
        self._store = store
        self._source = source
        self._objects = objects
        self._settings = settings
        self._counter = counter
        self._failure: SnapsyncError | None = None
        self._budget = Budget(
            objects=settings.objects_in_flight, size_bytes=settings.bytes_in_flight
        )
        self._large_places = anyio.CapacityLimiter(_LARGE_AT_ONCE)

    async def run(self, indexes: list[int]) -> None:
        """Upload these; raises the first failure, when nothing is under way any more."""
        limit = self._settings.large_object_bytes
        size_of = self._objects.size_bytes
        small = [index for index in indexes if size_of(index) < limit]
        large = [index for index in indexes if size_of(index) >= limit]
        async with anyio.create_task_group() as group:
            self._scope = group.cancel_scope
            group.start_soon(self._start_large, large)
            for batch in batches_of(self._objects, small, self._settings):
                size_bytes = sum(map(size_of, batch))
                place = await self._budget.acquire(objects=len(batch), size_bytes=size_bytes)
                group.start_soon(self._put_batch, batch, place.release)
        if self._failure is not None:
            raise self._failure

    async def _put_batch(self, batch: list[int], release: Callable[[], None]) -> None:
        try:
            outcomes = await self._store.put_batch([self._put(index) for index in batch])
        finally:
            release()
        for index, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, SnapsyncError):
                self._fail(outcome)
                return
            self._counter.add(self._objects.size_bytes(index))

    def _put(self, index: int) -> Put:
        item = self._objects[index]
        return Put(
            object_key(item.digest),
            partial(self._source.read, item),
            item.size_bytes,
            if_absent=self._objects.states[index] == Presence.ABSENT,
        )

    async def _start_large(self, indexes: list[int]) -> None:
        async with anyio.create_task_group() as group:
            for index in indexes:
                await self._large_places.acquire_on_behalf_of(index)
                group.start_soon(self._put_large, index)

    async def _put_large(self, index: int) -> None:
        try:
            for tries_left in reversed(range(_LARGE_TRIES)):
                try:
                    await self._put_large_once(index)
                except SnapsyncError as error:
                    if not error.retryable or not tries_left:
                        self._fail(error)
                        return
                else:
                    return
        finally:
            self._large_places.release_on_behalf_of(index)

    async def _put_large_once(self, index: int) -> None:
        item = self._objects[index]
        reader = await to_thread.run_sync(self._source.reader, item)
        try:
            async with aclosing(self._parts(reader, item)) as parts:
                await self._store.put_large(
                    object_key(item.digest),
                    parts,
                    size_bytes=item.size_bytes,
                    if_absent=self._objects.states[index] == Presence.ABSENT,
                )
        except BaseException:
            self._counter.add(reader.left_bytes - item.size_bytes, objects=0)
            raise
        finally:
            reader.close()
        self._counter.add(reader.left_bytes)

    async def _parts(self, reader: SourceReader, item: SourceObject) -> AsyncGenerator[bytes, None]:
        """Read the file part by part. The last part is only given once the hash is right, so that
        a store never gets all bytes of a wrong body."""
        part_bytes = self._store.large_part_bytes
        left = item.size_bytes
        while left:
            part = await to_thread.run_sync(reader.read, min(part_bytes, left))
            left -= len(part)
            if not left:
                await to_thread.run_sync(reader.check_end)
            self._counter.add(len(part), objects=0)
            yield part

    def _fail(self, error: SnapsyncError) -> None:
        if self._failure is None:
            self._failure = error
        self._scope.cancel()


async def _write_manifest(store: RemoteStore, manifest: Manifest) -> None:
    """Write the manifest; one that is there is kept if its bytes are right, else replaced.

    As an object named by its content it needs no conditional write, which not every store has.
    """
    text = manifest.text
    put = Put(manifest_key(manifest.id), lambda: text, len(text))
    (outcome,) = await store.put_batch([put])
    if isinstance(outcome, SnapsyncError):
        raise outcome
    if outcome.existed and not await _is_stored(store, manifest):
        await store.put(put.key, text)


async def _is_stored(store: RemoteStore, manifest: Manifest) -> bool:
    key = manifest_key(manifest.id)
    (found,) = await store.head_batch([key])
    if isinstance(found, SnapsyncError):
        raise found
    if found is None or found.size_bytes != len(manifest.text):
        return False
    document = await store.get(key, limit_bytes=len(manifest.text))
    return document.data == manifest.text
