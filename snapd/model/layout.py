"""Keys of a store: where objects and manifests lie, and which names are ours (format section 7)."""

from __future__ import annotations

from snapd.model.ids import Digest, SnapshotId, is_digest

OBJECTS_PREFIX = ".objects/"
MANIFESTS_PREFIX = ".manifests/"


def object_key(digest: Digest) -> str:
    """`49dc870df1de...` -> `.objects/49d/c87/0df/1de...`."""
    return OBJECTS_PREFIX + _sharded(digest)


def manifest_key(snapshot_id: SnapshotId) -> str:
    """`8a9e45413...` -> `.manifests/8a9/e45/413/...`."""
    return MANIFESTS_PREFIX + _sharded(snapshot_id)


def _sharded(name: str) -> str:
    return f"{name[0:3]}/{name[3:6]}/{name[6:9]}/{name[9:]}"


def digest_in_key(key: str, prefix: str) -> Digest | None:
    """Read the digest back from a key below `prefix`; None for any name that is not ours.

    Only four segments of 3, 3, 3 and 55 characters that join to 64 lowercase hexadecimal digits
    count; temporary files of other tools and foreign names do not.
    """
    if not key.startswith(prefix):
        return None
    segments = key[len(prefix) :].split("/")
    if [len(segment) for segment in segments] != [3, 3, 3, 55]:
        return None
    joined = "".join(segments)
    return Digest(joined) if is_digest(joined) else None
