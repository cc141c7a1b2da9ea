"""Prove that a store has a snapshot whole, without reading what it has."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from contextlib import aclosing

from anyio import to_thread

from snapd.actions.presence import listed_keys_max
from snapd.actions.read import read_manifest
from snapd.actions.rehash import RehashSink
from snapd.actions.verify import (
    PROBLEMS_SHOWN_MAX,
    OnProgress,
    VerifyProgress,
    VerifyReport,
    check_and_list,
)
from snapd.model.errors import DigestMismatch, KeyMissing, ObjectMissing, SnapsyncError
from snapd.model.ids import Digest, SnapshotId
from snapd.model.layout import OBJECTS_PREFIX, digest_in_key, object_key
from snapd.model.manifest import Entry, Manifest
from snapd.remote.base import Get, RemoteStore

_LOOKS_AT_ONCE = 1024
_READS_AT_ONCE = 8


async def certify_snapshot(
    store: RemoteStore, snapshot_id: SnapshotId, on_progress: OnProgress
) -> VerifyReport:
    """Read and check a snapshot's manifest, and look for every object that it names.

    An object whose size is not that of the manifest is read and hashed: the size there is only a
    hint. Raises `SnapshotNotFound`, `ManifestRefused`, `DigestMismatch`, and `ObjectMissing` with
    the number of all that is missing in the details. Costs about 80 bytes an object beside the
    manifest.
    """
    manifest = await read_manifest(store, snapshot_id)
    wanted = await to_thread.run_sync(check_and_list, manifest)
    look = _Look(store, manifest, await to_thread.run_sync(_sorted_rows, manifest, wanted))
    await look.run(on_progress)
    if look.missing_total:
        raise look.as_missing(snapshot_id)
    await look.read_suspects()
    size_bytes = sum(manifest[index].size_bytes for index in wanted)
    return VerifyReport(snapshot_id, str(store.uri), len(wanted), size_bytes)


def _sorted_rows(manifest: Manifest, wanted: array[int]) -> list[bytes]:
    """Give digest and index of each distinct object, in the order of a listing."""
    rows = [bytes.fromhex(manifest[i].checksum) + i.to_bytes(4, "big") for i in wanted]
    rows.sort()
    return rows


class _Look:
    """Goes through the objects in the order of their digests, by listing and by asking."""

    def __init__(self, store: RemoteStore, manifest: Manifest, rows: list[bytes]) -> None:
        self._store = store
        self._manifest = manifest
        self._rows = rows
        self._at = 0
        self._missing: list[Entry] = []
        self._suspects: list[Entry] = []
        self.missing_total = 0

    async def run(self, on_progress: OnProgress) -> None:
        """Look for each object; see `presence.listed_keys_max` for when listing is worth it."""

        def show() -> None:
            on_progress(VerifyProgress(self._at, len(self._rows)))

        limit = listed_keys_max(len(self._rows))
        if limit and self._store.uri.scheme != "file":
            await self._list(limit, show)
        while self._at < len(self._rows):
            await self._ask(self._rows[self._at : self._at + _LOOKS_AT_ONCE])
            show()

    async def _list(self, limit: int, show: Callable[[], None]) -> None:
        async with aclosing(self._store.list(OBJECTS_PREFIX)) as listing:
            async for info in listing:
                digest = digest_in_key(info.key, OBJECTS_PREFIX)
                if digest is None:
                    continue
                self._pass_over(bytes.fromhex(digest))
                if self._at == len(self._rows):
                    return
                if self._rows[self._at][:32].hex() == digest:
                    self._judge(self._rows[self._at], info.size_bytes)
                    self._at += 1
                    show()
                limit -= 1
                if not limit:
                    return
        self._pass_over(b"\xff" * 33)

    def _pass_over(self, digest: bytes) -> None:
        """Count as missing what would have been listed before this one."""
        while self._at < len(self._rows) and self._rows[self._at][:32] < digest:
            self._judge(self._rows[self._at], None)
            self._at += 1

    async def _ask(self, rows: list[bytes]) -> None:
        keys = [object_key(Digest(row[:32].hex())) for row in rows]
        for row, info in zip(rows, await self._store.head_batch(keys), strict=True):
            if isinstance(info, SnapsyncError):
                raise info
            self._judge(row, None if info is None else info.size_bytes)
        self._at += len(rows)

    def _judge(self, row: bytes, size_bytes: int | None) -> None:
        entry = self._manifest[int.from_bytes(row[32:], "big")]
        if size_bytes is None:
            self.missing_total += 1
            if len(self._missing) < PROBLEMS_SHOWN_MAX:
                self._missing.append(entry)
        elif size_bytes != entry.size_bytes:
            self._suspects.append(entry)

    def as_missing(self, snapshot_id: SnapshotId) -> ObjectMissing:
        """Make the error that names what is missing, in the order of the paths."""
        found = sorted(self._missing, key=lambda entry: entry.path)
        first = found[0]
        return ObjectMissing(
            f"{self._store.uri} lacks {self.missing_total} of {len(self._rows)} objects of"
            f" {snapshot_id}: the first is {first.checksum} of {first.path}",
            id=snapshot_id,
            store=str(self._store.uri),
            object=first.checksum,
            path=first.path,
            problems_total=self.missing_total,
            problems=[{"object": each.checksum, "path": each.path} for each in found],
        )

    async def read_suspects(self) -> None:
        """Hash the objects of another size; raises `DigestMismatch` for the first wrong one."""
        for start in range(0, len(self._suspects), _READS_AT_ONCE):
            entries = self._suspects[start : start + _READS_AT_ONCE]
            gets = [self._read(entry) for entry in entries]
            for entry, outcome in zip(entries, await self._store.get_batch(gets), strict=True):
                if isinstance(outcome, KeyMissing):
                    raise DigestMismatch(
                        f"{self._store.uri} lacks object {entry.checksum} of {entry.path}",
                        object=entry.checksum,
                        path=entry.path,
                    ) from outcome
                if isinstance(outcome, SnapsyncError):
                    raise outcome

    def _read(self, entry: Entry) -> Get:
        sink = RehashSink(entry.checksum, entry.path, str(self._store.uri))
        return Get(object_key(entry.checksum), sink)
