"""Finding out what is known of bytes: what they are, whom to ask, and what they answered."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from blake3 import blake3

from snapctl.caches import cache_directories
from snapctl.context import Context
from snapctl.registering import with_registry
from snapctl.stores import with_store
from snapctl.walking import WalkFlags, walk_directory
from snapd.actions.whence import Holding, Known, Search, known_of, search_cache, search_store
from snapd.disk.fsops import translated
from snapd.model.errors import UsageError
from snapd.model.ids import Digest, SnapshotId, is_digest
from snapd.model.lineage import Names
from snapd.model.manifest import ROOT
from snapd.model.names import in_one_line
from snapd.model.pushes import Push
from snapd.registry.lineage import read_names
from snapd.registry.names import Registry

_PIECE_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Subject:
    """What is asked about.

    `kind` is `directory`, `file` or `id`. A file has no `snapshot_id`; an ID may be that of a
    snapshot or the digest of a file; the `digest` of a directory is that of what is below it.
    """

    kind: str
    snapshot_id: SnapshotId | None
    digest: Digest
    path: str = ""

    @classmethod
    def of(cls, context: Context, what: str, flags: WalkFlags) -> Subject:
        """Read an ID, or hash what lies at a path; raises `UsageError` if it is neither."""
        if is_digest(what.lower()):
            return cls("id", SnapshotId(what.lower()), Digest(what.lower()))
        if os.path.isdir(what):
            manifest = walk_directory(context, what, flags, "whence").manifest
            root = next(entry for entry in manifest if entry.path == ROOT)
            return cls("directory", manifest.id, root.checksum, what)
        if not os.path.isfile(what):
            raise UsageError(
                f"no file and no directory, and no ID either: {what!r}",
                hint="What a name was made from, `snapctl lineage NAME` tells.",
            )
        return cls("file", None, _digest_of_file(what), what)

    def __str__(self) -> str:
        return (
            f"{in_one_line(self.path)} ({self.snapshot_id or self.digest})"
            if self.path
            else self.digest
        )


@dataclass
class Answer:
    """What is known of a subject: as a snapshot, to your own record, and as a part of others.

    `looked_through` counts the snapshots whose manifests were searched; `more`: others were not.
    """

    known: Known = field(default_factory=Known)
    names: Names = field(default_factory=lambda: Names(()))
    here: list[Push] = field(default_factory=list)
    holding: list[Holding] = field(default_factory=list)
    cached: set[SnapshotId] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    looked_through: int = 0
    more: bool = False

    @property
    def is_known(self) -> bool:
        """Tell whether anything knows the subject as a snapshot."""
        return bool(self.known or self.here)

    def take(self, search: Search) -> None:
        """Take in what a search found."""
        self.looked_through += search.looked_through
        self.holding += search.holding
        self.problems += search.unreadable.values()


def ask(
    context: Context, subject: Subject, store: str | None, here: list[Push], limit: int
) -> Answer:
    """Ask the store, if there is one, and the node's caches.

    What nobody knows as a snapshot is looked for in the manifests of the cached snapshots and of
    the named ones, at most `limit` of each.
    """
    answer = Answer(here=[push for push in here if push.snapshot_id == subject.snapshot_id])

    async def look_up(registry: Registry) -> None:
        answer.names = await read_names(registry)
        if subject.snapshot_id is not None:
            answer.known = await known_of(registry, answer.names, subject.snapshot_id)

    if store:
        with_registry(context, store, look_up)
    if answer.is_known or not limit:
        return answer
    _search_caches(context, subject, limit, answer)
    latest = sorted(answer.names.versions, key=lambda version: version.at, reverse=True)
    ids = dict.fromkeys(version.snapshot_id for version in latest)
    wanted = [snapshot_id for snapshot_id in ids if snapshot_id not in answer.cached]
    answer.more |= len(wanted) > limit
    if store and wanted:
        search = partial(search_store, snapshot_ids=wanted[:limit], digest=subject.digest)
        answer.take(with_store(context, store, search))
    return answer


def _search_caches(context: Context, subject: Subject, limit: int, answer: Answer) -> None:
    for directory in cache_directories(context, None):
        manifests = directory / "manifests"
        found: list[SnapshotId] = []
        # Somebody else's cache, or one that is not there yet.
        with suppress(OSError):
            found = [SnapshotId(name) for name in sorted(os.listdir(manifests)) if is_digest(name)]
        fresh = [snapshot_id for snapshot_id in found if snapshot_id not in answer.cached]
        answer.more |= len(fresh) > limit
        search = search_cache(manifests, fresh[:limit], subject.digest)
        answer.take(search)
        answer.cached.update(set(fresh[:limit]) - search.unreadable.keys())


def _digest_of_file(path: str) -> Digest:
    hasher = blake3(max_threads=blake3.AUTO)
    with translated("can't read it", path), open(path, "rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            hasher.update(piece)
    return Digest(hasher.hexdigest())
