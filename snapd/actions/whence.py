"""What is known of bytes whose names are lost: names, runs and pushes of a snapshot, or snapshots
that hold a content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from anyio import to_thread

from snapd.actions.read import read_manifest_text
from snapd.model.errors import KeyMissing
from snapd.model.ids import Digest, SnapshotId, digest_of
from snapd.model.lineage import NamedVersion, Names
from snapd.model.occurrences import Occurrence, occurrences
from snapd.model.pushes import Push
from snapd.registry.beginning import beginning
from snapd.registry.names import Registry
from snapd.registry.pushes import Pushes
from snapd.registry.runs import Runs
from snapd.registry.side_by_side import side_by_side
from snapd.remote.base import RemoteStore

RUNS_MAX = 1000
PUSHES_MAX = 100
PATHS_MAX = 100
"""Of one snapshot."""
_MANIFESTS_AT_ONCE = 2
"""Each is in memory whole."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a store knows of a snapshot; `more` names those of its lists that are cut."""

    versions: Sequence[NamedVersion] = ()
    made_by: Sequence[str] = ()
    used_by: Sequence[str] = ()
    pushes: Sequence[Push] = ()
    more: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.versions or self.made_by or self.used_by or self.pushes)


@dataclass(frozen=True, slots=True)
class Holding:
    """A snapshot that has a content, and where in it; `more`: at further paths, too."""

    snapshot_id: SnapshotId
    found: Sequence[Occurrence]
    more: bool


@dataclass(frozen=True, slots=True)
class Search:
    """Which of the snapshots that were looked through hold a content, and which can't be read."""

    looked_through: int
    holding: Sequence[Holding]
    unreadable: Mapping[SnapshotId, str]


async def known_of(registry: Registry, names: Names, snapshot_id: SnapshotId) -> Known:
    """Look a snapshot up among names, in the links of runs and in the record of pushes."""
    runs = Runs(registry)
    made, more_made = await beginning(runs.making(snapshot_id), RUNS_MAX)
    used, more_used = await beginning(runs.using(snapshot_id), RUNS_MAX)
    pushes, more_pushes = await Pushes(registry.documents).told_of(snapshot_id, PUSHES_MAX)
    versions = names.of(snapshot_id)
    said = [version.run for version in versions if version.run]
    cut = {"made_by": more_made, "used_by": more_used, "pushes": more_pushes}
    return Known(
        versions,
        list(dict.fromkeys(made + said)),
        used,
        pushes,
        [name for name, is_cut in cut.items() if is_cut],
    )


async def search_store(
    store: RemoteStore, snapshot_ids: Sequence[SnapshotId], digest: Digest
) -> Search:
    """Look for a content in the manifests of snapshots of a store, some of them at a time."""
    unreadable: dict[SnapshotId, str] = {}

    async def look(snapshot_id: SnapshotId) -> Holding | None:
        try:
            text = await read_manifest_text(store, snapshot_id)
        except KeyMissing:
            unreadable[snapshot_id] = f"{store.uri} has no snapshot {snapshot_id}"
            return None
        found = await to_thread.run_sync(_look_into, text, snapshot_id, digest)
        if isinstance(found, str):
            unreadable[snapshot_id] = found
            return None
        return found

    reads = [partial(look, snapshot_id) for snapshot_id in snapshot_ids]
    found = await side_by_side(reads, at_once=_MANIFESTS_AT_ONCE)
    return Search(len(snapshot_ids), [each for each in found if each], unreadable)


def search_cache(manifests: Path, snapshot_ids: Sequence[SnapshotId], digest: Digest) -> Search:
    """Look for a content in manifests of a cache; blocking."""
    unreadable: dict[SnapshotId, str] = {}
    holding: list[Holding] = []
    for snapshot_id in snapshot_ids:
        try:
            found = _look_into((manifests / snapshot_id).read_bytes(), snapshot_id, digest)
        except OSError as error:
            found = f"{manifests / snapshot_id}: {error.strerror}"
        if isinstance(found, str):
            unreadable[snapshot_id] = found
        elif found is not None:
            holding.append(found)
    return Search(len(snapshot_ids), holding, unreadable)


def _look_into(text: bytes, snapshot_id: SnapshotId, digest: Digest) -> Holding | str | None:
    """Look into a manifest; a text says why it is none."""
    found, more = occurrences(text, digest, PATHS_MAX)
    if not found:
        return None
    if SnapshotId(digest_of(text)) != snapshot_id:
        return f"the manifest of {snapshot_id} is damaged"
    return Holding(snapshot_id, found, more)
