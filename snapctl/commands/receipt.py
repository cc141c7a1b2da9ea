"""`snapctl receipt`."""

from __future__ import annotations

import click

from snapctl.context import Context
from snapctl.frame import config_option, reference_store_option, verb
from snapctl.receipts import find_receipt
from snapctl.references import resolve_anywhere
from snapd.model.receipts import Receipt, Share, Span, format_moment
from snapd.model.units import format_size


@verb("receipt", examples=["snapctl receipt ID", "snapctl receipt ID --json > receipt.json"])
@click.argument("snapshot_id", metavar="ID", envvar="SNAPSYNC_ID")
@reference_store_option
@click.option(
    "--cache-dir",
    metavar="DIR",
    envvar="SNAPSYNC_CACHE_DIR",
    help="The cache to look into, instead of the daemon's or your own.  [env: SNAPSYNC_CACHE_DIR]",
)
@config_option
def command(context: Context, snapshot_id: str, store: str | None, cache_dir: str | None) -> None:
    """Print what the pull that brought a snapshot onto this node proved: what, whence, when.

    With --json it is the document that `snapctl pull --receipt` writes, for `snapctl attest`.
    """
    receipt = find_receipt(context, resolve_anywhere(context, snapshot_id, store), cache_dir)
    if context.output.as_json:
        context.output.print_json(receipt.to_json())
        return
    for name, value in _rows(receipt):
        context.output.line(f"{name:<11}{value}")


def _rows(receipt: Receipt) -> list[tuple[str, str]]:
    return [
        ("snapshot", receipt.snapshot_id),
        ("store", receipt.store or "unknown"),
        ("pulled", format_moment(receipt.pulled_at)),
        ("by", f"snapsync {receipt.version} on {receipt.host}"),
        ("holds", f"{receipt.files} files, {format_size(receipt.size_bytes)}"),
        ("verified", f"{_share(receipt.verified)} on the way in"),
        ("cached", f"{_share(receipt.cached)}{_when(receipt.cached_when)}"),
        ("tree", receipt.tree),
    ]


def _share(share: Share) -> str:
    return f"{share.objects} objects, {format_size(share.size_bytes)}"


def _when(span: Span) -> str:
    """`, verified 2026-01-01T00:00:00.000Z to 2026-01-02T00:00:00.000Z, 3 at an unknown time`."""
    words = []
    if span.earliest is not None and span.latest is not None:
        words.append(f", verified {format_moment(span.earliest)}")
        if span.latest != span.earliest:
            words.append(f" to {format_moment(span.latest)}")
    if span.unknown:
        words.append(f", {span.unknown} verified at an unknown time")
    return "".join(words)
