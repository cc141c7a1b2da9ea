"""Prove a snapshot anew: a store's by reading every object, a directory's by walking it."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread

from snapd.actions.read import read_manifest
from snapd.actions.rehash import RehashSink
from snapd.disk.walk import WalkOptions, WalkProgress, walk
from snapd.model.batches import in_batches
from snapd.model.diff import diff
from snapd.model.errors import (
    DigestMismatch,
    KeyMissing,
    ObjectMissing,
    SnapsyncError,
    TreeDiffers,
)
from snapd.model.ids import Digest, SnapshotId
from snapd.model.layout import object_key
from snapd.model.manifest import Manifest
from snapd.model.plan import ObjectRef, refs
from snapd.model.settings import TransferSettings
from snapd.remote.base import Get, GetOutcome, RemoteStore

PROBLEMS_SHOWN_MAX = 100


@dataclass(frozen=True, slots=True)
class VerifyProgress:
    """How far a verification is; totals are 0 while they are not known."""

    files_done: int = 0
    files_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0


OnProgress = Callable[[VerifyProgress], None]
NewSink = Callable[[Digest, str, str], RehashSink]
"""Makes the sink of an object, given its digest, a path that holds it, and the store."""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was read and found right. `files` are distinct objects of a store, or files on disk."""

    snapshot_id: SnapshotId
    where: str
    files: int
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Render for `--json`."""
        return asdict(self)


async def verify_snapshot(
    store: RemoteStore,
    snapshot_id: SnapshotId,
    settings: TransferSettings,
    on_progress: OnProgress,
) -> VerifyReport:
    """Read a snapshot's manifest and every distinct object once, and hash all of it.

    Nothing is written. Missing and wrong objects are collected; at the end the first of them is
    raised, as `ObjectMissing` or `DigestMismatch`, with the number of all and the first
    `PROBLEMS_SHOWN_MAX` in the details. Raises `SnapshotNotFound`, `ManifestRefused`, `TreeDiffers`
    for a manifest whose directories lie, and the store's error if it can't be read.
    """
    return await verify_objects(
        store, await read_manifest(store, snapshot_id), settings, on_progress
    )


async def verify_objects(
    store: RemoteStore,
    manifest: Manifest,
    settings: TransferSettings,
    on_progress: OnProgress,
    new_sink: NewSink = RehashSink,
) -> VerifyReport:
    """Do what `verify_snapshot` does with a manifest at hand; `new_sink` may be a richer sink."""
    wanted = await to_thread.run_sync(check_and_list, manifest)
    reading = _Reading(store, manifest, wanted, on_progress, new_sink)
    await reading.run(settings)
    if reading.problems:
        raise _as_error(reading, store, manifest.id)
    return VerifyReport(manifest.id, str(store.uri), len(wanted), reading.bytes_done)


def check_and_list(manifest: Manifest) -> array[int]:
    """Check directories, and list the first entry of each distinct digest, whatever its modes."""
    manifest.check_directories()
    seen: set[bytes] = set()
    indexes = array("I")
    for index in manifest.distinct_objects():
        digest = bytes.fromhex(manifest[index].checksum)
        if digest not in seen:
            seen.add(digest)
            indexes.append(index)
    return indexes


class _Reading:
    """Reads objects in batches, a bounded number of batches at a time."""

    def __init__(
        self,
        store: RemoteStore,
        manifest: Manifest,
        wanted: array[int],
        on_progress: OnProgress,
        new_sink: NewSink,
    ) -> None:
        self._new_sink = new_sink
        self.bytes_done = 0
        self.problems: list[DigestMismatch] = []
        self.problem_count = 0
        self.objects = len(wanted)
        self._store = store
        self._refs = refs(manifest, wanted)
        self._bytes_total = sum(manifest[index].size_bytes for index in wanted)
        self._objects_done = 0
        self._on_progress = on_progress
        self._failure: SnapsyncError | None = None

    async def run(self, settings: TransferSettings) -> None:
        """Read all; raises the store's error if an object can't be read at all."""
        batches = in_batches(
            self._refs,
            attrgetter("size_bytes"),
            objects_max=settings.batch_objects,
            bytes_max=settings.batch_bytes,
        )
        async with anyio.create_task_group() as group:
            for _ in range(max(1, settings.objects_in_flight // settings.batch_objects)):
                group.start_soon(self._run_lane, batches, group.cancel_scope)
        if self._failure is not None:
            raise self._failure

    async def _run_lane(
        self, batches: Iterator[list[ObjectRef]], everything: anyio.CancelScope
    ) -> None:
        for batch in batches:
            sinks = [self._new_sink(ref.digest, ref.path, str(self._store.uri)) for ref in batch]
            gets = [
                Get(object_key(ref.digest), sink, None, ref.size_bytes)
                for ref, sink in zip(batch, sinks, strict=True)
            ]
            outcomes = await self._store.get_batch(gets)
            for ref, outcome in zip(batch, outcomes, strict=True):
                self._settle(ref, outcome)
            if self._failure is not None:
                everything.cancel()
                return
            self._on_progress(
                VerifyProgress(self._objects_done, self.objects, self.bytes_done, self._bytes_total)
            )

    def _settle(self, ref: ObjectRef, outcome: GetOutcome) -> None:
        self._objects_done += 1
        if isinstance(outcome, KeyMissing):
            outcome = ObjectMissing(
                f"{self._store.uri} lacks object {ref.digest} of {ref.path}",
                object=ref.digest,
                path=ref.path,
                store=str(self._store.uri),
            )
        if isinstance(outcome, DigestMismatch):
            self.problem_count += 1
            if len(self.problems) < PROBLEMS_SHOWN_MAX:
                self.problems.append(outcome)
        elif isinstance(outcome, SnapsyncError):
            self._failure = self._failure or outcome
        else:
            self.bytes_done += outcome.size_bytes


def _as_error(reading: _Reading, store: RemoteStore, snapshot_id: SnapshotId) -> DigestMismatch:
    # In the order of their paths, not of the answers: the same damage gives the same error.
    found = sorted(reading.problems, key=lambda problem: str(problem.details["path"]))
    first = found[0]
    problems = [
        {"code": problem.code, "object": problem.details["object"], "path": problem.details["path"]}
        for problem in found
    ]
    return type(first)(
        f"{reading.problem_count} of {reading.objects} objects of {snapshot_id} are missing or "
        f"wrong: {first.message}",
        id=snapshot_id,
        store=str(store.uri),
        object=first.details["object"],
        path=first.details["path"],
        problems_total=reading.problem_count,
        problems=problems,
    )


def verify_directory(
    directory: Path,
    snapshot_id: SnapshotId,
    options: WalkOptions,
    find_manifest: Callable[[], Manifest | None],
    on_progress: OnProgress,
) -> VerifyReport:
    """Walk a directory, hash every file, and compare its ID; blocking.

    A link in the place of the directory is followed, so that a symlink checkout can be verified.
    `find_manifest` is asked for the snapshot's manifest only if the ID is another. Raises
    `TreeDiffers` with the first differences in the details, and what `walk` raises.
    """

    def show(now: WalkProgress) -> None:
        on_progress(VerifyProgress(now.files_hashed, now.files_total, now.bytes_hashed, 0))

    real = Path(os.path.realpath(directory))
    actual = walk(real, options, show).manifest
    if actual.id == snapshot_id:
        return VerifyReport(snapshot_id, str(directory), actual.file_count, actual.total_bytes)
    raise _tree_differs(directory, snapshot_id, actual, find_manifest())


def _tree_differs(
    directory: Path, snapshot_id: SnapshotId, actual: Manifest, wanted: Manifest | None
) -> TreeDiffers:
    differences: list[dict[str, str]] = []
    count = 0
    for change in diff(wanted, actual) if wanted is not None else ():
        count += 1
        if len(differences) < PROBLEMS_SHOWN_MAX:
            differences.append({"status": change.status, "path": change.path})
    message = f"{directory} is {actual.id}, not {snapshot_id}"
    if differences:
        first = differences[0]
        message += f" ({count} differences, the first is {first['status']} {first['path']})"
    return TreeDiffers(
        message,
        id=snapshot_id,
        actual=actual.id,
        directory=str(directory),
        differences_total=count,
        differences=differences,
    )
