"""What the commands share that read a directory: options, patterns, and how it is shown."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from snapctl.context import Context
from snapd.disk.stat_cache import Summary, default_directory
from snapd.disk.walk import WalkedTree, WalkOptions, WalkProgress, identify, walk
from snapd.model.exclude import Excludes
from snapd.model.places import default_places
from snapd.model.units import format_size

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

_QUIET_SECONDS = 1.0
_CLOSING = {"(": ")", "[": "]", "{": "}"}


class WalkFlags(NamedTuple):
    """The walk's options as they were typed."""

    exclude: Sequence[str]
    no_follow: bool
    jobs: int
    no_stat_cache: bool = True

    def options(self, context: Context, *, sha256: bool = False) -> WalkOptions:
        """Compile them; raises `InvalidPattern`."""
        patterns = [part for value in self.exclude for part in split_patterns(value)]
        excludes = None
        if patterns:
            places = default_places(context.environment, uid=os.getuid())
            home = context.environment.get("HOME", "/")
            excludes = Excludes.compile(patterns, home=home, cache_dir=str(places.cache_dir))
        return WalkOptions(
            follow=not self.no_follow,
            excludes=excludes,
            jobs=self.jobs,
            stat_cache_dir=None if self.no_stat_cache else default_directory(context.environment),
            sha256=sha256,
        )


def stat_cache_option(decorated: Decorated) -> Decorated:
    """Add `--no-stat-cache` to a command with `walk_options` that need not read what it knows."""
    return click.option(
        "--no-stat-cache",
        is_flag=True,
        help="Read every file, also those that look as they did when they were last hashed.",
    )(decorated)


def walk_options(decorated: Decorated) -> Decorated:
    """Add `--exclude`, `--no-follow` and `--jobs`; the parameters make up `WalkFlags`."""
    for option in (
        click.option(
            "--jobs",
            metavar="N",
            type=click.IntRange(0, 64),
            default=0,
            help="Processes that hash many small files; 0: one a processor, at most 16.",
        ),
        click.option("--no-follow", is_flag=True, help="Leave symbolic links out."),
        click.option(
            "--exclude",
            metavar="PATTERN",
            multiple=True,
            help="Leave out what has a match in its absolute path; a regular expression, %common% "
            "or %system%. Repeatable, or separated by commas.",
        ),
    ):
        decorated = option(decorated)
    return decorated


def split_patterns(value: str) -> list[str]:
    r"""Split at commas, but not inside brackets: `a{1,2},b` -> `a{1,2}` and `b`; `\,` is kept."""
    parts, start, closing = [], 0, ""
    escaped = False
    for index, character in enumerate(value):
        if escaped or character == "\\":
            escaped = not escaped
        elif closing and character == closing[-1]:
            closing = closing[:-1]
        elif character in _CLOSING and not closing.endswith("]"):
            closing += _CLOSING[character]
        elif character == "," and not closing:
            parts.append(value[start:index])
            start = index + 1
    return [part for part in (*parts, value[start:]) if part]


ShowProgress = Callable[[str, int, int], None]


@contextmanager
def late_meter(context: Context, name: str) -> Iterator[ShowProgress]:
    """Give a function (text, done, total) that shows progress, but only of what takes a while."""
    started_at = time.monotonic()
    with ExitStack() as stack:
        meters: list[Any] = []

        def show(text: str, done: int, total: int) -> None:
            if time.monotonic() - started_at < _QUIET_SECONDS:
                return
            if not meters:
                from snapctl.progress import meter_of

                meters.append(stack.enter_context(meter_of(context.output, time.monotonic)))
            meters[0].show(name, text, done=done, total=total or None)

        yield show


@contextmanager
def walk_meter(context: Context, name: str) -> Iterator[Callable[[WalkProgress], None]]:
    """Give a function that shows how far a walk is, if it takes a while."""
    with late_meter(context, name) as show:

        def on_progress(progress: WalkProgress) -> None:
            show(describe_walk(progress), progress.files_hashed, progress.files_total)

        yield on_progress


def walk_directory(context: Context, source: str, flags: WalkFlags, name: str) -> WalkedTree:
    """Walk with the progress shown."""
    with walk_meter(context, name) as on_progress:
        return walk(Path(source), flags.options(context), on_progress)


def identify_directory(context: Context, source: str, flags: WalkFlags, name: str) -> Summary:
    """Tell the ID of a directory, with the progress shown."""
    with walk_meter(context, name) as on_progress:
        return identify(Path(source), flags.options(context), on_progress)


def describe_walk(progress: WalkProgress) -> str:
    """`hashed 34 of 200 files, 3.0 MiB`."""
    if not progress.files_total:
        return f"found {progress.entries_listed} files and directories"
    hashed = format_size(progress.bytes_hashed)
    return f"hashed {progress.files_hashed} of {progress.files_total} files, {hashed}"
