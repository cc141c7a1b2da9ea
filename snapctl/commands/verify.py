"""`snapctl verify`."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import click

from snapctl.caches import cache_directories
from snapctl.context import Context
from snapctl.frame import (
    cache_dir_option,
    config_option,
    id_option,
    standalone_option,
    store_option,
    verb,
)
from snapctl.laying_out import read_manifest as read_cached_manifest
from snapctl.obtaining import works_here
from snapctl.references import resolve_anywhere, resolve_here
from snapctl.stores import with_store
from snapctl.walking import ShowProgress, WalkFlags, late_meter, walk_options
from snapd.actions.read import read_manifest
from snapd.actions.verify import (
    VerifyProgress,
    VerifyReport,
    verify_directory,
    verify_snapshot,
)
from snapd.model.care import Proof, ProofProgress
from snapd.model.errors import Interrupted, SnapsyncError, UsageError
from snapd.model.ids import SnapshotId
from snapd.model.manifest import Manifest
from snapd.model.units import format_size
from snapd.remote.base import RemoteStore


@verb(
    "verify",
    examples=[
        "snapctl verify --id ID --store s3://datasets/imagenet",
        "snapctl verify --id ID ./data",
        "snapctl verify --id ID --store s3://datasets/imagenet ./data",
        "snapctl verify --deep ID",
        "snapctl verify ./data --manifest manifest.json",
    ],
)
@id_option(required=False)
@store_option(required=False)
@click.argument("directory", required=False, type=click.Path())
@click.option("--deep", is_flag=True, help="Prove the tree in the node's cache, and repair it.")
@click.option(
    "--manifest",
    "listed",
    metavar="FILE",
    type=click.Path(),
    help="Check against a list of files with their SHA-256: a manifest.json, or what sha256sum"
    " prints; - is standard input.",
)
@standalone_option
@cache_dir_option
@walk_options
@config_option
def command(
    context: Context,
    snapshot_id: str | None,
    store: str | None,
    directory: str | None,
    deep: bool,
    listed: str | None,
    standalone: str,
    cache_dir: str | None,
    **walk: Any,
) -> None:
    """Hash a snapshot again: every object of a store's, or every file of DIRECTORY.

    With --deep it is the tree of that ID in the node's cache: every name, mode and byte. What is
    wrong there is fetched anew and put right; exit 12 if that can't be.

    With DIRECTORY, a store is read only to name what differs, and --exclude, --no-follow and --jobs
    are those of `snapctl id`. Nothing is written. Missing and wrong objects are collected, and the
    first is reported with the number of all (exit 12).

    With --manifest it is what FILE lists that counts: every file's size and hash. Missing, changed
    and extra files of DIRECTORY, or of the snapshot --id, are told line by line (exit 12).
    """
    if listed is not None:
        if deep or (directory is None) == (snapshot_id is None):
            raise UsageError("--manifest goes with either a DIRECTORY or --id, and without --deep")
        from snapctl.file_lists import Source, check_against

        source = Source(directory or "", snapshot_id, store, WalkFlags(**walk), cache_dir)
        check_against(context, source, listed)
        return
    if deep:
        wanted = resolve_anywhere(context, _named_once(snapshot_id, directory), store)
        _print_proof(context, _prove(context, wanted, standalone, cache_dir))
        return
    if snapshot_id is None:
        raise UsageError("name the snapshot with --id")
    wanted = resolve_here(context, snapshot_id, store)
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


def _named_once(snapshot_id: str | None, argument: str | None) -> str:
    """Take the ID from `--deep ID` or `--deep --id ID`."""
    if (named := argument or snapshot_id) is None:
        raise UsageError("name the snapshot: `snapctl verify --deep ID`")
    return named


def _prove(context: Context, wanted: SnapshotId, standalone: str, cache_dir: str | None) -> Proof:
    try:
        with late_meter(context, f"verify {wanted[:12]}") as show:

            def on_progress(now: ProofProgress) -> None:
                text = f"{now.files_done} of {now.files_total} files, {format_size(now.bytes_done)}"
                show(text, now.files_done, now.files_total)

            if works_here(context, standalone):
                from snapctl.engine import prove_here

                return prove_here(context, wanted, cache_dir=cache_dir, on_progress=on_progress)
            return _follow(context.client().prove(wanted), on_progress)
    except KeyboardInterrupt:
        raise Interrupted("interrupted: the rest was not verified") from None


def _follow(
    proving: Generator[ProofProgress, None, Proof], on_progress: Callable[[ProofProgress], None]
) -> Proof:
    with closing(proving):
        while True:
            try:
                on_progress(next(proving))
            except StopIteration as ended:
                proof: Proof = ended.value
                return proof


def _print_proof(context: Context, proof: Proof) -> None:
    if context.output.as_json:
        context.output.print_json(proof.to_json())
        return
    if proof.repaired:
        context.output.note(f"{proof.repaired} damaged objects were fetched again and put right")
    size = format_size(proof.size_bytes)
    context.output.line(f"{proof.snapshot_id} verified: {proof.files} files, {size}")


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
