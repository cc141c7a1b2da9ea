"""Which caches of this node a command may find a snapshot in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from snapctl.context import Context
from snapd.model.errors import DaemonNotRunning, SnapsyncError, UsageError


def cache_directories(context: Context, chosen: str | None) -> Iterator[Path]:
    """Yield state directories, best first: the chosen one alone, else the daemon's, then the own.

    A daemon that does not run, or that the caller may not ask, has none to offer.
    """
    if chosen:
        yield Path(chosen).absolute()
        return
    daemons = _of_daemon(context)
    if daemons is not None:
        yield daemons
    own = _of_user(context)
    if own is not None and own != daemons:
        yield own


def tree_directories(context: Context, chosen: str | None) -> Iterator[Path]:
    """Yield directories of trees in the same order; the daemon's as this process sees it."""
    mapped = context.mapped_trees()
    if mapped and not chosen:
        yield Path(mapped)
    for state_directory in cache_directories(context, chosen):
        yield state_directory / "trees"


def _of_daemon(context: Context) -> Path | None:
    try:
        return Path(context.client().status()["state_directory"])
    except DaemonNotRunning:
        return None
    except SnapsyncError as error:
        context.output.note(f"{error.message}; looking into your own cache")
        return None


def _of_user(context: Context) -> Path | None:
    from snapctl.engine import cache_directory

    try:
        return cache_directory(context, context.settings(), None)
    except UsageError:
        return None
