"""The history of a model: one event after another, never changed; `docs/registry.md`.

The document keeps the latest events. Older ones move, oldest first and always so many, to pages of
their own that are written once; each page names the digest of the one before, and the document that
of the last, so that none can be changed or lost unnoticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from snapd.model.errors import RegistryDamaged
from snapd.model.ids import Digest, is_digest
from snapd.model.names import parse_name
from snapd.model.registry import Fields, read_document, render_document

PAGE_SCHEMA = "snapsync.model-history/1"
PAGE_EVENTS = 200
"""Events of one page."""
KEPT_EVENTS_MAX = 400
"""Beyond so many a page is split off the document, which so keeps the latest 200 at least."""

Action: TypeAlias = Literal["add", "promote", "archive", "rollback", "alias", "deprecate"]
ACTIONS: tuple[Action, ...] = get_args(Action)


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to one version: `stage` from one to another, or its alias or its deprecation.

    `number` counts from 1 without gaps. Events of one write share `change`.
    """

    number: int
    at: str
    by: str
    action: Action
    version: str
    from_: str
    """The stage before, or of an alias the version before; empty: there was none."""
    to: str
    """The stage afterwards, or of an alias the version; empty: there is none."""
    note: str
    change: str
    alias: str = ""

    def to_json(self) -> dict[str, Any]:
        """Render for a document."""
        document: dict[str, Any] = {
            "number": self.number,
            "at": self.at,
            "by": self.by,
            "action": self.action,
            "version": self.version,
            "from": self.from_,
            "to": self.to,
            "note": self.note,
            "change": self.change,
        }
        return document | ({"alias": self.alias} if self.alias else {})

    @classmethod
    def read(cls, fields: Fields) -> Event:
        """Read what `to_json` wrote."""
        action = fields.take("action", str, "an action")
        if action not in ACTIONS:
            raise fields.unfit("action", f"one of {', '.join(ACTIONS)}")
        made = cls(
            fields.number("number", at_least=1),
            fields.moment("at"),
            fields.author("by"),
            action,
            fields.version("version"),
            fields.text("from"),
            fields.text("to"),
            fields.text("note"),
            fields.token("change"),
            fields.text("alias", ""),
        )
        fields.end()
        return made


@dataclass(frozen=True, slots=True)
class Archived:
    """How many events have moved to pages, and the digest of the last page's bytes."""

    events: int
    digest: Digest

    def to_json(self) -> dict[str, Any]:
        """Render for a document."""
        return {"events": self.events, "digest": self.digest}

    @classmethod
    def read(cls, fields: Fields) -> Archived:
        """Read what `to_json` wrote."""
        events = fields.number("events", at_least=PAGE_EVENTS)
        if events % PAGE_EVENTS:
            raise fields.unfit("events", f"a multiple of {PAGE_EVENTS}")
        digest = fields.take("digest", str, "a digest")
        if not is_digest(digest):
            raise fields.unfit("digest", "a digest")
        fields.end()
        return cls(events, Digest(digest))


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """`PAGE_EVENTS` events that came one after another, and the page before."""

    name: str
    events: tuple[Event, ...]
    previous: Digest | None

    def render(self) -> bytes:
        """Render the page as it is stored."""
        return render_document(
            {
                "schema": PAGE_SCHEMA,
                "name": self.name,
                "previous": self.previous,
                "events": [event.to_json() for event in self.events],
            }
        )

    @classmethod
    def parse(cls, data: bytes) -> HistoryPage:
        """Read a page; raises `RegistryDamaged` or `RegistryTooNew`."""
        fields = read_document(data, PAGE_SCHEMA)
        name = fields.checked("name", parse_name, "a name")
        previous = fields.take_any("previous")
        if previous is not None and not (isinstance(previous, str) and is_digest(previous)):
            raise fields.unfit("previous", "a digest or null")
        events = tuple(Event.read(each) for each in fields.each("events"))
        fields.end()
        if len(events) != PAGE_EVENTS:
            raise RegistryDamaged(f"it has {len(events)} events instead of {PAGE_EVENTS}")
        check_numbers(events, events[0].number)
        return cls(name, events, None if previous is None else Digest(previous))


def check_numbers(events: Sequence[Event], first: int) -> None:
    """Check that events count on from `first`; raises `RegistryDamaged`."""
    for number, event in enumerate(events, start=first):
        if event.number != number:
            raise RegistryDamaged(f"its event {number} is missing or not in its place")
