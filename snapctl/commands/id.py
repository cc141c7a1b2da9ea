"""`snapctl id`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from snapctl.context import Context
from snapctl.frame import verb
from snapctl.walking import WalkFlags, identify_directory, stat_cache_option, walk_options
from snapd.disk.stat_cache import Summary
from snapd.model.errors import ManifestRefused, UsageError
from snapd.model.ids import SnapshotId
from snapd.model.manifest import Manifest


@verb(
    "id",
    examples=[
        "snapctl id ./dataset",
        "snapctl id ./dataset --exclude '\\.tmp$' --no-follow",
        "snapctl manifest ./dataset | snapctl id",
    ],
)
@click.argument("path", required=False, type=click.Path())
@walk_options
@stat_cache_option
@click.option(
    "--catalog",
    metavar="NAME|FILE",
    help="Note the ID in a record of your own, which `snapctl revisions --location PATH` reads.",
)
def command(
    context: Context,
    path: str | None,
    exclude: Sequence[str],
    no_follow: bool,
    jobs: int,
    no_stat_cache: bool,
    catalog: str | None,
) -> None:
    """Print the snapshot ID of the directory PATH, or of a manifest on standard input.

    The ID covers names, contents, modes and sizes, but no owners and no times. What files hashed to
    is remembered in your own cache, so that they are not read again while they look the same.
    """
    if path is None:
        print_summary(context, _from_stdin())
    else:
        flags = WalkFlags(exclude, no_follow, jobs, no_stat_cache)
        summary = identify_directory(context, path, flags, "id")
        if catalog is not None:
            from snapctl.catalog import Catalog, record_directory

            chosen = Catalog.chosen(context, catalog)
            record_directory(context, chosen, path, SnapshotId(summary.snapshot_id))
        print_summary(context, summary)


def print_summary(context: Context, summary: Summary) -> None:
    """Print the ID, or as JSON also how big it is."""
    if context.output.as_json:
        context.output.print_json(
            {
                "id": summary.snapshot_id,
                "files": summary.files,
                "directories": summary.directories,
                "size_bytes": summary.size_bytes,
            }
        )
    else:
        context.output.line(summary.snapshot_id)


def _from_stdin() -> Summary:
    stdin = sys.stdin.buffer
    if stdin.isatty():
        raise UsageError(
            "no PATH, and standard input is a terminal",
            hint="Name a directory, or pipe a manifest in.",
        )
    manifest = manifest_of_any_order(stdin.read())
    return Summary(manifest.id, manifest.file_count, manifest.directory_count, manifest.total_bytes)


def manifest_of_any_order(raw: bytes) -> Manifest:
    """Read a manifest whose lines may be in any order; otherwise as strict as from a store."""
    try:
        return Manifest.parse(raw)
    except ManifestRefused as refused:
        lines = [line for line in raw.split(b"\n") if line and not line.startswith(b"#")]
        lines.sort(key=lambda line: line.split(b" ", 4)[-1])
        try:
            return Manifest.parse(b"".join(line + b"\n" for line in lines))
        except ManifestRefused:
            raise refused from None
