"""`snapctl checkout`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from snapctl.caches import tree_directories
from snapctl.context import Context
from snapctl.frame import config_option, dest_argument, id_option, reference_store_option, verb
from snapctl.references import resolve_anywhere
from snapd.model.checkouts import CHECKOUT_MODES, CheckoutMode, CheckoutOptions
from snapd.model.errors import SnapshotNotFound, UsageError
from snapd.model.ids import SnapshotId


@verb(
    "checkout",
    examples=[
        "snapctl checkout --id ID ./data",
        "snapctl checkout --id ID ./data --delete --dryrun",
        "snapctl checkout --id ID ./data --delete --exclude '^\\./runs/'",
        "snapctl checkout --id ID /data/current --mode symlink",
    ],
)
@id_option()
@reference_store_option
@dest_argument(required=True)
@click.option(
    "--mode",
    type=click.Choice(CHECKOUT_MODES),
    default="auto",
    show_default=True,
    help="How DEST gets its files. auto: private ones, by reflink where that works, else by copy. "
    "hardlink: the cache's own, not to be written to. symlink: DEST is one link to the tree.",
)
@click.option("--delete", is_flag=True, help="Remove from DEST what the snapshot does not have.")
@click.option(
    "--exclude",
    "patterns",
    metavar="PATTERN",
    multiple=True,
    help="With --delete: keep what matches this regular expression, searched in ./PATH.",
)
@click.option("--dryrun", is_flag=True, help="Only tell what would change in DEST.")
@click.option("--verify", is_flag=True, help="Hash every file as it is laid out.")
@click.option("--keep-setid", is_flag=True, help="Keep set-uid and set-gid bits of files.")
@click.option(
    "--from-cache",
    "--cache-dir",
    "cache_dir",
    metavar="DIR",
    envvar="SNAPSYNC_CACHE_DIR",
    help="The cache to take it from, instead of the daemon's or your own.  "
    "[env: SNAPSYNC_CACHE_DIR]",
)
@config_option
def command(
    context: Context,
    snapshot_id: str,
    store: str | None,
    dest: str,
    mode: CheckoutMode,
    delete: bool,
    patterns: tuple[str, ...],
    dryrun: bool,
    verify: bool,
    keep_setid: bool,
    cache_dir: str | None,
) -> None:
    """Lay a snapshot that is in the node's cache out at DEST, with your own permissions.

    Afterwards `snapctl id DEST` prints the same ID, but of a DEST that is a link that of the link:
    use `snapctl verify` there. Files that are right already are kept, so an interrupted checkout
    goes on where it stopped. No symbolic link in DEST is ever followed.
    """
    if patterns and not delete:
        raise UsageError("--exclude says what --delete must keep; it needs --delete")
    wanted = resolve_anywhere(context, snapshot_id, store)
    options = CheckoutOptions(
        mode=mode, delete=delete, dryrun=dryrun, keep_setid=keep_setid, verify=verify
    )
    options = _with_excludes(context, options, patterns)
    tree = _find(context, wanted, cache_dir)

    from snapctl.holding import keeper_of
    from snapctl.laying_out import lay_out, print_report

    keeper = keeper_of(context, tree.parent)
    report = lay_out(context, wanted, tree, Path(dest), options, keeper=keeper)
    if context.output.as_json:
        context.output.print_json(report.to_json())
    else:
        print_report(context.output, report)


def _with_excludes(
    context: Context, options: CheckoutOptions, patterns: tuple[str, ...]
) -> CheckoutOptions:
    if not patterns:
        return options
    from snapd.model.exclude import Excludes

    home = context.environment.get("HOME", "/")
    return replace(options, exclude=Excludes.compile(patterns, home=home, cache_dir="/"))


def _find(context: Context, snapshot_id: SnapshotId, cache_dir: str | None) -> Path:
    """Name the first cache that has the complete tree; a tree appears whole or not at all."""
    searched = []
    for directory in tree_directories(context, cache_dir):
        if (directory / snapshot_id).is_dir():
            return directory / snapshot_id
        searched.append(str(directory))
    raise SnapshotNotFound(
        f"no cache here has the snapshot {snapshot_id} (looked in {', '.join(searched) or 'none'})",
        hint="Pull it first: snapctl pull --id ID --store URI.",
        id=snapshot_id,
        caches=searched,
    )
