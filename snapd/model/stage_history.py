"""Where the versions of a model stood at a time, told from its history alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from snapd.model.errors import UsageError
from snapd.model.model_history import Event
from snapd.model.names import shown
from snapd.model.receipts import parse_moment

_MOVING = frozenset({"add", "promote", "archive", "rollback"})


@dataclass(frozen=True, slots=True)
class Stood:
    """A version that was in a stage, or under an alias, at a time.

    `since` put it there; `until` took it away later, None if nothing has.
    """

    version: str
    since: Event
    until: Event | None = None


@dataclass(frozen=True, slots=True)
class Then:
    """What a stage or an alias led to at a time, what came there last first.

    `first` is the oldest event of the model; None if it has no history.
    """

    stood: tuple[Stood, ...]
    first: Event | None


class StageHistory:
    """Takes the events of a model, the latest first, and tells what a stage or an alias led to."""

    def __init__(self, selector: str, at: float, *, is_alias: bool) -> None:
        self._selector = selector
        self._at = at
        self._is_alias = is_alias
        self._later: dict[str, list[Event]] = {}
        self._settled: dict[str, Stood | None] = {}
        self._first: Event | None = None

    def take(self, event: Event) -> None:
        """Take the next older event."""
        self._first = event
        subject = self._subject(event)
        if subject is None or subject in self._settled:
            return
        if parse_moment(event.at) > self._at:
            self._later.setdefault(subject, []).append(event)
            return
        if event.to == self._selector or (self._is_alias and event.to):
            version = event.to if self._is_alias else event.version
            self._settled[subject] = Stood(version, event, self._end(subject))
        else:
            self._settled[subject] = None

    def then(self) -> Then:
        """Tell what was found, once all events have been taken."""
        stood = [each for each in self._settled.values() if each is not None]
        stood.sort(key=lambda each: -each.since.number)
        return Then(tuple(stood), self._first)

    def _subject(self, event: Event) -> str | None:
        """Name what the event moves, if it concerns us: the alias itself, or a version."""
        if self._is_alias:
            return event.alias if event.alias == self._selector else None
        return event.version if event.action in _MOVING else None

    def _end(self, subject: str) -> Event | None:
        """Find the first later event that led elsewhere."""
        for event in reversed(self._later.get(subject, [])):
            if self._is_alias or event.to != self._selector:
                return event
        return None


def stood_then(events: Iterable[Event], selector: str, at: float, *, is_alias: bool) -> Then:
    """Tell from all events of a model, the latest first, what a selector led to at a time."""
    history = StageHistory(selector, at, is_alias=is_alias)
    for event in events:
        history.take(event)
    return history.then()


def parse_time(text: str) -> tuple[float, bool]:
    """Read a time that a person wrote, and tell whether it named its zone; without one it is UTC.

    `2026-03-01`, `2026-03-01 09:00`, `2026-03-01T09:00:00+01:00`. Raises `UsageError`.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
        is_naive = moment.tzinfo is None
        # Also refuses a time whose year is no year in UTC.
        moment = moment.replace(tzinfo=UTC) if is_naive else moment.astimezone(UTC)
        return moment.timestamp(), not is_naive
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"not a time: {shown(text)}", hint="Write 2026-03-01T09:00:00Z, or +01:00 for a zone."
        ) from error
