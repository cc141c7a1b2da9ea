"""Put a directory into a store: hash once, upload what the store lacks, the manifest last."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random
from threading import Lock
from typing import Literal

import anyio
from anyio import from_thread, to_thread

from snapd.actions.forward import Forwarder
from snapd.actions.presence import (
    Presence,
    PushObjects,
    batches_of,
    confirm_sample,
    list_few,
    look_up,
    read_again,
)
from snapd.actions.read import read_manifest, refuse_too_long
from snapd.actions.upload import LargeObject, SmallObject, UploadListener, Uploads, open_uploads
from snapd.disk.pushed import Pushed, PushedSnapshots
from snapd.disk.source import Source, open_source
from snapd.disk.walk import WalkedTree, WalkOptions, WalkProgress, absolute_root, walk
from snapd.model.errors import SnapsyncError
from snapd.model.ids import Digest, SnapshotId
from snapd.model.layout import manifest_key
from snapd.model.manifest import Manifest
from snapd.model.settings import TransferSettings
from snapd.remote.base import Put, RemoteStore

_RELIANCES_MAX = 16
"""So many pushes in a row may rely on the one before; the next looks at every object."""

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
    """How far a push is. Objects and bytes are those to be uploaded, or to be verified.

    What a store lacks is uploaded while the rest is still hashed; then no totals are known yet.
    """

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

    After success the store has the manifest and every object of it, as far as its answers tell, or
    the manifest of the parent, which was there before and after ours was written. After a failure
    or a cancellation it may have some objects more and no new manifest. An object that is there is
    trusted if it has the right size; with `verify` each is read and hashed, and a damaged one
    written anew. Raises `SourceChanged` naming a file that is not any more what was hashed, what
    `walk` raises, `ManifestRefused` if the manifest is too long to be read again, and the store's
    errors. `on_progress` is also called from worker threads, never
    by two at once.
    """
    started_at = time.monotonic()
    tally = _Tally(on_progress)
    last = await _last(store, source, options)
    tree, sent = await _walk(store, source, options, tally, forward=_may_forward(options, last))
    refuse_too_long(tree.manifest)
    objects = await to_thread.run_sync(PushObjects, tree)
    await to_thread.run_sync(objects.count_as_sent, sent)
    tally.show("looking", objects_total=len(objects))
    parent = await _parent(store, tree, options, last)
    relied = await _find_present(store, objects, options, parent, tally)
    if not options.dryrun:
        await _upload(store, tree, objects, options, tally)
        tally.show("finishing")
        await _finish(store, tree, objects, options, tally, relied)
        await _remember(store, tree, options, last if relied else None)
    return replace(_planned(tree, objects), seconds=time.monotonic() - started_at)


async def _last(store: RemoteStore, source: Path, options: PushOptions) -> Pushed | None:
    if options.pushed_directory is None:
        return None
    pushed = PushedSnapshots(options.pushed_directory)
    return await to_thread.run_sync(pushed.last, absolute_root(source), str(store.uri))


def _may_forward(options: PushOptions, last: Pushed | None) -> bool:
    """Tell whether this may be a first push, of which the store has little."""
    return last is None and not (options.parent or options.verify or options.dryrun)


async def _walk(
    store: RemoteStore, source: Path, options: PushOptions, tally: _Tally, *, forward: bool
) -> tuple[WalkedTree, set[bytes]]:
    """Walk, and tell which objects went to the store meanwhile and were not there before."""

    def on_walked(progress: WalkProgress) -> None:
        from_thread.check_cancelled()
        tally.on_walked(progress)

    if not forward:
        return await to_thread.run_sync(partial(walk, source, options.walk, on_walked)), set()

    def walk_and_forward() -> WalkedTree:
        tree = walk(source, options.walk, on_walked, forwarder)
        forwarder.flush()
        return tree

    forwarder = Forwarder(absolute_root(source), options.transfer, partial(list_few, store))
    with closing(forwarder):
        async with open_uploads(store, options.transfer, tally) as forwarder.uploads:
            tree = await to_thread.run_sync(walk_and_forward)
    return tree, forwarder.sent - tally.existed


