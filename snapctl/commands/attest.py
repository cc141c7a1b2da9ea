"""`snapctl attest`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from snapctl.context import Context
from snapctl.frame import config_option, id_option, reference_store_option, verb
from snapctl.laying_out import read_manifest
from snapctl.receipts import find_receipt, load_receipt
from snapctl.references import resolve_anywhere
from snapctl.walking import ShowProgress, WalkFlags, late_meter, walk_options
from snapd.actions.verify import VerifyProgress, VerifyReport, verify_directory
from snapd.disk.walk import WalkOptions, WalkProgress, walk
from snapd.model.errors import (
    Interrupted,
    SnapshotNotFound,
    SnapsyncError,
    TreeDiffers,
    UsageError,
)
from snapd.model.ids import SnapshotId, is_digest, parse_snapshot_id
from snapd.model.manifest import Manifest
from snapd.model.receipts import Attestation, Receipt
from snapd.model.special_bits import ids_without_special_bits
from snapd.model.units import format_size


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be checked: at least one of the three is known."""

    receipt: Receipt | None
    directory: Path | None
    snapshot_id: SnapshotId | None


@verb(
    "attest",
    examples=[
        "snapctl attest ID",
        "snapctl attest receipt.json",
        "snapctl attest ./data --id ID",
        "snapctl attest receipt.json /mnt/elsewhere/data",
    ],
)
@click.argument("subject", metavar="FILE|DEST|ID", type=click.Path())
@click.argument("directory", metavar="[DEST]", required=False, type=click.Path())
@id_option(required=False)
@reference_store_option
@click.option(
    "--cache-dir",
    metavar="DIR",
    envvar="SNAPSYNC_CACHE_DIR",
    help="The cache to look into, instead of the daemon's or your own.  [env: SNAPSYNC_CACHE_DIR]",
)
@walk_options
@config_option
def command(
    context: Context,
    subject: str,
    directory: str | None,
    snapshot_id: str | None,
    store: str | None,
    cache_dir: str | None,
    **walk_flags: Any,
) -> None:
    """Hash a tree or a checkout again, compare it with its receipt, and print one line for a log.

    FILE is what `snapctl pull --receipt` wrote: it names the checkout, else the tree, and a second
    DEST replaces both. DEST is a checkout; without --id its receipt is found by what it hashes to.
    ID is the tree of that snapshot in the node's cache. Anything that differs is exit 12.
    """
    wanted = resolve_anywhere(context, snapshot_id, store) if snapshot_id else None
    if not os.path.lexists(subject) and "@" in subject:
        subject = resolve_anywhere(context, subject, store)
    asked = _read(subject, directory, wanted)
    options = WalkFlags(**walk_flags).options(context)
    try:
        with late_meter(context, "attest") as show:
            attestation = _attest(context, asked, cache_dir, options, show)
    except KeyboardInterrupt:
        raise Interrupted("interrupted: nothing is attested") from None
    if context.output.as_json:
        context.output.print_json(attestation.to_json())
    else:
        context.output.line(attestation.line())


def _read(subject: str, directory: str | None, wanted: SnapshotId | None) -> _Asked:
    """Tell what the words mean; a path wins over an ID that looks the same."""
    path = Path(subject)
    if path.is_dir():
        if directory is not None:
            raise UsageError("a second DEST goes with a FILE or an ID, not with another DEST")
        return _Asked(None, path, wanted)
    place = None if directory is None else Path(directory)
    if not path.exists() and is_digest(subject.strip().lower()):
        return _Asked(None, place, parse_snapshot_id(subject))
    receipt = load_receipt(path)
    if wanted is not None and receipt.snapshot_id != wanted:
        raise TreeDiffers(
            f"{path} is the receipt of {receipt.snapshot_id}, not of {wanted}",
            hint="Pass the receipt of the snapshot that --id or SNAPSYNC_ID names.",
            id=wanted,
            actual=receipt.snapshot_id,
        )
    return _Asked(receipt, place, receipt.snapshot_id)


