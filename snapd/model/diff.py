"""What differs between two snapshots, from their manifests alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from snapd.model.manifest import Entry, Manifest

Status = Literal["A", "D", "M", "="]


class Change(NamedTuple):
    """One path: added (`A`, only `new`), deleted (`D`, only `old`), modified (`M`) or equal."""

    status: Status
    path: str
    old: Entry | None
    new: Entry | None


def diff(old: Manifest, new: Manifest, *, include_equal: bool = False) -> Iterator[Change]:
    """Compare two manifests; changes come in the order of the bytes of their paths.

    Files are compared whole. A directory is reported where the files below it do not tell the
    story: if its mode changed, and if it is empty on the side or sides that have it. Its checksum
    and size only repeat what changed below, so they are never a reason. A file that became a
    directory is one deleted path and other added ones, because the paths differ by a slash.
    """
    for before, after in _paired(_rows(old), _rows(new)):
        status = _status(before, after)
        known = [row for row in (before, after) if row is not None]
        if status == "=" and not include_equal:
            continue
        if status != "M" and not all(row.is_leaf for row in known):
            continue
        yield Change(
            status,
            known[0].entry.path,
            None if before is None else before.entry,
            None if after is None else after.entry,
        )


class _Row(NamedTuple):
    entry: Entry
    is_leaf: bool
    """A file, or a directory without children."""


def _rows(manifest: Manifest) -> Iterator[_Row]:
    entries = iter(manifest)
    entry = next(entries)
    for successor in entries:
        has_child = entry.kind == "D" and successor.path.startswith(entry.path)
        yield _Row(entry, not has_child)
        entry = successor
    yield _Row(entry, True)


def _paired(old: Iterator[_Row], new: Iterator[_Row]) -> Iterator[tuple[_Row | None, _Row | None]]:
    """Merge two sequences that are sorted by path; equal paths meet in one pair."""
    before, after = next(old, None), next(new, None)
    while before is not None or after is not None:
        # Code point order, which `<` of str is, and the order of UTF-8 bytes are the same.
        if after is None or (before is not None and before.entry.path < after.entry.path):
            yield before, None
            before = next(old, None)
        elif before is None or after.entry.path < before.entry.path:
            yield None, after
            after = next(new, None)
        else:
            yield before, after
            before, after = next(old, None), next(new, None)


def _status(before: _Row | None, after: _Row | None) -> Status:
    if before is None:
        return "A"
    if after is None:
        return "D"
    if before.entry.kind == "D":
        return "=" if before.entry.mode == after.entry.mode else "M"
    return "=" if before.entry == after.entry else "M"
