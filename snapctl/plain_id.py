"""`snapctl id DIRECTORY`, maybe with `--no-stat-cache`, as scripts ask for it.

It is done before the machinery of options is loaded, which takes longer than many a directory. It
prints what the command prints; whatever else there is to say, the command line says it.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from snapctl.process import prepare
from snapd.disk.stat_cache import default_directory
from snapd.disk.tree_hash import TreeHash, absolute_path, open_root

if TYPE_CHECKING:
    from collections.abc import Mapping

_DISTRUST = "--no-stat-cache"
_QUIET_SECONDS = 1.0


class PlainId(NamedTuple):
    """What was asked for."""

    directory: str
    has_stat_cache: bool


def plain_id(arguments: list[str], environment: Mapping[str, str]) -> PlainId | None:
    """Read the arguments; None if there is anything in them that needs the command line."""
    if arguments[:1] != ["id"] or "_SNAPCTL_COMPLETE" in environment:
        return None
    words = [argument for argument in arguments[1:] if argument != _DISTRUST]
    if len(words) != 1 or not words[0] or words[0].startswith("-"):
        return None
    return PlainId(words[0], has_stat_cache=len(arguments) == 2)


def run_plain_id(asked: PlainId, environment: Mapping[str, str]) -> int | None:
    """Print the ID of a directory, and give the exit code; None if it could not be printed."""
    prepare()
    try:
        with ExitStack() as stack:
            snapshot_id = _identify(asked, environment, stack)
    except BaseException as failure:  # noqa: BLE001 - the command line tells it
        from snapctl.__main__ import explain
        from snapctl.context import Context

        return explain(failure, Context(environment=environment), ["id", asked.directory])
    try:
        # Nothing of it stays in a buffer if it fails.
        os.write(sys.stdout.fileno(), f"{snapshot_id}\n".encode())
    except OSError:
        return None
    return 0


def _identify(asked: PlainId, environment: Mapping[str, str], stack: ExitStack) -> str:
    started_at = time.monotonic()
    meters: list[Any] = []

    def on_progress(listed: int, files_total: int, files_hashed: int, bytes_hashed: int) -> None:
        if time.monotonic() - started_at < _QUIET_SECONDS:
            return
        from snapctl.walking import describe_walk
        from snapd.disk.walk import WalkProgress

        if not meters:
            from snapctl.context import Context
            from snapctl.progress import meter_of

            output = Context(environment=environment).output
            meters.append(stack.enter_context(meter_of(output, time.monotonic)))
        progress = WalkProgress(listed, files_total, files_hashed, bytes_hashed)
        text = describe_walk(progress)
        meters[0].show("id", text, done=files_hashed, total=files_total or None)

    path = absolute_path(asked.directory)
    root_fd, root_mode = open_root(path)
    try:
        tree = TreeHash(
            path,
            root_fd,
            root_mode,
            follow=True,
            excludes=None,
            jobs=0,
            stat_cache_dir=default_directory(environment) if asked.has_stat_cache else None,
            on_progress=on_progress,
        )
        return tree.summary().snapshot_id
    finally:
        os.close(root_fd)
