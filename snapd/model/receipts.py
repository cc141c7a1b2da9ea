"""What a finished pull leaves behind as evidence, and what comes of checking it again.

`docs/receipts.md` describes the document. Times are seconds since the epoch here and RFC 3339 in
UTC in the document.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from snapd.model.errors import UsageError
from snapd.model.ids import SnapshotId, parse_snapshot_id

SCHEMA = "snapsync.receipt/1"

_PLAIN = re.compile(r"[\w.,:/+@%~-]+", re.ASCII)


class Share(NamedTuple):
    """Some of a snapshot's distinct objects, and their bytes as the manifest states them."""

    objects: int
    size_bytes: int


class Span(NamedTuple):
    """When objects that were in the cache already had been verified.

    `earliest` and `latest` are None if nothing is known of any of them; `unknown` counts those of
    which nothing is.
    """

    earliest: float | None
    latest: float | None
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class Receipt:
    """One finished pull: what it brought, from where, and which bytes were proven when.

    `verified` arrived during the pull and was hashed on the way in; `cached` was there already and
    had been verified `cached_when`. `tree` and `destination` are where the snapshot lies; the copy
    that the cache keeps does not name them.
    """

    snapshot_id: SnapshotId
    store: str
    pulled_at: float
    version: str
    host: str
    files: int
    directories: int
    size_bytes: int
    verified: Share
    cached: Share
    cached_when: Span
    tree: str = ""
    destination: str = ""

    @property
    def objects(self) -> int:
        """How many distinct objects the snapshot has."""
        return self.verified.objects + self.cached.objects

    def to_json(self) -> dict[str, Any]:
        """Render the document."""
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "id": self.snapshot_id,
            "store": self.store,
            "pulled_at": format_moment(self.pulled_at),
            "version": self.version,
            "host": self.host,
            "files": self.files,
            "directories": self.directories,
            "bytes": self.size_bytes,
            "objects": self.objects,
            "verified": {"objects": self.verified.objects, "bytes": self.verified.size_bytes},
            "cached": {
                "objects": self.cached.objects,
                "bytes": self.cached.size_bytes,
                "verified_from": _moment_or_none(self.cached_when.earliest),
                "verified_until": _moment_or_none(self.cached_when.latest),
                "objects_unrecorded": self.cached_when.unknown,
            },
        }
        places = {"tree": self.tree, "dest": self.destination}
        return document | {name: place for name, place in places.items() if place}

    @classmethod
    def from_json(cls, document: object) -> Receipt:
        """Read a document; raises `UsageError` saying what keeps it from being a receipt."""
        reader = _Reader(document)
        schema = reader.text("schema")
        if schema != SCHEMA:
            raise UsageError(
                f"it is a {schema!r}, and this program reads {SCHEMA!r}",
                hint="Use the version of snapsync that wrote it.",
            )
        verified, cached = reader.below("verified"), reader.below("cached")
        receipt = cls(
            snapshot_id=parse_snapshot_id(reader.text("id")),
            store=reader.text("store"),
            pulled_at=parse_moment(reader.text("pulled_at")),
            version=reader.text("version"),
            host=reader.text("host"),
            files=reader.count("files"),
            directories=reader.count("directories"),
            size_bytes=reader.count("bytes"),
            verified=Share(verified.count("objects"), verified.count("bytes")),
            cached=Share(cached.count("objects"), cached.count("bytes")),
            cached_when=Span(
                cached.moment("verified_from"),
                cached.moment("verified_until"),
                cached.count("objects_unrecorded"),
            ),
            tree=reader.text("tree", default=""),
            destination=reader.text("dest", default=""),
        )
        if receipt.objects != reader.count("objects"):
            raise UsageError("its objects are not the sum of those verified and those cached")
        return receipt

    @classmethod
    def parse(cls, text: str | bytes) -> Receipt:
        """Read a document's text; raises `UsageError` as `from_json` does."""
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as unreadable:
            raise UsageError(f"it is not JSON: {unreadable}") from unreadable
        return cls.from_json(document)

    def at(self, *, tree: str, destination: str) -> Receipt:
        """Say where the snapshot lies."""
        return replace(self, tree=tree, destination=destination)


@dataclass(frozen=True, slots=True)
class Attestation:
    """A directory that was hashed anew at `verified_at` and is what a receipt says it is.

    `withheld`: but for set-uid, set-gid and sticky bits, which were not given to it.
    """

    receipt: Receipt
    directory: str
    files: int
    size_bytes: int
    verified_at: float
    withheld: bool = False

    def line(self) -> str:
        """Say all of it in one line of words and `name=value` pairs, for a log."""
        receipt = self.receipt
        pairs = {
            "id": receipt.snapshot_id,
            "files": str(self.files),
            "bytes": str(self.size_bytes),
            "store": receipt.store or "unknown",
            "pulled_at": format_moment(receipt.pulled_at),
            "verified_at": format_moment(self.verified_at),
            "path": self.directory,
        }
        if self.withheld:
            pairs["special_bits"] = "withheld"
        words = (f"{name}={_quoted(value)}" for name, value in pairs.items())
        return f"snapsync attest ok {' '.join(words)}"

    def to_json(self) -> dict[str, Any]:
        """Render for `--json`."""
        return {
            "id": self.receipt.snapshot_id,
            "path": self.directory,
            "files": self.files,
            "bytes": self.size_bytes,
            "verified_at": format_moment(self.verified_at),
            "special_bits_withheld": self.withheld,
            "receipt": self.receipt.to_json(),
        }


def format_moment(seconds: float) -> str:
    """1767225600.25 -> `2026-01-01T00:00:00.250Z`."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"


def parse_moment(text: str) -> float:
    """Read a time that names its offset from UTC; raises `UsageError` otherwise."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as exc:
        raise UsageError(f"not a time: {text!r}") from exc
    if moment.tzinfo is None:
        raise UsageError(f"a time without an offset from UTC: {text!r}")
    return moment.timestamp()


def _moment_or_none(seconds: float | None) -> str | None:
    return None if seconds is None else format_moment(seconds)


def _quoted(value: str) -> str:
    """Leave a plain word as it is; anything else becomes a JSON string, which has no newline."""
    return value if _PLAIN.fullmatch(value) else json.dumps(value)


class _Reader:
    """Takes values out of a JSON object and names the key that is missing or of another kind."""

    def __init__(self, document: object, within: str = "") -> None:
        if not isinstance(document, dict):
            raise UsageError(f"{within or 'it'} is not a JSON object")
        self._document = document
        self._within = f"{within}." if within else ""

    def text(self, name: str, *, default: str | None = None) -> str:
        value = self._document.get(name, default)
        if not isinstance(value, str):
            raise self._unfit(name, "a string")
        return value

    def count(self, name: str) -> int:
        value = self._document.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self._unfit(name, "a number of things")
        return value

    def moment(self, name: str) -> float | None:
        return None if self._document.get(name) is None else parse_moment(self.text(name))

    def below(self, name: str) -> _Reader:
        return _Reader(self._document.get(name), f"{self._within}{name}")

    def _unfit(self, name: str, kind: str) -> UsageError:
        return UsageError(f"its {self._within}{name} is not {kind}")
