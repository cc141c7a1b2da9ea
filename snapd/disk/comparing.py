"""Look what a checkout would find at its destination; nothing is written, not even a mode."""

from __future__ import annotations

import os
import stat
from typing import Literal

from snapd.disk.destination import Destination, look
from snapd.disk.placing import SETID, FileTask, Placing
from snapd.disk.tree_source import TreeSource
from snapd.model.checkouts import CheckoutOptions
from snapd.model.manifest import Entry


class Comparison:
    """What a checkout would find at the place of each entry, in the manifest's order."""

    def __init__(
        self, source: TreeSource, target: Destination | None, options: CheckoutOptions
    ) -> None:
        self._source = source
        self._target = target
        self._options = options
        self._placing = Placing("copy", verify=False, on_bytes=lambda _count: None)
        self._absent: bytes | None = b"" if target is None else None

    def status(self, entry: Entry) -> Literal["A", "M", ""]:
        """Tell whether an entry would be made, changed, or kept (empty)."""
        path = entry.path[2:].encode()
        if self._absent is not None and path.startswith(self._absent):
            return "A"
        self._absent = None
        assert self._target is not None, "everything is absent without a target"
        if not path:
            return _mode_differs(os.fstat(self._target.root_fd), entry.mode)
        head, separator, name = path.rstrip(b"/").rpartition(b"/")
        directory_fd = self._target.at(head + separator)
        existing = look(directory_fd, name)
        if entry.kind == "D":
            return self._directory_status(path, existing, entry.mode)
        if existing is None:
            return "A"
        mode = entry.mode if self._options.keep_setid else entry.mode & ~SETID
        task = FileTask(
            entry.path,
            name,
            mode,
            entry.checksum,
            self._source.at(head + separator),
            directory_fd,
            existing,
        )
        return self._file_status(task, existing)

    def _directory_status(
        self, path: bytes, existing: os.stat_result | None, mode: int
    ) -> Literal["A", "M", ""]:
        if existing is None:
            self._absent = path
            return "A"
        if not stat.S_ISDIR(existing.st_mode):
            self._absent = path
            return "M"
        return _mode_differs(existing, mode)

    def _file_status(self, task: FileTask, existing: os.stat_result) -> Literal["M", ""]:
        source = os.stat(task.name, dir_fd=task.source_dir_fd, follow_symlinks=False)
        if self._options.mode == "hardlink" and task.mode <= 0o777:
            return "" if os.path.samestat(source, existing) else "M"
        if not self._placing.keeps(task, source.st_size, repair=False):
            return "M"
        return _mode_differs(existing, task.mode)


def _mode_differs(found: os.stat_result, mode: int) -> Literal["M", ""]:
    return "" if found.st_mode & 0o7777 == mode else "M"
