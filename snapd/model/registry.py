"""What all documents of the registry share: schemas, who changed what, and strict reading.

A document is refused whole if it has a key too many, too few, or of another kind: it would be
written back without what was not understood.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from snapd.model.errors import (
    ClockBehind,
    RegistryDamaged,
    RegistryFull,
    RegistryTooNew,
    SnapsyncError,
    UsageError,
)
from snapd.model.ids import SnapshotId, is_digest
from snapd.model.names import parse_author, parse_text, shown
from snapd.model.receipts import format_moment, parse_moment
from snapd.model.settings import MIB
from snapd.model.units import format_duration
from snapd.model.versions import parse_version

T = TypeVar("T")

REGISTRY_PREFIX = "registry/"
DOCUMENT_MAX_BYTES = 8 * MIB
"""No document of the registry is larger; one that would become so is not written."""
ROOM_TO_ADD_BYTES = 4 * MIB
"""Nothing is added to a larger one, so that a promotion and a rollback always find room."""
ROOM_TO_DEPRECATE_BYTES = 5 * MIB
VERSIONS_MAX = 2000
"""Versions of one name."""
CLOCK_BEHIND_MAX_SECONDS = 1800.0
"""A clock that is further behind the last change does not write; S3 refuses a quarter of an hour,
so two honest clocks at its edges still may."""
_TOKEN_MAX_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes something, when by their clock (seconds since the epoch), and why.

    `token` is unlike any other change's: by it a writer finds out that a write whose answer was
    lost has been done.
    """

    by: str
    at: float
    token: str
    note: str = ""

    @classmethod
    def checked(cls, by: str, at: float, token: str, note: str = "") -> Author:
        """Take what a person gave; raises `InvalidName` for text that is not accepted."""
        return cls(parse_author(by), at, token, parse_text(note, "a note"))

    def time_after(self, last: float) -> str:
        """Tell the time of the change, which is never before that of the `last` one.

        A clock that is a little behind gives the last one's time. Raises `ClockBehind` for more.
        """
        if self.at < last - CLOCK_BEHIND_MAX_SECONDS:
            raise ClockBehind(
                f"this clock says {format_moment(self.at)}, which is"
                f" {format_duration(last - self.at)} before the last change"
                f" ({format_moment(last)})",
                behind_seconds=round(last - self.at, 1),
            )
        return format_moment(max(self.at, last))


@dataclass(frozen=True, slots=True)
class Deprecation:
    """Since when a version should not be used any more, who said so and why."""

    at: str
    by: str
    note: str
    change: str

    def to_json(self) -> dict[str, Any]:
        """Render for a document."""
        return {"at": self.at, "by": self.by, "note": self.note, "change": self.change}

    @classmethod
    def read(cls, fields: Fields) -> Deprecation:
        """Read what `to_json` wrote."""
        made = cls(
            fields.moment("at"), fields.author("by"), fields.text("note"), fields.token("change")
        )
        fields.end()
        return made


