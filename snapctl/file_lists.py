"""Lists of files with their SHA-256: written of a directory or a snapshot, and checked by."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from snapctl.caches import tree_directories
from snapctl.context import Context
from snapctl.holding import held_meanwhile, keeper_of
from snapctl.laying_out import manifest_of_tree
from snapctl.references import resolve_here
from snapctl.stores import with_store
from snapctl.walking import ShowProgress, WalkFlags, describe_walk, late_meter
from snapd.actions.read import read_manifest
from snapd.actions.second_hashes import HashedFiles, hash_directory, hash_stored, hash_tree
from snapd.actions.verify import PROBLEMS_SHOWN_MAX, VerifyProgress
from snapd.disk.walk import WalkProgress
from snapd.model.errors import (
    Interrupted,
    ManifestRefused,
    SnapshotNotFound,
    TreeDiffers,
    UsageError,
)
from snapd.model.file_lists import (
    LIST_HINT,
    Difference,
    FileList,
    read_file_list,
    render_file_list,
)
from snapd.model.ids import SnapshotId
from snapd.model.names import in_one_line
from snapd.model.units import format_size
from snapd.remote.base import RemoteStore

_LINES_AT_ONCE = 1000


class Source(NamedTuple):
    """What is read: `directory`, or the snapshot where it is at hand."""

    directory: str
    snapshot_id: str | None
    store: str | None
    flags: WalkFlags
    cache_dir: str | None

    @property
    def shown(self) -> str:
        """Name it for people."""
        return self.snapshot_id or self.directory


def print_file_list(context: Context, source: Source, *, sha256: bool) -> None:
    """Write the list to stdout, a file a line; see `docs/cli.md` for its form."""
    hashed = _hash(context, source, sha256=sha256)
    _refuse_own_output(source, hashed)
    rows = hashed.rows() if sha256 else (row._replace(sha256=b"") for row in hashed.rows())
    lines = render_file_list(hashed.manifest.id, hashed.manifest.file_count, rows)
    # Bytes: the list is UTF-8 whatever the terminal's encoding is.
    stdout = sys.stdout.buffer
    while batch := list(islice(lines, _LINES_AT_ONCE)):
        stdout.write(b"".join(batch))
    stdout.flush()


def check_against(context: Context, source: Source, listed: str) -> None:
    """Compare the files with a list; print what differs line by line, then raise `TreeDiffers`."""
    wanted = _read(listed)
    hashed = _hash(context, source, sha256=wanted.has_sha256)
    if source.snapshot_id is not None and wanted.snapshot_id not in (None, hashed.manifest.id):
        context.output.note(f"note: the list was made of another snapshot, {wanted.snapshot_id}")
    counts = {"missing": 0, "extra": 0, "changed": 0}
    first: list[Difference] = []
    for each in _without_itself(wanted.compare(hashed.rows()), source, listed):
        counts[each.kind] += 1
        if len(first) < PROBLEMS_SHOWN_MAX:
            first.append(each)
        if not context.output.as_json:
            what = f": {each.what}" if each.what else ""
            context.output.line(f"{each.kind} {in_one_line(each.path)}{what}")
    total = sum(counts.values())
    if total:
        said = ", ".join(f"{number} {kind}" for kind, number in counts.items())
        raise TreeDiffers(
            f"{source.shown} is not what {listed} lists: {said}"
            f" (the first is {first[0].kind} {first[0].path!r})",
            hint="Lay it out again, or make the list anew if the change was meant.",
            **{f"{kind}_total": number for kind, number in counts.items()},
            differences=[each.to_json() for each in first],
        )
    manifest = hashed.manifest
    report: dict[str, Any] = {
        "snapshot_id": manifest.id,
        "manifest": listed,
        "files": manifest.file_count,
        "listed": len(wanted),
    }
    if context.output.as_json:
        context.output.print_json(report)
    else:
        context.output.line(f"{source.shown} is what {listed} lists: {len(wanted)} files")


def _hash(context: Context, source: Source, *, sha256: bool) -> HashedFiles:
    try:
        with late_meter(context, "hash") as show:
            if source.snapshot_id is not None:
                return _hash_snapshot(context, source, source.snapshot_id, show)
            options = source.flags.options(context, sha256=sha256)
            return hash_directory(_real(source.directory), options, partial(_show_walk, show))
    except KeyboardInterrupt:
        raise Interrupted("interrupted: nothing was written") from None


def _real(directory: str) -> Path:
    """Follow a link in the place of the directory, as `verify` does: a checkout may be one."""
    return Path(os.path.realpath(directory))


def _hash_snapshot(
    context: Context, source: Source, snapshot_id: str, show: ShowProgress
) -> HashedFiles:
    wanted = resolve_here(context, snapshot_id, source.store)
    for directory in tree_directories(context, source.cache_dir):
        tree = directory / wanted
        if tree.is_dir():
            keeper = keeper_of(context, directory)
            with held_meanwhile(keeper, wanted, "listing its files"):
                manifest = manifest_of_tree(tree, wanted, keeper)
                return hash_tree(tree, manifest, partial(_show_walk, show))
    if not source.store:
        raise SnapshotNotFound(
            f"no cache here has the snapshot {wanted}, and no store is named",
            hint="Its bytes have to be read: pull it first, or name a store that has it.",
            id=wanted,
        )
    return _hash_stored(context, wanted, source.store, show)


def _hash_stored(
    context: Context, wanted: SnapshotId, store: str, show: ShowProgress
) -> HashedFiles:
    transfer = context.settings().transfer

    def on_progress(now: VerifyProgress) -> None:
        text = f"{now.files_done} of {now.files_total} objects, {format_size(now.bytes_done)}"
        show(text, now.files_done, now.files_total)

    async def read(opened: RemoteStore) -> HashedFiles:
        manifest = await read_manifest(opened, wanted)
        return await hash_stored(opened, manifest, transfer, on_progress)

    return with_store(context, store, read)


def _show_walk(show: ShowProgress, now: WalkProgress) -> None:
    show(describe_walk(now), now.files_hashed, now.files_total)


def _refuse_own_output(source: Source, hashed: HashedFiles) -> None:
    """Refuse a list that would list itself: `manifest . > ./manifest.json`."""
    out = os.fstat(sys.stdout.fileno())
    if hashed.inodes is None or not stat.S_ISREG(out.st_mode) or out.st_ino not in hashed.inodes:
        return
    top = os.stat(_real(source.directory))
    if top.st_dev == out.st_dev:
        raise UsageError(
            f"standard output is a file in {source.directory}, which would list itself",
            hint="Write the list elsewhere first, or leave its file out with --exclude.",
        )


def _read(listed: str) -> FileList:
    try:
        with _opened(listed) as file:
            return read_file_list(file.read)
    except UnicodeDecodeError as error:
        raise ManifestRefused(f"{listed}: it is no UTF-8 text", hint=LIST_HINT) from error
    except OSError as error:
        raise UsageError(f"can't read the list {listed!r}: {error.strerror}") from error
    except ManifestRefused as error:
        raise ManifestRefused(
            f"{listed}: {error.message}", hint=error.hint, **error.details
        ) from error


@contextmanager
def _opened(listed: str) -> Iterator[TextIO]:
    # Line ends are part of what sha256sum escapes: none is translated.
    source = sys.stdin.fileno() if listed == "-" else listed
    with open(source, encoding="utf-8", newline="", closefd=listed != "-") as file:
        yield file


def _without_itself(
    differences: Iterator[Difference], source: Source, listed: str
) -> Iterator[Difference]:
    """Leave out the list itself where it lies in the directory and does not list itself."""
    itself = None
    if source.snapshot_id is None and listed != "-":
        itself = os.path.relpath(os.path.realpath(listed), _real(source.directory))
    for each in differences:
        if not (each.kind == "extra" and each.path == itself):
            yield each
