"""What the daemon and its clients tell each other about a pull; JSON on the wire."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

from snapd.model.errors import UsageError
from snapd.model.ids import SnapshotId, parse_snapshot_id

JobState = Literal[
    "queued",
    "reading_manifest",
    "planning",
    "waiting_for_space",
    "fetching",
    "publishing",
    "done",
    "failed",
    "cancelled",
]
UNDER_WAY: frozenset[str] = frozenset({"reading_manifest", "planning", "fetching", "publishing"})
"""The states of a job that works; the others wait, or have ended."""
ENDED_STATES: frozenset[str] = frozenset({"done", "failed", "cancelled"})

Priority = Literal["blocking", "prefetch"]
"""`blocking`: somebody waits for it. `prefetch`: it may go on whenever nobody blocks."""


class Step(NamedTuple):
    """A state that a job entered, and when, in seconds since the epoch."""

    state: JobState
    began_at: float


@dataclass(frozen=True, slots=True)
class PullRequest:
    """Ask for a snapshot on this node."""

    snapshot_id: SnapshotId
    store: str
    priority: Priority = "blocking"
    wait_for_space: bool = False
    """Wait until there is room instead of being refused, if it can ever fit."""

    def to_json(self) -> dict[str, Any]:
        """Render as the body of `POST /v1/pulls`."""
        document: dict[str, Any] = {
            "id": self.snapshot_id,
            "store": self.store,
            "priority": self.priority,
        }
        return document | ({"wait_for_space": True} if self.wait_for_space else {})

    @classmethod
    def from_json(cls, document: object) -> PullRequest:
        """Read the body of `POST /v1/pulls`; raises `UsageError` naming what is wrong."""
        if not isinstance(document, dict):
            raise UsageError("the body is not a JSON object")
        unknown = set(document) - {"id", "store", "priority", "detach", "wait_for_space"}
        if unknown:
            raise UsageError(f"unknown keys in the request: {', '.join(sorted(unknown))}")
        snapshot_id, store = document.get("id"), document.get("store")
        if not isinstance(snapshot_id, str) or not isinstance(store, str):
            raise UsageError("the request needs 'id' and 'store', both strings")
        priority = document.get("priority", "blocking")
        if priority not in get_args(Priority):
            raise UsageError(f"unknown priority: {priority!r}", hint="Use blocking or prefetch.")
        wait_for_space = document.get("wait_for_space", False)
        if not isinstance(wait_for_space, bool):
            raise UsageError(f"'wait_for_space' is true or false, not {wait_for_space!r}")
        return cls(parse_snapshot_id(snapshot_id), store, priority, wait_for_space)


@dataclass(frozen=True, slots=True)
class JobView:
    """One job as it stands at one moment; what watchers are sent and `snapctl jobs` lists.

    Sizes in bytes, times in seconds since the epoch. `bytes_total` and `objects_total` count the
    snapshot's distinct objects; of those, `*_cached` were there already and `*_fetched` came from
    the store or from another job's running flight. `error` is a `SnapsyncError.to_json()`.
    """

    job_id: str
    snapshot_id: str
    store: str
    state: JobState
    priority: Priority = "blocking"
    queue_position: int = 0
    waiters: int = 0
    objects_total: int = 0
    objects_cached: int = 0
    objects_fetched: int = 0
    bytes_total: int = 0
    bytes_cached: int = 0
    bytes_fetched: int = 0
    bytes_per_second: float = 0.0
    eta_seconds: float | None = None
    retries: int = 0
    created_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    tree: str = ""
    error: dict[str, Any] | None = None

    @property
    def ended(self) -> bool:
        """Tell whether nothing will change any more."""
        return self.state in ENDED_STATES

    def to_json(self) -> dict[str, Any]:
        """Render for the wire."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> JobView:
        """Read what `to_json` wrote; keys of a newer daemon are ignored."""
        known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        return cls(**known)

    def with_changes(self, **changes: Any) -> JobView:
        """Copy with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class SnapshotView:
    """One complete snapshot in the cache, as `snapctl cache ls` lists it.

    `size_bytes` is that of its distinct objects, as the manifest states it.
    """

    snapshot_id: str
    store: str
    tree: str
    files: int
    objects: int
    size_bytes: int
    completed_at: float
    used_at: float

    def to_json(self) -> dict[str, Any]:
        """Render for the wire."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> SnapshotView:
        """Read what `to_json` wrote; keys of a newer daemon are ignored."""
        return cls(
            **{name: document[name] for name in cls.__dataclass_fields__ if name in document}
        )