class Fields:
    """Takes the values out of one JSON object and refuses what is missing, unfit or left over.

    Raises `RegistryDamaged`, whose message names the key within the document.
    """

    def __init__(self, value: object, within: str) -> None:
        if not isinstance(value, dict):
            raise RegistryDamaged(f"{within or 'it'} is not a JSON object")
        self._values: dict[str, Any] = dict(value)
        self._within = f"{within}." if within else ""

    def where(self, name: str) -> str:
        """Name a key of this object within the document."""
        return f"{self._within}{name}"

    def unfit(self, name: str, kind: str) -> RegistryDamaged:
        """Make the error for a key whose value is not of the kind."""
        return RegistryDamaged(f"its {self.where(name)} is not {kind}")

    def has(self, name: str) -> bool:
        """Tell whether a key is there that was not taken yet."""
        return name in self._values

    def names(self) -> list[str]:
        """Name the keys that were not taken yet."""
        return list(self._values)

    def take(self, name: str, kind: type[T], said: str) -> T:
        """Take a value of exactly that type."""
        value = self._values.pop(name, None)
        if type(value) is not kind:
            raise self.unfit(name, said)
        return value

    def take_any(self, name: str) -> Any:
        """Take a value of whatever kind; raises only if the key is absent."""
        if name not in self._values:
            raise RegistryDamaged(f"its {self.where(name)} is missing")
        return self._values.pop(name)

    def checked(self, name: str, check: Callable[[str], T], said: str) -> T:
        """Take a text that `check` accepts, and give what it returns."""
        text = self.take(name, str, said)
        try:
            return check(text)
        except SnapsyncError as error:
            raise self.unfit(name, said) from error

    def text(self, name: str, default: str | None = None) -> str:
        """Take a text as people write it."""
        if default is not None and not self.has(name):
            return default
        return self.checked(name, lambda text: parse_text(text, "it"), "a text")

    def author(self, name: str) -> str:
        """Take who did something."""
        return self.checked(name, parse_author, "who did it")

    def token(self, name: str) -> str:
        """Take the mark of a change."""
        value = self.take(name, str, "the mark of a change")
        if not value.isalnum() or not value.isascii() or len(value) > _TOKEN_MAX_CHARACTERS:
            raise self.unfit(name, "the mark of a change")
        return value

    def moment(self, name: str) -> str:
        """Take a time, as it was written."""
        text = self.take(name, str, "a time")
        try:
            format_moment(parse_moment(text))
        except (UsageError, ValueError, OverflowError, OSError) as error:
            raise self.unfit(name, "a time") from error
        return text

    def version(self, name: str) -> str:
        """Take a version in its one spelling."""
        return self.checked(name, lambda text: str(parse_version(text)), "a version")

    def snapshot_id(self, name: str) -> SnapshotId:
        """Take a snapshot ID."""
        value = self.take(name, str, "a snapshot ID")
        if not is_digest(value):
            raise self.unfit(name, "a snapshot ID")
        return SnapshotId(value)

    def number(self, name: str, *, at_least: int = 0) -> int:
        """Take a whole number."""
        value = self.take(name, int, "a whole number")
        if value < at_least:
            raise self.unfit(name, f"a whole number from {at_least} on")
        return value

    def flag(self, name: str) -> bool:
        """Take true or false; absent is false."""
        return self.take(name, bool, "true or false") if self.has(name) else False

    def values(self, name: str) -> list[Any]:
        """Take a list."""
        return self.take(name, list, "a list")

    def below(self, name: str) -> Fields:
        """Take an object."""
        return Fields(self._values.pop(name, None), self.where(name))

    def each(self, name: str) -> list[Fields]:
        """Take a list of objects."""
        return [
            Fields(value, f"{self.where(name)}[{index}]")
            for index, value in enumerate(self.values(name))
        ]

    def mapping(self, name: str) -> dict[str, Any]:
        """Take an object as it is; absent is empty."""
        return self.take(name, dict, "a JSON object") if self.has(name) else {}

    def end(self) -> None:
        """Refuse what has not been taken."""
        if self._values:
            raise RegistryDamaged(f"its {self.where(min(self._values))} is not known here")


def read_document(data: bytes, schema: str) -> Fields:
    """Read a document of one schema, such as `snapsync.model/1`.

    Raises `RegistryTooNew` for a later number of it and `RegistryDamaged` for anything else.
    """
    try:
        document = json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RegistryDamaged(f"it is not JSON: {error}") from error
    fields = Fields(document, "")
    found = fields.take("schema", str, f"{schema!r}")
    if found != schema:
        kind, _, number = found.rpartition("/")
        ours, _, mine = schema.rpartition("/")
        if kind == ours and number.isdecimal() and len(number) < 9 and int(number) > int(mine):
            raise RegistryTooNew(f"it is a {found!r}, and this program knows {schema!r}")
        raise RegistryDamaged(f"its schema is {shown(found)}, not {schema!r}")
    return fields


def render_document(document: Mapping[str, Any], *, bytes_max: int = DOCUMENT_MAX_BYTES) -> bytes:
    """Render a document as people read it; raises `RegistryFull` if that is too large."""
    text = json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False)
    data = f"{text}\n".encode()
    if len(data) > bytes_max:
        raise RegistryFull(
            f"the document would have {len(data)} bytes, and may have {bytes_max} for this change"
        )
    return data


def is_finite_number(value: object) -> bool:
    """Tell whether a value is a number that JSON can carry."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no value")
