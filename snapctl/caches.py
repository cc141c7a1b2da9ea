"""Which caches of this node a command may find a snapshot in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from snapctl.context import Context
from snapd.model.errors import DaemonNotRunning, SnapsyncError, UsageError


class PlaceOfTrees(NamedTuple):
    """A directory of trees, as this process sees it, and whether they are the daemon's."""

    directory: Path
    is_daemons: bool | None
    """None: that was not asked yet."""


def cache_directories(context: Context, chosen: str | None) -> Iterator[Path]:
    """Yield state directories, best first: the chosen one alone, else the daemon's, then the own.

    A daemon that does not run, or that the caller may not ask, has none to offer.
    """
    for place in _places(context, chosen):
        yield place.directory.parent


def tree_directories(context: Context, chosen: str | None) -> Iterator[Path]:
    """Yield directories of trees in the same order; the daemon's as this process sees it."""
    for place in places_of_trees(context, chosen):
        yield place.directory


def places_of_trees(context: Context, chosen: str | None) -> Iterator[PlaceOfTrees]:
    """Yield the same with what is known of them, so that the daemon is asked once only."""
    mapped = context.mapped_trees()
    if mapped and not chosen:
        yield PlaceOfTrees(Path(mapped), is_daemons=None)
    yield from _places(context, chosen)


def _places(context: Context, chosen: str | None) -> Iterator[PlaceOfTrees]:
    if chosen:
        yield PlaceOfTrees(Path(chosen).absolute() / "trees", is_daemons=None)
        return
    daemons = _of_daemon(context)
    if daemons is not None:
        yield daemons
    own = _of_user(context)
    if own is not None and (daemons is None or own / "trees" != daemons.directory):
        yield PlaceOfTrees(own / "trees", is_daemons=False if daemons is None else None)


def _of_daemon(context: Context) -> PlaceOfTrees | None:
    try:
        status = context.client().status()
    except DaemonNotRunning:
        return None
    except SnapsyncError as error:
        context.output.note(f"{error.message}; looking into your own cache")
        return None
    directory = Path(status["state_directory"]) / "trees"
    is_daemons = str(directory) == status.get("trees_directory") and not context.mapped_trees()
    return PlaceOfTrees(directory, is_daemons=True if is_daemons else None)


def _of_user(context: Context) -> Path | None:
    try:
        return own_cache_directory(context, None)
    except UsageError:
        return None


def own_cache_directory(context: Context, cache_dir: str | None) -> Path:
    """Choose the cache of a standalone run: the flag's, `--config`'s, the user's own."""
    chosen = cache_dir or (context.settings().cache.directory if context.config else "")
    if chosen:
        return Path(chosen).absolute()
    for variable, below in (("XDG_CACHE_HOME", "snapsync"), ("HOME", ".cache/snapsync")):
        base = context.environment.get(variable, "")
        if base.startswith("/"):
            return Path(base) / below
    raise UsageError("no cache directory: HOME is not set", hint="Name one with --cache-dir.")
