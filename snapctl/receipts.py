"""Where a command finds the receipt of a snapshot, and how it writes one down."""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from snapctl.caches import cache_directories
from snapctl.context import Context
from snapctl.reattaching import outlast
from snapd.disk.receipts import read_receipt
from snapd.model.errors import (
    AccessDenied,
    ActionFailed,
    DaemonNotRunning,
    SnapshotNotFound,
    SnapsyncError,
    UsageError,
)
from snapd.model.ids import SnapshotId, parse_snapshot_id
from snapd.model.jobs import JobView
from snapd.model.receipts import Receipt


def find_receipt(context: Context, snapshot_id: SnapshotId, cache_dir: str | None) -> Receipt:
    """Find a receipt: in the chosen cache alone, else the daemon's, else in the user's own.

    It then names the tree. Raises `SnapshotNotFound` if no cache here has one.
    """
    if cache_dir is None:
        with suppress(DaemonNotRunning, SnapshotNotFound):
            client = context.client()
            receipt = client.receipt(snapshot_id)
            trees = client.trees_directory()
            return receipt.at(tree=f"{trees}/{snapshot_id}", destination="")
    searched = []
    for state_directory in cache_directories(context, cache_dir):
        found = _read(state_directory, snapshot_id)
        if found is not None:
            tree = state_directory / "trees" / snapshot_id
            return found.at(tree=os.fspath(tree), destination="")
        searched.append(os.fspath(state_directory))
    raise SnapshotNotFound(
        f"no cache here has a receipt of the snapshot {snapshot_id} "
        f"(looked in {', '.join(searched) or 'none'})",
        hint="Pull it first: snapctl pull --id ID --store URI.",
        id=snapshot_id,
        caches=searched,
    )


def write_receipt(context: Context, view: JobView, dest: Path | None, target: Path) -> None:
    """Write the receipt of a pull that is done to a file, whole or not at all."""
    snapshot_id = parse_snapshot_id(view.snapshot_id)
    found = _read(Path(view.tree).parents[1], snapshot_id)
    if found is None:
        client = context.client()
        receipt = outlast(lambda: client.receipt(snapshot_id))
    else:
        receipt = found
    destination = "" if dest is None else os.path.abspath(dest)
    document = receipt.at(tree=view.tree, destination=destination).to_json()
    text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
    try:
        _replace(target, text)
    except OSError as error:
        raise _unwritable(target, error) from error


def load_receipt(path: Path) -> Receipt:
    """Read a receipt that somebody wrote down; raises `UsageError` naming the file."""
    try:
        return Receipt.parse(path.read_bytes())
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from error
    except UsageError as error:
        raise UsageError(f"{path} is not a receipt: {error.message}", hint=error.hint) from error


def _read(state_directory: Path, snapshot_id: SnapshotId) -> Receipt | None:
    try:
        return read_receipt(state_directory, snapshot_id)
    except OSError:
        return None


def _replace(target: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=target.parent, prefix=f".{target.name}.", delete=False
    ) as new:
        try:
            new.write(text)
            new.flush()
            os.fchmod(new.fileno(), 0o644)
            os.replace(new.name, target)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(new.name)
            raise


def _unwritable(target: Path, error: OSError) -> SnapsyncError:
    kind = AccessDenied if isinstance(error, PermissionError) else ActionFailed
    return kind(
        f"the pull is done, but its receipt can't be written to {target}: {error.strerror}",
        hint="`snapctl receipt ID` prints it.",
    )
