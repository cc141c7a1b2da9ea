"""Lay a snapshot of a cache out at a path, with the permissions of whoever runs the command."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from snapctl.context import Context
from snapctl.holding import Keeper, held_meanwhile, hold_link
from snapctl.output import Output
from snapctl.progress import meter_of
from snapd.actions.checkout import checkout
from snapd.model.checkouts import CheckoutOptions, CheckoutProgress, CheckoutReport
from snapd.model.errors import AccessDenied, CacheUnusable, SnapsyncError
from snapd.model.ids import SnapshotId
from snapd.model.manifest import Manifest
from snapd.model.units import format_size

JOBS_MAX = 4
"""More processes wait for each other's locks on directories and on the file system's log."""

_LAYOUTS = ((".manifests", ".objects"), ("blobs", "manifests", "staging", "trees"))
"""Directories that only a store, and only a cache, has side by side."""


def lay_out(
    context: Context,
    snapshot_id: SnapshotId,
    tree: Path,
    dest: Path,
    options: CheckoutOptions,
    *,
    store: str = "",
    keeper: Keeper | None = None,
) -> CheckoutReport:
    """Lay the complete `tree` out at `dest`, showing progress and warnings on stderr.

    The `keeper` of the cache is told that the tree is in use meanwhile, and then as long as a link
    points at it. The cache that holds the tree, a `store` that is a directory, what looks like a
    cache or a store at `dest`, and the home directory are protected. Raises what `checkout` raises,
    and `CacheUnusable` if the tree or its manifest can't be seen.
    """
    if not tree.is_dir():
        raise CacheUnusable(
            f"the tree can't be seen here: {tree}",
            hint="In a container, mount the daemon's trees, and name that place in SNAPSYNC_TREES.",
        )
    manifest = manifest_of_tree(tree, snapshot_id, keeper)
    guarded = options._replace(
        protected=(
            *options.protected,
            _cache_around(tree),
            *_directory_of(store),
            *_recognized(dest, below=options.delete),
        ),
        home=_home(context),
        jobs=min(JOBS_MAX, len(os.sched_getaffinity(0))),
    )
    name = f"checkout {snapshot_id[:12]}"
    with (
        held_meanwhile(keeper, snapshot_id, f"checkout to {dest}"),
        meter_of(context.output, time.monotonic) as meter,
    ):

        def on_progress(now: CheckoutProgress) -> None:
            meter.show(name, _describe(now), done=now.bytes_done, total=now.bytes_total)

        report = checkout(manifest, tree, dest, guarded, on_progress)
        if keeper is not None and report.mode == "symlink" and not report.dryrun:
            hold_link(context, keeper, snapshot_id, report.destination)
        meter.show(name, describe_report(report), done=1, total=1, last=True)
    for warning in report.warnings:
        context.output.note(f"warning: {warning}")
    return report


def manifest_of_tree(tree: Path, snapshot_id: SnapshotId, keeper: Keeper | None) -> Manifest:
    """Read it beside the tree, else ask who keeps the cache: only the trees may be mounted here."""
    try:
        return read_manifest(tree.parents[1], snapshot_id)
    except (AccessDenied, CacheUnusable):
        if keeper is None:
            raise
        try:
            text = keeper.manifest_text(snapshot_id)
        except (SnapsyncError, OSError):
            text = b""
        if not text:
            raise
    return Manifest.parse(text, expected_id=snapshot_id)


def _cache_around(tree: Path) -> Path:
    """Name what must not be overwritten: the whole cache, or the trees if only they are here."""
    around = tree.parents[1]
    return around if (around / "manifests").is_dir() else tree.parent


def read_manifest(state_directory: Path, snapshot_id: SnapshotId) -> Manifest:
    """Read the manifest of a complete snapshot from a cache that may belong to somebody else."""
    path = state_directory / "manifests" / snapshot_id
    try:
        text = path.read_bytes()
    except PermissionError as error:
        raise AccessDenied(
            f"you may not read the cache: {path}", hint="Ask whoever runs the daemon."
        ) from error
    except OSError as error:
        raise CacheUnusable(
            f"can't read the snapshot's manifest {path}: {error.strerror}",
            hint="Pull the snapshot again; in a container, mount the whole state directory.",
        ) from error
    return Manifest.parse(text, expected_id=snapshot_id)


def _directory_of(store: str) -> tuple[Path, ...]:
    if not store:
        return ()
    from snapd.model.uris import parse_store_uri

    uri = parse_store_uri(store)
    return (Path(uri.path),) if uri.scheme == "file" else ()


def _recognized(dest: Path, *, below: bool) -> Iterator[Path]:
    """Find caches and stores that nobody named: `dest`, what it lies in and, `below`, what it has.

    Taking one for a destination, and worse for one to be mirrored, would destroy it.
    """
    resolved = Path(os.path.realpath(dest))
    for place in (resolved, *resolved.parents):
        if _looks_kept(place):
            yield place
    with suppress(OSError):
        for place in resolved.iterdir() if below else ():
            if _looks_kept(place):
                yield place


def _looks_kept(place: Path) -> bool:
    return any(all((place / name).is_dir() for name in names) for names in _LAYOUTS)


def _home(context: Context) -> Path | None:
    home = context.environment.get("HOME", "")
    return Path(home) if home.startswith("/") else None


def _describe(now: CheckoutProgress) -> str:
    return (
        f"{format_size(now.bytes_done)} of {format_size(now.bytes_total)},"
        f" {now.files_done} of {now.files_total} files"
    )


def describe_report(report: CheckoutReport) -> str:
    """`done: 12 files by reflink at /data, 3 were right already, 1 deleted`."""
    if report.dryrun:
        return f"would change {len(report.changes)} and delete {len(report.deleted)} entries"
    words = [f"done: {report.files} files by {report.mode} at {report.destination}"]
    if report.kept:
        words.append(f"{report.kept} were right already")
    if report.deleted:
        words.append(f"{len(report.deleted)} deleted")
    return ", ".join(words)


def print_report(output: Output, report: CheckoutReport) -> None:
    """Print for people: the destination's path, or what a dry run found, one path a line."""
    if not report.dryrun:
        output.line(str(report.destination))
        return
    for change in report.changes:
        output.line(f"{change.status} {change.path}")
    for path in report.deleted:
        output.line(f"D {path}")
