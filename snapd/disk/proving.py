"""Prove that a tree is its manifest now: every name, mode and byte of it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from snapd.disk import fsops
from snapd.disk.publishing import PERMISSION_BITS, hash_file
from snapd.disk.trees import DIRECTORY_BITS, Trees
from snapd.model.care import ProblemKind, ProofProgress, TreeProblem
from snapd.model.manifest import Entry, Manifest

OnProgress = Callable[[ProofProgress], None]
"""Told now and then; may raise to stop."""


def prove_tree(trees: Trees, manifest: Manifest, on_progress: OnProgress) -> list[TreeProblem]:
    """Read a tree whole and list what is wrong with it, in the order of the manifest.

    A file with several names is read once. Nothing is written. Raises for what can't be read for
    want of permission.
    """
    with fsops.translated(f"can't read the tree of {manifest.id}", trees.root):
        with _Walk(manifest, trees.root / manifest.id, on_progress) as walk:
            walk.run()
        return walk.problems


class _Walk:
    """Goes through manifest and tree side by side; one directory is open at a time."""

    def __init__(self, manifest: Manifest, root: os.PathLike[str], on_progress: OnProgress) -> None:
        self.problems: list[TreeProblem] = []
        self._manifest = manifest
        self._on_progress = on_progress
        self._prefix = "./"
        self._fd = os.open(root, fsops.DIRECTORY)
        self._extra = set(os.listdir(self._fd))
        self._above: list[tuple[str, set[str]]] = []
        self._lost = ""
        self._files = self._bytes = 0
        self._right: set[tuple[int, str]] = set()

    def __enter__(self) -> _Walk:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def run(self) -> None:
        """Compare entry by entry."""
        entries = iter(self._manifest)
        self._check_directory(next(entries))
        for entry in entries:
            if self._lost and entry.path.startswith(self._lost):
                self._blame(entry, "missing")
                continue
            self._lost = ""
            while not entry.path.startswith(self._prefix):
                self._ascend()
            name = entry.path[len(self._prefix) :].rstrip("/")
            self._extra.discard(name)
            if entry.kind == "D":
                self._descend(entry, name)
            else:
                self._check_file(entry, name)
        while self._above:
            self._ascend()
        self._tell_extra()
        self._tell()

    def _descend(self, entry: Entry, name: str) -> None:
        try:
            fd = os.open(name, fsops.DIRECTORY, dir_fd=self._fd)
        except FileNotFoundError:
            self._lose(entry, "missing")
            return
        except OSError as exc:
            if exc.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            self._lose(entry, "type")
            return
        self._above.append((self._prefix, self._extra))
        self._prefix = entry.path
        self._move_to(fd)
        self._extra = set(os.listdir(fd))
        self._check_directory(entry)

    def _ascend(self) -> None:
        self._tell_extra()
        self._prefix, self._extra = self._above.pop()
        self._move_to(os.open("..", fsops.DIRECTORY, dir_fd=self._fd))

    def _move_to(self, fd: int) -> None:
        os.close(self._fd)
        self._fd = fd

    def _check_directory(self, entry: Entry) -> None:
        if os.fstat(self._fd).st_mode & 0o7777 != entry.mode & DIRECTORY_BITS:
            self._blame(entry, "mode")

    def _check_file(self, entry: Entry, name: str) -> None:
        self._files += 1
        try:
            found = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            self._blame(entry, "missing")
            return
        if not stat.S_ISREG(found.st_mode):
            self._blame(entry, "type")
            return
        if found.st_mode & 0o7777 != entry.mode & PERMISSION_BITS:
            self._blame(entry, "mode")
        known = (found.st_ino, entry.checksum)
        if known not in self._right:
            if not self._hashes_to(entry, name):
                self._blame(entry, "bytes")
                return
            self._right.add(known)
        self._bytes += found.st_size
        self._tell()

    def _hashes_to(self, entry: Entry, name: str) -> bool:
        fd = fsops.open_own_file(name, self._fd)
        try:
            return hash_file(fd, self._tell) == entry.checksum
        except OSError as exc:
            if exc.errno != errno.EIO:
                raise
            return False
        finally:
            os.close(fd)

    def _lose(self, entry: Entry, kind: ProblemKind) -> None:
        """Take note of a directory that can't be entered, with all below it."""
        self._blame(entry, kind)
        self._lost = entry.path

    def _blame(self, entry: Entry, kind: ProblemKind) -> None:
        content = entry.checksum if entry.kind == "F" else ""
        self.problems.append(TreeProblem(entry.path, kind, content, entry.mode))

    def _tell_extra(self) -> None:
        for name in sorted(self._extra):
            shown = os.fsencode(name).decode("utf-8", "replace")
            self.problems.append(TreeProblem(f"{self._prefix}{shown}", "extra"))

    def _tell(self) -> None:
        manifest = self._manifest
        self._on_progress(
            ProofProgress(self._files, manifest.file_count, self._bytes, manifest.total_bytes)
        )
