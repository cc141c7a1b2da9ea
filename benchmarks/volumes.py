"""File systems in a file, mounted by loop, for what the scratch's own cannot do."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class Unavailable(Exception):
    """This machine cannot mount such a volume; the message says why."""


@dataclass(frozen=True)
class Kind:
    """A file system, what makes it and how it is mounted."""

    name: str
    maker: tuple[str, ...]
    options: str
    package: str


XFS = Kind("xfs", ("mkfs.xfs", "-q"), "loop", "xfsprogs")
BTRFS_COMPRESSED = Kind("btrfs", ("mkfs.btrfs", "-q"), "loop,compress=zstd:1", "btrfs-progs")


@contextmanager
def mounted(room: Path, kind: Kind, size_bytes: int) -> Iterator[Path]:
    """Mount a new volume below `room`, which takes only the room that its files take."""
    maker = shutil.which(kind.maker[0], path="/usr/sbin:/sbin:/usr/bin")
    if maker is None:
        raise Unavailable(f"needs {kind.maker[0]}: apt-get install {kind.package}")
    image, at = room / f"{kind.name}.img", room / kind.name
    with image.open("wb") as file:
        file.truncate(size_bytes)
    at.mkdir()
    _run([maker, *kind.maker[1:], str(image)])
    _run(["mount", "-t", kind.name, "-o", kind.options, str(image), str(at)])
    try:
        yield at
    finally:
        _run(["umount", str(at)])
        image.unlink()


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"{' '.join(command[:3])} failed: {done.stderr.strip()}")
