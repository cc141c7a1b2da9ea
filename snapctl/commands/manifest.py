"""`snapctl manifest`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import click

from snapctl.context import Context
from snapctl.frame import cache_dir_option, config_option, store_option, verb
from snapctl.references import resolve_here
from snapctl.walking import WalkFlags, stat_cache_option, walk_directory, walk_options
from snapd.disk.walk import WalkedTree
from snapd.model.errors import UsageError
from snapd.model.manifest import Manifest


@verb(
    "manifest",
    examples=[
        "snapctl manifest ./dataset > dataset.manifest",
        "snapctl manifest ./dataset --absolute --exclude %common%",
        "snapctl manifest --id imagenet@v1.2.0 --store s3://datasets/imagenet",
        "snapctl manifest ./dataset --format json --sha256 > manifest.json",
    ],
)
@click.argument("path", required=False, type=click.Path())
@click.option("--id", "snapshot_id", metavar="ID", help="A snapshot of --store, or a reference.")
@store_option(required=False)
@click.option(
    "--absolute", is_flag=True, help="Show absolute paths; such a text is no snapshot any more."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    help="json: a list of the files with path, size and hashes, which `verify --manifest` checks.",
)
@click.option("--sha256", is_flag=True, help="With --format json: every file's SHA-256, too.")
@click.option(
    "--catalog",
    metavar="NAME|FILE",
    help="Note the directory's ID in a record of your own, which `snapctl revisions` reads."
    "  [env: SNAPSYNC_CATALOG]",
)
@walk_options
@stat_cache_option
@cache_dir_option
@config_option
def command(
    context: Context,
    path: str | None,
    snapshot_id: str | None,
    store: str | None,
    absolute: bool,
    form: str,
    sha256: bool,
    cache_dir: str | None,
    catalog: str | None,
    exclude: Sequence[str],
    no_follow: bool,
    jobs: int,
    no_stat_cache: bool,
) -> None:
    """Print the manifest of the directory PATH, which is the working directory by default.

    With --id it is that of a snapshot in a store. One line for each file and directory: type, mode,
    checksum, size and path.

    --sha256 reads every file, once for both hashes: of a directory, or of a snapshot in the node's
    cache, else in the store.
    """
    if snapshot_id is not None and (path is not None or absolute):
        raise UsageError("--id goes with neither PATH nor --absolute")
    if sha256 and form != "json":
        raise UsageError("--sha256 goes with --format json", hint="The text has no place for it.")
    if form == "json":
        if absolute:
            raise UsageError("--absolute goes with the text only")
        from snapctl.file_lists import Source, print_file_list

        flags = WalkFlags(exclude, no_follow, jobs, no_stat_cache)
        source = Source(path or ".", snapshot_id, store, flags, cache_dir)
        print_file_list(context, source, sha256=sha256)
        return
    if snapshot_id is not None:
        _print_stored(context, snapshot_id, store)
        return
    tree = walk_directory(
        context, path or ".", WalkFlags(exclude, no_follow, jobs, no_stat_cache), "manifest"
    )
    if catalog is not None or context.environment.get("SNAPSYNC_CATALOG"):
        from snapctl.catalog import Catalog, record_directory

        record_directory(context, Catalog.chosen(context, catalog), path or ".", tree.manifest.id)
    if context.output.as_json:
        _print_json(context, tree.manifest, partial(_absolute, tree) if absolute else str)
        return
    # Bytes: the text is UTF-8 whatever the terminal's encoding is.
    stdout = sys.stdout.buffer
    if absolute:
        stdout.writelines(_absolute_lines(tree))
    else:
        stdout.write(tree.manifest.text)
    stdout.flush()


def _print_stored(context: Context, snapshot_id: str, store: str | None) -> None:
    if not store:
        raise UsageError("--id needs --store", hint="Say where the snapshot is.")
    from snapctl.stores import with_store
    from snapd.actions.read import read_manifest

    wanted = resolve_here(context, snapshot_id, store)
    manifest = with_store(context, store, partial(read_manifest, snapshot_id=wanted))
    if context.output.as_json:
        _print_json(context, manifest, str)
        return
    sys.stdout.buffer.write(manifest.text)
    sys.stdout.buffer.flush()


def _print_json(context: Context, manifest: Manifest, shown: Callable[[str], str]) -> None:
    entries = [
        {
            "type": entry.kind,
            "mode": f"{entry.mode:o}",
            "checksum": entry.checksum,
            "size_bytes": entry.size_bytes,
            "path": shown(entry.path),
        }
        for entry in manifest
    ]
    context.output.print_json({"id": manifest.id, "entries": entries})


def _absolute(tree: WalkedTree, path: str) -> str:
    return f"{tree.root.rstrip('/')}/{path[2:]}"


def _absolute_lines(tree: WalkedTree) -> Iterator[bytes]:
    for kind, mode, checksum, size_bytes, path in tree.manifest:
        line = f"{kind} {mode:o} {checksum} {size_bytes} {_absolute(tree, path)}\n"
        yield line.encode("utf-8", "surrogateescape")
