"""`snapctl checkout`."""

from __future__ import annotations

from pathlib import Path

import click

from snapctl.context import Context
from snapctl.frame import config_option, dest_argument, id_option, reference_store_option, verb
from snapctl.references import resolve_anywhere
from snapd.model.checkouts import CHECKOUT_MODES, CheckoutMode, CheckoutOptions
from snapd.model.errors import UsageError


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

    from snapctl.checking_out import check_out

    check_out(context, wanted, Path(dest), options, cache_dir)


def _with_excludes(
    context: Context, options: CheckoutOptions, patterns: tuple[str, ...]
) -> CheckoutOptions:
    if not patterns:
        return options
    from snapd.model.exclude import Excludes

    home = context.environment.get("HOME", "/")
    return options._replace(exclude=Excludes.compile(patterns, home=home, cache_dir="/"))
