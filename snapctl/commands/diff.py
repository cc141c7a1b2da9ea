"""`snapctl diff`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial

import click

from snapctl.commands.id import manifest_of_any_order
from snapctl.context import Context
from snapctl.frame import config_option, store_option, verb
from snapctl.references import resolve
from snapctl.walking import WalkFlags, stat_cache_option, walk_directory, walk_options
from snapd.model.diff import Change, diff
from snapd.model.errors import (
    AccessDenied,
    ActionFailed,
    InvalidId,
    InvalidName,
    InvalidReference,
    SnapsyncError,
    UsageError,
)
from snapd.model.manifest import Manifest
from snapd.model.names import shown
from snapd.model.references import parse_id_or_reference


@verb(
    "diff",
    examples=[
        "snapctl diff ID ./dataset --store s3://datasets/imagenet",
        "snapctl diff ID1 ID2 --store s3://datasets/imagenet --json",
        "snapctl diff old.manifest ./dataset --exit-code",
        "snapctl manifest ./a | snapctl diff - ./b",
    ],
)
@click.argument("sides", metavar="FROM TO", nargs=-1, type=click.Path())
@click.option("--from", "from_side", metavar="FROM", help="The same as the first argument.")
@click.option("--to", "to_side", metavar="TO", help="The same as the last argument.")
@store_option(required=False)
@click.option("--all", "show_all", is_flag=True, help="Show equal paths too, as =.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if anything differs.")
@walk_options
@stat_cache_option
@config_option
def command(
    context: Context,
    sides: tuple[str, ...],
    from_side: str | None,
    to_side: str | None,
    store: str | None,
    show_all: bool,
    exit_code: bool,
    exclude: Sequence[str],
    no_follow: bool,
    jobs: int,
    no_stat_cache: bool,
) -> int:
    """Show what differs between two snapshots: A added, D deleted, M modified in TO.

    Each side is a directory, a file that holds a manifest, - for a manifest on standard input, or
    the ID of a snapshot in --store. Contents, modes and sizes count; of directories the mode, and
    whether there is an empty one. Only manifests are read from a store.
    """
    flags = WalkFlags(exclude, no_follow, jobs, no_stat_cache)
    old, new = [
        _load(context, side, store, flags) for side in _two_sides(sides, from_side, to_side)
    ]
    changes = diff(old, new, include_equal=show_all)
    differs = _print(context, changes)
    return 1 if exit_code and differs else 0


def _two_sides(
    sides: tuple[str, ...], from_side: str | None, to_side: str | None
) -> tuple[str, str]:
    given = list(sides)
    if from_side is not None:
        given.insert(0, from_side)
    if to_side is not None:
        given.append(to_side)
    if len(given) != 2:
        raise UsageError(f"diff compares two sides, not {len(given)}")
    if given == ["-", "-"]:
        raise UsageError("only one side can be read from standard input")
    return given[0], given[1]


def _load(context: Context, side: str, store: str | None, flags: WalkFlags) -> Manifest:
    if side == "-":
        return manifest_of_any_order(sys.stdin.buffer.read())
    if os.path.isdir(side):
        return walk_directory(context, side, flags, f"diff {side}").manifest
    if os.path.lexists(side):
        return _from_file(side)
    try:
        named = parse_id_or_reference(side)
    except (InvalidId, InvalidName, InvalidReference):
        raise UsageError(
            f"neither a directory, nor a manifest's file, ID or reference: {shown(side)}",
            hint="Compare directories, manifest files, - or, with --store, IDs and references.",
        ) from None
    if store is None:
        raise UsageError(f"{named} needs --store", hint="Say where the snapshot is.")
    snapshot_id = resolve(context, named, store, here=True)
    from snapctl.stores import with_store
    from snapd.actions.read import read_manifest

    return with_store(context, store, partial(read_manifest, snapshot_id=snapshot_id))


def _from_file(path: str) -> Manifest:
    try:
        with open(path, "rb") as file:
            return manifest_of_any_order(file.read())
    except OSError as exc:
        kind: type[SnapsyncError] = (
            AccessDenied if isinstance(exc, PermissionError) else ActionFailed
        )
        raise kind(f"cannot read the manifest {path!r}: {exc.strerror}", path=path) from exc


def _print(context: Context, changes: Iterator[Change]) -> bool:
    output = context.output
    rows = []
    differs = False
    for change in changes:
        differs = differs or change.status != "="
        row = {"status": change.status, "path": change.path}
        if output.events:
            output.event(row)
        elif output.as_json:
            rows.append(row)
        else:
            output.line(f"{change.status}\t{change.path}")
    if output.as_json and not output.events:
        output.line(json.dumps(rows, ensure_ascii=False, separators=(",", ":")))
    return differs
