"""Read a snapshot's manifest from a store."""

from __future__ import annotations

from functools import partial

from anyio import to_thread

from snapd.model.errors import KeyMissing, SnapshotNotFound
from snapd.model.ids import SnapshotId
from snapd.model.layout import manifest_key
from snapd.model.manifest import Manifest
from snapd.remote.base import RemoteStore

MANIFEST_LIMIT_BYTES = 4 * 1024**3


async def read_manifest(store: RemoteStore, snapshot_id: SnapshotId) -> Manifest:
    """Read and check a manifest.

    Raises `SnapshotNotFound` if the store has none of that ID, `DigestMismatch` or
    `ManifestRefused` if it is not what the ID names.
    """
    try:
        document = await store.get(manifest_key(snapshot_id), limit_bytes=MANIFEST_LIMIT_BYTES)
    except KeyMissing as exc:
        raise SnapshotNotFound(
            f"{store.uri} has no snapshot {snapshot_id}", id=snapshot_id, store=str(store.uri)
        ) from exc
    return await to_thread.run_sync(partial(Manifest.parse, document.data, expected_id=snapshot_id))
