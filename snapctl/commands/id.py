"""`snapctl id`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from snapctl.context import Context
from snapctl.frame import verb
from snapctl.walking import WalkFlags, stat_cache_option, walk_directory, walk_options
from snapd.model.errors import ManifestRefused, UsageError
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
def command(
    context: Context,
    path: str | None,
    exclude: Sequence[str],
    no_follow: bool,
    jobs: int,
    no_stat_cache: bool,
) -> None:
    """Print the snapshot ID of the directory PATH, or of a manifest on standard input.

    Nothing is written anywhere. The ID covers names, contents, modes and sizes, but no owners and
    no times.
    """
    if path is None:
        manifest = _from_stdin()
    else:
        flags = WalkFlags(exclude, no_follow, jobs, no_stat_cache)
        manifest = walk_directory(context, path, flags, "id").manifest
    if context.output.as_json:
        context.output.print_json(
            {
                "id": manifest.id,
                "files": manifest.file_count,
                "directories": manifest.directory_count,
                "size_bytes": manifest.total_bytes,
            }
        )
    else:
        context.output.line(manifest.id)


def _from_stdin() -> Manifest:
    stdin = sys.stdin.buffer
    if stdin.isatty():
        raise UsageError(
            "no PATH, and standard input is a terminal",
            hint="Name a directory, or pipe a manifest in.",
        )
    return manifest_of_any_order(stdin.read())


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
