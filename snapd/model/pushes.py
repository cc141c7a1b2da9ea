"""The record of pushes: which snapshot came where when, after which; `docs/lineage.md`.

All that a listing has to tell is in the key, so that a hundred thousand pushes are listed by a
hundred requests and no document is read. The times in keys count down: byte order is newest first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from snapd.model.ids import SnapshotId, digest_of, is_digest
from snapd.model.receipts import format_moment, parse_moment
from snapd.model.registry import Fields, read_document, render_document

SCHEMA = "snapsync.push/1"
LOCATION_SCHEMA = "snapsync.location/1"
LOCATION_MAX_CHARACTERS = 8192
"""The longest path that Linux takes has half as many bytes."""
CLOCKS_APART_MAX_MS = 30 * 60 * 1000
"""What lies further ahead of a writer's clock is no predecessor: one clock that is years ahead
would otherwise be everybody's for years."""

_LAST_MS = 253_402_300_799_999
"""The end of the year 9999."""
_COUNTED_DOWN_FROM = 99_999_999_999_999
_DIGITS = 14
_SHARD_DIGITS = 5
"""Of the time; a directory of eleven days and a half each."""
_LOCATION_DIGITS = 16
_NONE = "none"
_NAME = re.compile(
    r"([0-9]{14})-([0-9a-f]{16})-([0-9a-f]{64})-([0-9a-f]{64}|none)-([0-9a-f]{64}|none)"
    r"-([0-9a-z]{1,16})",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Push:
    """A snapshot that came to a location at a time.

    `previous_id` was the newest of that location, whatever it was. `parent_id` is what the new one
    was made from: the snapshot that was pushed from the same directory before, or was named.
    """

    at_ms: int
    location: str
    """The store as it was named, or the absolute path of a directory."""
    snapshot_id: SnapshotId
    previous_id: SnapshotId | None = None
    parent_id: SnapshotId | None = None
    by: str = ""
    """Who pushed; empty: only the key has been read."""

    @property
    def created_at(self) -> str:
        """The time as `snapdir` writes it: `2026-03-01 09:00:00.000`, in UTC."""
        moment = datetime.fromtimestamp(self.at_ms / 1000, UTC)
        return moment.isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")

    def to_json(self) -> dict[str, Any]:
        """Render for a document."""
        return {
            "at": format_moment(self.at_ms / 1000),
            "location": self.location,
            "snapshot_id": self.snapshot_id,
            "previous_id": self.previous_id,
            "parent_id": self.parent_id,
            "by": self.by,
        }

    def render(self) -> bytes:
        """Render the document as it is stored."""
        return render_document({"schema": SCHEMA, **self.to_json()})

    @classmethod
    def parse(cls, data: bytes) -> Push:
        """Read a document; raises `RegistryDamaged` or `RegistryTooNew`."""
        fields = read_document(data, SCHEMA)
        made = cls(
            min(round(parse_moment(fields.moment("at")) * 1000), _LAST_MS),
            _read_location(fields),
            fields.snapshot_id("snapshot_id"),
            _read_optional_id(fields, "previous_id"),
            _read_optional_id(fields, "parent_id"),
            fields.author("by"),
        )
        fields.end()
        return made


class PushName(NamedTuple):
    """The last part of a push's keys, which holds what a listing has to tell."""

    at_ms: int
    location: str
    """`location_digest` of it."""
    snapshot_id: SnapshotId
    previous_id: SnapshotId | None
    parent_id: SnapshotId | None
    mark: str
    """Unlike any other push's."""

    def __str__(self) -> str:
        ids = (self.snapshot_id, self.previous_id or _NONE, self.parent_id or _NONE)
        return "-".join((_counted_down(self.at_ms), self.location, *ids, self.mark))

    @classmethod
    def parse(cls, name: str) -> PushName | None:
        """Read a name; None for what is none of ours."""
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        down, location, snapshot_id, previous, parent, mark = found.groups()
        at_ms = _COUNTED_DOWN_FROM - int(down)
        return cls(at_ms, location, SnapshotId(snapshot_id), _id(previous), _id(parent), mark)

    @classmethod
    def of(cls, push: Push, mark: str) -> PushName:
        """Name a push."""
        digest = location_digest(push.location)
        return cls(push.at_ms, digest, push.snapshot_id, push.previous_id, push.parent_id, mark)

    def push(self, location: str) -> Push:
        """Tell the push, but for who did it."""
        return Push(self.at_ms, location, self.snapshot_id, self.previous_id, self.parent_id)

    def keys(self) -> list[str]:
        """Name the keys below `registry/`: by location, by snapshot and by what came before it."""
        name = str(self)
        shard = name[:_SHARD_DIGITS]
        keys = [
            f"{in_prefix(self.location)}{shard}/{name}",
            f"{of_prefix(self.snapshot_id)}{name}",
        ]
        return keys if self.parent_id is None else [*keys, f"{after_prefix(self.parent_id)}{name}"]


def in_prefix(digest: str) -> str:
    """Where the pushes to one location lie, below `registry/`."""
    return f"pushes/in/{digest}/"


def of_prefix(snapshot_id: SnapshotId) -> str:
    """Where the pushes of one snapshot lie."""
    return f"pushes/of/{snapshot_id}/"


def after_prefix(parent_id: SnapshotId) -> str:
    """Where the pushes lie of what was made from one snapshot."""
    return f"pushes/after/{parent_id}/"


LOCATIONS_PREFIX = "pushes/locations/"
"""Where one document a location lies, by its digest."""


def location_digest(location: str) -> str:
    """Name a location in keys: 16 hexadecimal digits."""
    return digest_of(location.encode())[:_LOCATION_DIGITS]


def location_text(location: str) -> str:
    """Make a path or a store's name a text: bytes that are no UTF-8 become U+FFFD."""
    return location.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def render_location(location: str) -> bytes:
    """Render the document that tells a location by its digest."""
    return render_document({"schema": LOCATION_SCHEMA, "location": location})


def parse_location(data: bytes) -> str:
    """Read what `render_location` wrote; raises `RegistryDamaged` or `RegistryTooNew`."""
    fields = read_document(data, LOCATION_SCHEMA)
    location = _read_location(fields)
    fields.end()
    return location


def next_push(
    newest: Push | None,
    location: str,
    snapshot_id: SnapshotId,
    *,
    now_ms: int,
    by: str,
    parent_id: SnapshotId | None = None,
) -> Push | None:
    """Make the record of a push after the newest one of its location.

    None if that is of the same snapshot: then there is nothing to add. Its time is later than that
    of the newest, which is not further ahead than `CLOCKS_APART_MAX_MS`.
    """
    if newest is not None and newest.snapshot_id == snapshot_id:
        return None
    at_ms = now_ms if newest is None else max(now_ms, newest.at_ms + 1)
    previous_id = None if newest is None else newest.snapshot_id
    parent_id = None if parent_id == snapshot_id else parent_id
    return Push(at_ms, location, snapshot_id, previous_id, parent_id, by)


def united(*records: Iterable[Push]) -> list[Push]:
    """Put several records together, newest first; a push that two of them tell comes once.

    The record named first counts: the same push may have another predecessor in another one.
    """
    known: dict[tuple[int, str, str], Push] = {}
    for record in records:
        for push in record:
            known.setdefault((push.at_ms, push.location, push.snapshot_id), push)
    return sorted(known.values(), key=lambda push: -push.at_ms)


def without_repeats(pushes: Iterable[Push]) -> list[Push]:
    """Leave out what repeats the one before it at its location, of pushes newest first.

    Two who push the same at once, or whom different records tell what is new, may both add it.
    """
    kept: list[Push] = []
    heads: dict[str, SnapshotId] = {}
    for push in reversed(list(pushes)):
        if heads.get(push.location) != push.snapshot_id:
            kept.append(push)
        heads[push.location] = push.snapshot_id
    return kept[::-1]


def newest_of_each(pushes: Iterable[Push]) -> list[Push]:
    """Choose the newest push of each location, of pushes newest first; in byte order of these."""
    heads: dict[str, Push] = {}
    for push in pushes:
        heads.setdefault(push.location, push)
    return sorted(heads.values(), key=lambda push: push.location.encode())


def location_line(push: Push) -> str:
    """`snapdir locations` prints this line of a location's newest push."""
    return _line(created_at=push.created_at, id=push.snapshot_id, location=push.location)


def ancestor_line(push: Push) -> str:
    """`snapdir ancestors` prints this line of a push that has a predecessor."""
    return _line(created_at=push.created_at, id=push.previous_id, location=push.location)


def revision_line(push: Push) -> str:
    """`snapdir revisions` prints this line of a push to the location."""
    return _line(created_at=push.created_at, id=push.snapshot_id, previous_id=push.previous_id)


def _line(**values: str | None) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def _counted_down(at_ms: int) -> str:
    return f"{_COUNTED_DOWN_FROM - at_ms:0{_DIGITS}}"


def _id(text: str) -> SnapshotId | None:
    return None if text == _NONE else SnapshotId(text)


def _read_location(fields: Fields) -> str:
    location = fields.take("location", str, "a location")
    if not 0 < len(location) <= LOCATION_MAX_CHARACTERS:
        raise fields.unfit("location", "a location")
    try:
        location.encode()
    except UnicodeEncodeError as error:
        raise fields.unfit("location", "a location") from error
    return location


def _read_optional_id(fields: Fields, name: str) -> SnapshotId | None:
    value = fields.take_any(name)
    if value is None:
        return None
    if not isinstance(value, str) or not is_digest(value):
        raise fields.unfit(name, "a snapshot ID or null")
    return SnapshotId(value)