def _planned(tree: WalkedTree, objects: PushObjects) -> PushReport:
    lacking = objects.indexes(Presence.ABSENT, Presence.DAMAGED, Presence.SENT, Presence.REPAIRED)
    return PushReport(
        snapshot_id=tree.manifest.id,
        files=tree.manifest.file_count,
        objects_total=len(objects),
        objects_uploaded=len(lacking),
        objects_present=len(objects) - len(lacking),
        objects_repaired=objects.states.count(Presence.DAMAGED)
        + objects.states.count(Presence.REPAIRED),
        bytes_total=sum(map(objects.size_bytes, range(len(objects)))),
        bytes_uploaded=sum(map(objects.size_bytes, lacking)),
        seconds=0.0,
    )


async def _find_present(
    store: RemoteStore,
    objects: PushObjects,
    options: PushOptions,
    parent: Manifest | None,
    tally: _Tally,
) -> SnapshotId | None:
    """Settle every object; tell which parent was relied on for that, if any."""
    relied = None
    if parent is not None:
        taken = await to_thread.run_sync(objects.take_from_parent, parent)
        if taken and await confirm_sample(store, objects, taken, Random()):
            relied = parent.id
    await look_up(store, objects)
    if options.verify:
        present = objects.indexes(Presence.PRESENT)
        tally.show(
            "verifying",
            objects_total=len(present),
            bytes_total=sum(map(objects.size_bytes, present)),
        )
        await read_again(store, objects, options.transfer, tally.on_read)
    return relied


async def _parent(
    store: RemoteStore, tree: WalkedTree, options: PushOptions, last: Pushed | None
) -> Manifest | None:
    """Read the parent's manifest; one that was only remembered is no error if it is not there.

    A snapshot is not its own parent by remembrance: pushing it again looks at every object, so
    that it repairs a store that lost some. So does now and then any push. In a directory looking
    at everything costs less than reading a manifest.
    """
    if options.parent is not None:
        return await read_manifest(store, options.parent)
    if last is None or last.snapshot_id == tree.manifest.id or store.uri.scheme == "file":
        return None
    if last.reliances >= _RELIANCES_MAX:
        return None
    try:
        return await read_manifest(store, last.snapshot_id)
    except SnapsyncError:
        # A hint that does not hold costs the requests that it would have saved.
        return None


async def _remember(
    store: RemoteStore, tree: WalkedTree, options: PushOptions, relied: Pushed | None
) -> None:
    if options.pushed_directory is not None:
        pushed = PushedSnapshots(options.pushed_directory)
        reliances = relied.reliances + 1 if relied else 0
        this = Pushed(tree.manifest.id, reliances)
        await to_thread.run_sync(pushed.remember, tree.root, str(store.uri), this)


class _Tally(UploadListener):
    """Adds up what is done and tells it, from whatever thread, to one at a time."""

    def __init__(self, on_progress: ProgressReceiver) -> None:
        self._on_progress = on_progress
        self._lock = Lock()
        self._progress = PushProgress("walking")
        self.existed: set[bytes] = set()

    def on_walked(self, walked: WalkProgress) -> None:
        """Take note of how far the walk is."""
        with self._lock:
            self._tell(replace(self._progress, walk=walked))

    def show(self, step: PushStep, objects_total: int = 0, bytes_total: int = 0) -> None:
        """Begin a step, of which nothing is done yet."""
        with self._lock:
            self._tell(
                PushProgress(
                    step,
                    self._progress.walk,
                    objects_total=objects_total,
                    bytes_total=bytes_total,
                )
            )

    def begin_upload(self, report: PushReport, *, left_objects: int, left_bytes: int) -> None:
        """Tell what is to be uploaded, of which some has been while it was hashed."""
        with self._lock:
            self._tell(
                PushProgress(
                    "uploading",
                    self._progress.walk,
                    objects_total=report.objects_uploaded,
                    objects_done=report.objects_uploaded - left_objects,
                    bytes_total=report.bytes_uploaded,
                    bytes_done=report.bytes_uploaded - left_bytes,
                )
            )

    def on_read(self, size_bytes: int) -> None:
        """Count an object that was read."""
        self._add(objects=1, size_bytes=size_bytes)

    def on_bytes(self, size_bytes: int) -> None:
        """Count bytes that were sent."""
        self._add(objects=0, size_bytes=size_bytes)

    def on_object(self, digest: Digest, *, existed: bool) -> None:
        """Count an object that was sent."""
        if existed:
            self.existed.add(bytes.fromhex(digest))
        self._add(objects=1, size_bytes=0)

    def _add(self, *, objects: int, size_bytes: int) -> None:
        with self._lock:
            done = self._progress
            self._tell(
                replace(
                    done,
                    step="uploading" if done.step == "walking" else done.step,
                    objects_done=done.objects_done + objects,
                    bytes_done=done.bytes_done + size_bytes,
                )
            )

    def _tell(self, progress: PushProgress) -> None:
        self._progress = progress
        self._on_progress(progress)


