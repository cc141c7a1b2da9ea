"""What the daemon tells of a follow; JSON on the wire."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from snapd.model.releases import Change, Release

FollowState = Literal["starting", "absent", "pulling", "live", "behind"]
"""`absent`: nothing is live yet. `behind`: what is live is not what the reference leads to."""


@dataclass(frozen=True, slots=True)
class HookResult:
    """How a hook ended: by itself with a status, by a signal (negative), or for want of time."""

    ended_at: float
    seconds: float
    status: int | None
    """None: it could not be started."""
    timed_out: bool = False

    @property
    def failed(self) -> bool:
        """Tell whether it did not do what it should."""
        return self.timed_out or self.status != 0

    def said(self) -> str:
        """Say it for people."""
        if self.timed_out:
            return f"did not end within {self.seconds:.0f} s and was killed"
        if self.status is None:
            return "could not be started"
        ended = f"signal {-self.status}" if self.status < 0 else f"exit code {self.status}"
        return f"ended with {ended} after {self.seconds:.1f} s"


@dataclass(frozen=True, slots=True)
class FollowView:
    """How one follow stands. Times in seconds since the epoch; `link` is what readers open.

    `behind_seconds` counts from the change of the registry, as far as that can be known; 0: what is
    live is that to which the reference led at the last poll. `error` is a `SnapsyncError.to_json()`
    of what keeps it from getting on now, `last_error` of what last did. `began_at` is since when
    this daemon follows, `checked_at` when it last read the registry. `hook_running`: it runs, or is
    about to.
    """

    follow_id: str
    reference: str
    store: str
    dest: str
    link: str
    configured: bool
    state: FollowState
    uid: int | None = None
    name: str = ""
    version: str = ""
    snapshot_id: str = ""
    live_since: float | None = None
    target_version: str = ""
    target_snapshot_id: str = ""
    behind_seconds: float = 0.0
    change: Change | None = None
    previous: tuple[Release, ...] = ()
    poll_seconds: float = 0.0
    began_at: float = 0.0
    checked_at: float | None = None
    error: dict[str, Any] | None = None
    last_error: dict[str, Any] | None = None
    last_error_at: float | None = None
    job_id: str = ""
    switches: int = 0
    polls: int = 0
    poll_failures: int = 0
    has_hook: bool = False
    hook_running: bool = False
    hook_failures: int = 0
    hook: HookResult | None = None

    def to_json(self) -> dict[str, Any]:
        """Render for the wire."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> FollowView:
        """Read what `to_json` wrote; keys of a newer daemon are ignored."""
        known = {key: document[key] for key in cls.__dataclass_fields__ if key in document}
        known["previous"] = tuple(Release.from_json(each) for each in known.get("previous", ()))
        for key, kind in (("change", Change), ("hook", HookResult)):
            if (value := known.get(key)) is not None:
                fields = kind.__dataclass_fields__
                known[key] = kind(**{name: value[name] for name in fields if name in value})
        return cls(**known)
