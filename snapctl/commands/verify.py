"""`snapctl verify`."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import click

from snapctl.caches import cache_directories
from snapctl.context import Context
from snapctl.frame import config_option, id_option, store_option, verb
from snapctl.laying_out import read_manifest as read_cached_manifest
from snapctl.stores import with_store
from snapctl.walking import ShowProgress, WalkFlags, late_meter, walk_options
from snapd.actions.read import read_manifest
from snapd.actions.verify import (
    VerifyProgress,
    VerifyReport,
    verify_directory,
    verify_snapshot,
)
from snapd.model.errors import Interrupted, SnapsyncError, UsageError
from snapd.model.ids import SnapshotId, parse_snapshot_id
from snapd.model.manifest import Manifest
from snapd.model.units import format_size
from snapd.remote.base import RemoteStore


@verb(
    "verify",
    examples=[
        "snapctl verify --id ID --store s3://datasets/imagenet",
        "snapctl verify --id ID ./data",
        "snapctl verify --id ID --store s3://datasets/imagenet ./data",
    ],
)
@id_option()
@store_option(required=False)
@click.argument("directory", required=False, type=click.Path())
@walk_options
@config_option
def command(
    context: Context, snapshot_id: str, store: str | None, directory: str | None, **walk: Any
) -> None:
    """Hash a snapshot again: every object of a store's, or every file of DIRECTORY.

    With DIRECTORY, a store is read only to name what differs, and --exclude, --no-follow and --jobs
    are those of `snapctl id`. Nothing is written. Missing and wrong objects are collected, and the
    first is reported with the number of all (exit 12).
    """
    wanted = parse_snapshot_id(snapshot_id)
    flags = WalkFlags(**walk)
    try:
        with late_meter(context, f"verify {wanted[:12]}") as show:
            if directory is not None:
                report = _verify_directory(context, wanted, Path(directory), store, flags, show)
            elif store:
                report = _verify_store(context, wanted, store, show)
            else:
                raise UsageError("name a store with --store, or a directory")
    except KeyboardInterrupt:
        raise Interrupted("interrupted: the rest was not verified") from None
    _print(context, report)


def _verify_directory(
    context: Context,
    wanted: SnapshotId,
    directory: Path,
    store: str | None,
    flags: WalkFlags,
    show: ShowProgress,
) -> VerifyReport:
    return verify_directory(
        directory,
        wanted,
        flags.options(context),
        partial(_find_manifest, context, wanted, store),
        partial(_show, show),
    )


def _find_manifest(context: Context, wanted: SnapshotId, store: str | None) -> Manifest | None:
    """Look for the manifest in the caches of this node, then in the store."""
    for state_directory in cache_directories(context, None):
        with suppress(SnapsyncError):
            return read_cached_manifest(state_directory, wanted)
    if not store:
        return None
    try:
        return with_store(context, store, partial(read_manifest, snapshot_id=wanted))
    except SnapsyncError as error:
        context.output.note(f"can't name the differences: {error.message}")
        return None


def _verify_store(
    context: Context, wanted: SnapshotId, store: str, show: ShowProgress
) -> VerifyReport:
    transfer = context.settings().transfer

    async def verify(opened: RemoteStore) -> VerifyReport:
        return await verify_snapshot(opened, wanted, transfer, partial(_show, show))

    return with_store(context, store, verify)


def _show(show: ShowProgress, now: VerifyProgress) -> None:
    text = f"{now.files_done} of {now.files_total} files, {format_size(now.bytes_done)}"
    show(text, now.files_done, now.files_total)


def _print(context: Context, report: VerifyReport) -> None:
    if context.output.as_json:
        context.output.print_json(report.to_json())
        return
    size = format_size(report.size_bytes)
    context.output.line(f"{report.snapshot_id} verified: {report.files} files, {size}")
