"""Prove the tree of a snapshot now, and repair what is wrong with it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import anyio
from anyio import from_thread, to_thread

from snapd.actions.repair import Repairer
from snapd.disk.cache import Cache
from snapd.disk.proving import prove_tree
from snapd.model.care import Proof, ProofProgress, TreeProblem
from snapd.model.errors import SnapshotNotFound, TreeDiffers
from snapd.model.ids import Digest, SnapshotId
from snapd.model.manifest import Manifest

logger = logging.getLogger(__name__)

PROBLEMS_SHOWN_MAX = 100
LOCK_POLL_SECONDS = 0.2

OnProgress = Callable[[ProofProgress], None]
"""Called in a worker thread."""


async def prove(
    cache: Cache, repairer: Repairer, snapshot_id: SnapshotId, on_progress: OnProgress
) -> Proof:
    """Hash every file of a tree; wrong and missing ones are repaired from the store.

    Returns once the tree is known to be right. Raises `SnapshotNotFound`, and `TreeDiffers` with
    the first problems in its details if anything is wrong that could not be repaired.
    """
    manifest = await to_thread.run_sync(_manifest, cache, snapshot_id)
    problems = await _look(cache, manifest, on_progress)
    damaged = {(each.object, each.mode) for each in problems if each.object}
    if damaged:
        logger.warning("the tree of %s has %d damaged objects", snapshot_id, len(damaged))
        await to_thread.run_sync(_note, cache, damaged)
        await repairer.repair()
        problems = await _look(cache, manifest, on_progress)
    if problems:
        raise _differs(cache, snapshot_id, problems)
    return Proof(
        snapshot_id=snapshot_id,
        tree=str(cache.trees.path(snapshot_id)),
        files=manifest.file_count,
        size_bytes=manifest.total_bytes,
        repaired=len(damaged),
    )


def _manifest(cache: Cache, snapshot_id: SnapshotId) -> Manifest:
    text = cache.manifests.load(snapshot_id) if cache.trees.has(snapshot_id) else None
    if text is None:
        raise SnapshotNotFound(
            f"the cache has no snapshot {snapshot_id}",
            hint="`snapctl cache ls` lists what it has.",
            id=snapshot_id,
        )
    return Manifest.parse(text, expected_id=snapshot_id)


async def _look(cache: Cache, manifest: Manifest, on_progress: OnProgress) -> list[TreeProblem]:
    """Read the tree while nobody evicts or repairs it."""

    def show(progress: ProofProgress) -> None:
        from_thread.check_cancelled()
        on_progress(progress)

    async with _alone(cache, manifest.id):
        return await to_thread.run_sync(prove_tree, cache.trees, manifest, show)


@asynccontextmanager
async def _alone(cache: Cache, snapshot_id: SnapshotId) -> AsyncIterator[None]:
    lock = cache.snapshot_lock(snapshot_id)
    while not await to_thread.run_sync(lock.try_acquire):  # noqa: ASYNC110 - flock has no event
        await anyio.sleep(LOCK_POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()


def _note(cache: Cache, damaged: Iterable[tuple[str, int]]) -> None:
    """Put wrong objects away and note that their trees need repair; blocking.

    An object may be right although a name in a tree is not: then only the tree is.
    """
    for digest, mode in damaged:
        cache.repairs.add(Digest(digest), mode)
        cache.trust.prove(Digest(digest), mode)


def _differs(cache: Cache, snapshot_id: SnapshotId, problems: list[TreeProblem]) -> TreeDiffers:
    first = problems[0]
    return TreeDiffers(
        f"the tree of {snapshot_id} has {len(problems)} problems that could not be repaired; "
        f"the first is {first.path} ({first.kind})",
        hint="See the daemon's log for the store; or evict the snapshot and pull it again.",
        id=snapshot_id,
        directory=str(cache.trees.path(snapshot_id)),
        problems_total=len(problems),
        problems=[each.to_json() for each in problems[:PROBLEMS_SHOWN_MAX]],
    )
