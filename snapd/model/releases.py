"""Where a reference leads, what made it so, and what is live of it on a node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from snapd.model.errors import SnapsyncError, UsageError
from snapd.model.ids import SnapshotId, parse_snapshot_id

if TYPE_CHECKING:
    from snapd.model.references import Resolved


@dataclass(frozen=True, slots=True)
class Change:
    """The change of the registry after which a reference leads where it does."""

    at: float
    by: str = ""
    action: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Sighting:
    """Where a reference led at a poll, and what made it so."""

    resolved: Resolved
    change: Change


@dataclass(frozen=True, slots=True)
class Release:
    """A version that is, was or is to be live; `since` is when it became so on this node."""

    snapshot_id: SnapshotId
    name: str = ""
    version: str = ""
    """Empty if only the link tells of it."""
    since: float = 0.0

    @classmethod
    def of(cls, sighting: Sighting) -> Release:
        """Make the release that a reference leads to."""
        resolved = sighting.resolved
        return cls(resolved.snapshot_id, resolved.name, resolved.version)

    @classmethod
    def from_json(cls, document: object) -> Release:
        """Read what `asdict` made; raises `UsageError` if it is none."""
        if not isinstance(document, dict):
            raise UsageError("a release is a JSON object")
        try:
            made = cls(
                **{key: document[key] for key in cls.__dataclass_fields__ if key in document}
            )
            parse_snapshot_id(made.snapshot_id)
        except (TypeError, AttributeError, SnapsyncError) as error:
            raise UsageError(f"not a release: {error}") from error
        return made


def changed_since(change: Change, unchanged_at: float | None, now: float) -> float:
    """Tell since when a reference leads elsewhere, whatever the writer's clock said.

    The change can't have come before the last poll that saw the old state, nor after now.
    """
    at = min(change.at, now) if change.at > 0 else now
    return at if unchanged_at is None else max(at, min(unchanged_at, now))
