"""`snapctl manifest`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import click

from snapctl.context import Context
from snapctl.frame import verb
from snapctl.walking import WalkFlags, stat_cache_option, walk_directory, walk_options
from snapd.disk.walk import WalkedTree


@verb(
    "manifest",
    examples=[
        "snapctl manifest ./dataset > dataset.manifest",
        "snapctl manifest ./dataset --absolute --exclude %common%",
    ],
)
@click.argument("path", default=".", type=click.Path())
@click.option(
    "--absolute", is_flag=True, help="Show absolute paths; such a text is no snapshot any more."
)
@walk_options
@stat_cache_option
def command(
    context: Context,
    path: str,
    absolute: bool,
    exclude: Sequence[str],
    no_follow: bool,
    jobs: int,
    no_stat_cache: bool,
) -> None:
    """Print the manifest of the directory PATH, which is the working directory by default.

    One line for each file and directory: type, mode, checksum, size and path.
    """
    tree = walk_directory(
        context, path, WalkFlags(exclude, no_follow, jobs, no_stat_cache), "manifest"
    )
    if context.output.as_json:
        entries = [
            {
                "type": entry.kind,
                "mode": f"{entry.mode:o}",
                "checksum": entry.checksum,
                "size_bytes": entry.size_bytes,
                "path": _absolute(tree, entry.path) if absolute else entry.path,
            }
            for entry in tree.manifest
        ]
        context.output.print_json({"id": tree.manifest.id, "entries": entries})
        return
    # Bytes: the text is UTF-8 whatever the terminal's encoding is.
    stdout = sys.stdout.buffer
    if absolute:
        stdout.writelines(_absolute_lines(tree))
    else:
        stdout.write(tree.manifest.text)
    stdout.flush()


def _absolute(tree: WalkedTree, path: str) -> str:
    return f"{tree.root.rstrip('/')}/{path[2:]}"


def _absolute_lines(tree: WalkedTree) -> Iterator[bytes]:
    for kind, mode, checksum, size_bytes, path in tree.manifest:
        line = f"{kind} {mode:o} {checksum} {size_bytes} {_absolute(tree, path)}\n"
        yield line.encode("utf-8", "surrogateescape")