async def _upload(
    store: RemoteStore,
    tree: WalkedTree,
    objects: PushObjects,
    options: PushOptions,
    tally: _Tally,
) -> None:
    """Write what the store lacks, then make sure that the source is still what was hashed."""
    lacking = objects.indexes(Presence.ABSENT, Presence.DAMAGED)
    tally.begin_upload(
        _planned(tree, objects),
        left_objects=len(lacking),
        left_bytes=sum(map(objects.size_bytes, lacking)),
    )
    with open_source(tree) as source:
        async with open_uploads(store, options.transfer, tally) as uploads:
            await _put_all(source, objects, lacking, options.transfer, uploads)
        objects.count_as_uploaded(lacking)
        await to_thread.run_sync(source.check_unchanged)


async def _put_all(
    source: Source,
    objects: PushObjects,
    indexes: list[int],
    settings: TransferSettings,
    uploads: Uploads,
) -> None:
    limit = settings.large_object_bytes
    small = [index for index in indexes if objects.size_bytes(index) < limit]
    large = [index for index in indexes if objects.size_bytes(index) >= limit]

    def is_absent(index: int) -> bool:
        return objects.states[index] == Presence.ABSENT

    async def put_large() -> None:
        for index in large:
            item = objects[index]
            read = partial(source.reader, item)
            await uploads.put_large(LargeObject(item, read, is_absent(index)))

    async with anyio.create_task_group() as group:
        group.start_soon(put_large)
        for batch in batches_of(objects, small, settings):
            items = [(objects[index], is_absent(index)) for index in batch]
            await uploads.put_small(
                [
                    SmallObject(item.digest, item.size_bytes, partial(source.read, item), absent)
                    for item, absent in items
                ]
            )


async def _finish(
    store: RemoteStore,
    tree: WalkedTree,
    objects: PushObjects,
    options: PushOptions,
    tally: _Tally,
    relied: SnapshotId | None,
) -> None:
    """Write the manifest. The one that was relied on must be there before and after that.

    Whoever cleans a store takes a manifest away before its objects, and keeps the objects of those
    that are there. So if the parent's is still there after ours came, nothing of it was taken; if
    not, every object is looked for again, and what was taken is uploaded once more.
    """
    for write in (True, False):
        if relied is not None and not await _is_there(store, relied):
            relied = None
            await _look_again(store, objects)
            await _upload(store, tree, objects, options, tally)
            tally.show("finishing")
        if write:
            await _write_manifest(store, tree.manifest)


async def _look_again(store: RemoteStore, objects: PushObjects) -> None:
    """Look for every object, also for those that this push uploaded: no manifest held them."""
    uploaded = {
        index: objects.states[index] for index in objects.indexes(Presence.SENT, Presence.REPAIRED)
    }
    objects.forget(range(len(objects)))
    await look_up(store, objects)
    for index, state in uploaded.items():
        if objects.states[index] == Presence.PRESENT:
            objects.states[index] = state


async def _is_there(store: RemoteStore, snapshot_id: SnapshotId) -> bool:
    (found,) = await store.head_batch([manifest_key(snapshot_id)])
    if isinstance(found, SnapsyncError):
        raise found
    return found is not None


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
