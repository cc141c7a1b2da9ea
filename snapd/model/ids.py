"""Snapshot IDs and object digests: 64 lowercase hexadecimal digits of a BLAKE3 hash."""

from __future__ import annotations

import re
from typing import NewType

from blake3 import blake3

from snapd.model.errors import InvalidId

SnapshotId = NewType("SnapshotId", str)
Digest = NewType("Digest", str)

EMPTY_DIGEST = Digest("af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262")

_HEX64 = re.compile(r"[0-9a-f]{64}", re.ASCII)


def is_digest(text: str) -> bool:
    """Tell whether `text` is exactly 64 lowercase hexadecimal digits."""
    return _HEX64.fullmatch(text) is not None


def parse_snapshot_id(text: str) -> SnapshotId:
    """Read an ID that a person or a program gave; upper case is accepted and lowered.

    Raises `InvalidId` naming the text otherwise.
    """
    lowered = text.strip().lower()
    if not is_digest(lowered):
        shown = text if len(text) <= 80 else f"{text[:77]}..."
        raise InvalidId(f"not a snapshot ID: {shown!r} ({len(text.strip())} characters)")
    return SnapshotId(lowered)


def digest_of(data: bytes | bytearray | memoryview) -> Digest:
    """Hash bytes at hand, on the calling thread."""
    return Digest(blake3(data).hexdigest())
