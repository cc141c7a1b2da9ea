"""What a pull needs of a manifest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from snapd.model.ids import Digest
from snapd.model.manifest import Manifest


class ObjectRef(NamedTuple):
    """One object as a manifest refers to it; `path` is one of its paths, for messages."""

    digest: Digest
    mode: int
    size_bytes: int
    path: str


def refs(manifest: Manifest, indexes: Iterable[int]) -> Iterator[ObjectRef]:
    """Make a reference of each line that `indexes` names, as `distinct_objects` tells them."""
    for index in indexes:
        _, mode, checksum, size_bytes, path = manifest[index]
        yield ObjectRef(checksum, mode, size_bytes, path)