def _attest(
    context: Context,
    asked: _Asked,
    cache_dir: str | None,
    options: WalkOptions,
    show: ShowProgress,
) -> Attestation:
    if asked.snapshot_id is None and asked.directory is not None:
        return _attest_unnamed(context, asked.directory, cache_dir, options, show)
    receipt = asked.receipt
    if receipt is None and asked.snapshot_id is not None:
        receipt = find_receipt(context, asked.snapshot_id, cache_dir)
    if receipt is None:
        raise UsageError("name a receipt, a directory or an ID")
    place = asked.directory or Path(receipt.destination or receipt.tree)
    if not place.is_absolute() and asked.directory is None:
        raise UsageError("the receipt does not say where the snapshot lies", hint="Name DEST too.")
    find_manifest = partial(_find_manifest, receipt)
    try:
        report = verify_directory(
            place, receipt.snapshot_id, options, find_manifest, lambda now: _show(show, now)
        )
    except TreeDiffers as differs:
        manifest = find_manifest()
        if manifest is None or not _is_without_special_bits(manifest, differs):
            raise
        report = VerifyReport(
            manifest.id, os.fspath(place), manifest.file_count, manifest.total_bytes
        )
        return _attestation(receipt, place, report, withheld=True)
    return _attestation(receipt, place, report)


def _is_without_special_bits(manifest: Manifest, differs: TreeDiffers) -> bool:
    """Tell whether all that differs is what the cache and a checkout withhold on purpose."""
    return differs.details.get("actual") in ids_without_special_bits(manifest)


def _attest_unnamed(
    context: Context,
    directory: Path,
    cache_dir: str | None,
    options: WalkOptions,
    show: ShowProgress,
) -> Attestation:
    """Hash first; what the directory is then says which receipt must be there."""

    def on_progress(now: WalkProgress) -> None:
        _show(show, VerifyProgress(now.files_hashed, now.files_total, now.bytes_hashed, 0))

    manifest = walk(Path(os.path.realpath(directory)), options, on_progress).manifest
    try:
        receipt = find_receipt(context, manifest.id, cache_dir)
    except SnapshotNotFound as unknown:
        raise TreeDiffers(
            f"{directory} is {manifest.id}, of which no cache here has a receipt",
            hint="Say with --id which snapshot it should be, to see what differs.",
            actual=manifest.id,
            directory=os.fspath(directory),
        ) from unknown
    report = VerifyReport(
        manifest.id, os.fspath(directory), manifest.file_count, manifest.total_bytes
    )
    return _attestation(receipt, directory, report)


def _attestation(
    receipt: Receipt, place: Path, report: VerifyReport, *, withheld: bool = False
) -> Attestation:
    """Hold the receipt's own numbers against what was found."""
    if (receipt.files, receipt.size_bytes) != (report.files, report.size_bytes):
        raise TreeDiffers(
            f"the receipt of {receipt.snapshot_id} tells of {receipt.files} files with "
            f"{receipt.size_bytes} bytes; the snapshot has {report.files} with {report.size_bytes}",
            hint="Somebody changed the receipt: `snapctl receipt ID` prints the cache's own.",
            id=receipt.snapshot_id,
        )
    return Attestation(
        receipt,
        os.path.abspath(place),
        report.files,
        report.size_bytes,
        verified_at=time.time(),  # noqa: TID251 - when it was proven, for the log
        withheld=withheld,
    )


def _find_manifest(receipt: Receipt) -> Manifest | None:
    """Find what the snapshot should hold, to say what differs."""
    if not receipt.tree:
        return None
    try:
        return read_manifest(Path(receipt.tree).parents[1], receipt.snapshot_id)
    except (SnapsyncError, IndexError):
        return None


def _show(show: ShowProgress, now: VerifyProgress) -> None:
    text = f"{now.files_done} of {now.files_total} files, {format_size(now.bytes_done)}"
    show(text, now.files_done, now.files_total)
