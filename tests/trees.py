"""Directories to lay out, and what a directory is as a manifest: an independent reading of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from blake3 import blake3

from snapd.model.ids import Digest
from snapd.model.manifest import Entry, Manifest, directory_checksum

Files = Mapping[str, tuple[int, bytes]]
"""`a/b` -> (mode, content) of a file; `a/` -> (mode, b"") of a directory."""


def make_tree(root: Path, files: Files, *, root_mode: int = 0o755) -> Manifest:
    """Write files below `root` with exactly these modes; parents that are not named are 755."""
    root.mkdir(parents=True)
    for path, (_, content) in files.items():
        target = root / path
        if path.endswith("/"):
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    for directory, _, _ in os.walk(root):
        os.chmod(directory, 0o755)
    for path in sorted(files, key=len, reverse=True):
        os.chmod(root / path, files[path][0])
    root.chmod(root_mode)
    return manifest_of(root)


def manifest_of(root: Path) -> Manifest:
    """Read a directory without following links; anything but files and directories is an error."""
    return Manifest.from_entries(_directory(os.fsencode(root), b"./"))


def _directory(path: bytes, shown: bytes) -> list[Entry]:
    below: list[Entry] = []
    children: list[Entry] = []
    for child in sorted(os.listdir(path)):
        entries = _entry(path + b"/" + child, shown + child)
        children.append(entries[0])
        below += entries
    mode = stat.S_IMODE(os.lstat(path).st_mode)
    checksum = directory_checksum(entry.checksum for entry in children)
    size_bytes = sum(entry.size_bytes for entry in children)
    return [Entry("D", mode, checksum, size_bytes, shown.decode()), *below]


def _entry(path: bytes, shown: bytes) -> list[Entry]:
    found = os.lstat(path)
    if stat.S_ISDIR(found.st_mode):
        return _directory(path, shown + b"/")
    assert stat.S_ISREG(found.st_mode), f"neither a file nor a directory: {path!r}"
    with open(path, "rb") as file:
        digest = Digest(blake3(file.read()).hexdigest())
    return [Entry("F", stat.S_IMODE(found.st_mode), digest, found.st_size, shown.decode())]
