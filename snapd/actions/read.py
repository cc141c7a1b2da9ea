"""Read a snapshot's manifest from a store."""

from __future__ import annotations

from functools import partial

from anyio import to_thread

from snapd.model.errors import KeyMissing, ManifestRefused, SnapshotNotFound, StoreFailing
from snapd.model.ids import SnapshotId
from snapd.model.layout import manifest_key
from snapd.model.manifest import Manifest
from snapd.model.units import format_size
from snapd.remote.base import RemoteStore

MANIFEST_LIMIT_BYTES = 1024**3
"""A longer manifest is not read: about seven million files with paths of usual length."""


async def read_manifest(store: RemoteStore, snapshot_id: SnapshotId) -> Manifest:
    """Read and check a manifest.

    Raises `SnapshotNotFound` if the store has none of that ID, `DigestMismatch` or
    `ManifestRefused` if it is not what the ID names.
    """
    try:
        text = await read_manifest_text(store, snapshot_id)
    except KeyMissing as exc:
        raise SnapshotNotFound(
            f"{store.uri} has no snapshot {snapshot_id}", id=snapshot_id, store=str(store.uri)
        ) from exc
    return await to_thread.run_sync(partial(Manifest.parse, text, expected_id=snapshot_id))


async def read_manifest_text(store: RemoteStore, snapshot_id: SnapshotId) -> bytes:
    """Read what a store has as a manifest, unchecked but for its length.

    Raises `KeyMissing`, the store's error, or `ManifestRefused` if it is too long.
    """
    try:
        document = await store.get(manifest_key(snapshot_id), limit_bytes=MANIFEST_LIMIT_BYTES)
    except StoreFailing as exc:
        if "limit_bytes" not in exc.details:
            raise
        raise _too_long(f"the manifest of {snapshot_id} in {store.uri}") from exc
    return document.data


def refuse_too_long(manifest: Manifest) -> None:
    """Raise `ManifestRefused` for a manifest that nobody would read."""
    if len(manifest.text) > MANIFEST_LIMIT_BYTES:
        raise _too_long("the manifest of this directory")


def _too_long(which: str) -> ManifestRefused:
    return ManifestRefused(
        f"{which} is longer than {format_size(MANIFEST_LIMIT_BYTES)}, the most that is read",
        hint="Make several snapshots of fewer files; do not trust an ID that came from elsewhere.",
        limit_bytes=MANIFEST_LIMIT_BYTES,
    )
