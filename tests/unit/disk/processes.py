"""Which processes this one has started: servers that other tests share may be among them."""

from __future__ import annotations

import os
from pathlib import Path


def children() -> set[int]:
    """Give the process IDs of this process's children, those that ended unwaited for included."""
    own = str(os.getpid())
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[1] == own:
            found.add(int(stat.parent.name))
    return found
