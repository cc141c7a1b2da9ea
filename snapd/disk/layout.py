"""The version of a state directory: an older one is brought up to date, a newer one is refused.

The version is raised only for a change after which an older program would do harm: whatever an
older program may leave aside (a new directory, a new table) is made when it is missing, so that a
node can go back to the former version.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from snapd.disk import fsops
from snapd.disk.staging import find_leftovers
from snapd.model.errors import CacheUnusable

logger = logging.getLogger(__name__)

LAYOUT_VERSION = 1

Migration = Callable[[Path], None]
"""Turns a directory of one version into one of the next. Dying in it is followed by it again."""

MIGRATIONS: Mapping[int, Migration] = MappingProxyType({})
"""The step that leads on from each older version."""


def read_version(root: Path) -> int | None:
    """Read the version of a state directory; None if it has none yet.

    Raises `OSError` if that can't be read, `CacheUnusable` if it is no number.
    """
    try:
        text = (root / "version").read_text(encoding="ascii", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not text.isdecimal():
        raise CacheUnusable(
            f"{root} has the layout version {text[:40]!r}, which is none",
            hint="Choose an empty or a new directory, or put the right version back.",
            directory=os.fspath(root),
        )
    return int(text)


def write_version(root: Path, version: int) -> None:
    """Write the version down, durable when it returns."""
    new = root / "version.new"
    with open(new, "w", encoding="ascii") as target:
        target.write(f"{version}\n")
        target.flush()
        fsops.fsync(target.fileno())
    new.replace(root / "version")
    fsops.fsync_directory(root)


def bring_up_to_date(
    root: Path,
    version: int,
    *,
    target: int = LAYOUT_VERSION,
    migrations: Mapping[int, Migration] = MIGRATIONS,
) -> None:
    """Lead an older state directory on, step by step; each is durable before the next begins.

    The caller holds the opening lock. Raises `CacheUnusable` for a newer version, for an older one
    that nothing leads on from, and while a process of the older version has the directory open.
    """
    if version == target:
        return
    if version > target:
        raise CacheUnusable(
            f"{root} has the layout version {version}; this program knows {target}",
            hint="Use the newer snapsync that wrote it, or another cache directory.",
            directory=os.fspath(root),
        )
    _refuse_if_open(root, version)
    for step in range(version, target):
        migrate = migrations.get(step)
        if migrate is None:
            raise CacheUnusable(
                f"{root} has the layout version {step}, which this program can't bring up to date",
                hint="Start the release in between once, or choose another cache directory.",
                directory=os.fspath(root),
            )
        logger.info("the state directory goes from layout version %d to %d", step, step + 1)
        migrate(root)
        fd = os.open(root, fsops.DIRECTORY)
        try:
            fsops.syncfs(fd)
        finally:
            os.close(fd)
        write_version(root, step + 1)


def _refuse_if_open(root: Path, version: int) -> None:
    staging = root / "staging"
    if not staging.is_dir():
        return
    dead = list(find_leftovers(staging))
    for left in dead:
        left.close()
    alive = sum(entry.is_dir(follow_symlinks=False) for entry in os.scandir(staging)) - len(dead)
    if alive:
        raise CacheUnusable(
            f"{root} is of layout version {version} and {alive} older processes have it open",
            hint="Stop the older daemon and standalone pulls first, then start this one.",
            directory=os.fspath(root),
        )
