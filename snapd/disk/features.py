"""What the file system below a directory can do, found out by trying."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from snapd.disk import fsops
from snapd.disk.seal import why_unsealable


class Features(NamedTuple):
    """What works in a directory; `unsealable` says why fs-verity does not, or nothing."""

    hard_links: bool
    unnamed_files: bool
    reflinks: bool
    unsealable: str


def try_features(directory: Path) -> Features:
    """Try everything in a directory of its own below `directory`, which is removed again.

    Raises `OSError` if nothing can be written there.
    """
    with tempfile.TemporaryDirectory(prefix="doctor-", dir=directory) as place:
        fd = os.open(place, fsops.DIRECTORY)
        try:
            unnamed = fsops.can_link_unnamed(fd, "unnamed")
            return Features(_links(place), unnamed, _reflinks(place), why_unsealable(fd, "seal"))
        finally:
            os.close(fd)


def _links(place: str) -> bool:
    first, second = os.path.join(place, "first"), os.path.join(place, "second")
    Path(first).write_bytes(b"x")
    try:
        os.link(first, second)
    except OSError:
        return False
    return True


def _reflinks(place: str) -> bool:
    # A whole block: some file systems share nothing smaller.
    source = os.path.join(place, "source")
    Path(source).write_bytes(bytes(4096))
    with open(source, "rb") as one, open(os.path.join(place, "clone"), "wb") as other:
        return fsops.reflink(one.fileno(), other.fileno())


def kind_of(directory: Path) -> str:
    """Name the type of the file system that a directory is on, as in `ext4`; empty if unknown."""
    best, kind = "", ""
    with suppress(OSError):
        where = os.path.realpath(directory)
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            left, _, right = line.partition(" - ")
            point = left.split(" ")[4].encode().decode("unicode_escape")
            inside = where == point or where.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, right.split(" ")[0]
    return kind
