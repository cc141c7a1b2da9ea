"""Where a content occurs in a snapshot, found in the manifest's bytes without reading it whole."""

from __future__ import annotations

from typing import NamedTuple

from snapd.model.ids import Digest


class Occurrence(NamedTuple):
    """A file, or a directory with all that is below it, that has the content."""

    kind: str
    path: str


def occurrences(text: bytes, digest: Digest, limit: int) -> tuple[list[Occurrence], bool]:
    """Find the first lines of a manifest that have a checksum; tell whether there are more.

    A directory's checksum is of the contents below it alone, whatever they are called.
    """
    found: list[Occurrence] = []
    needle = f" {digest} ".encode()
    position = text.find(needle)
    while position >= 0:
        begin = text.rfind(b"\n", 0, position) + 1
        end = text.find(b"\n", position)
        line = text[begin : len(text) if end < 0 else end]
        kind, _, checksum, _, path = (line.split(b" ", 4) + [b""] * 5)[:5]
        # A name may look like the middle of a line.
        if checksum == needle.strip():
            if len(found) == limit:
                return found, True
            found.append(
                Occurrence(kind.decode("ascii", "replace"), path.decode("utf-8", "surrogateescape"))
            )
        position = text.find(needle, position + len(needle) if end < 0 else end)
    return found, False
