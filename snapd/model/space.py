"""What the daemon and its clients tell each other about space; JSON on the wire."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from snapd.model.errors import UsageError
from snapd.model.eviction import Verdict


@dataclass(frozen=True, slots=True)
class SweepRequest:
    """Ask for a sweep. `free_bytes`: that many at least; otherwise down to the low watermark."""

    dryrun: bool = False
    why: bool = False
    free_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        """Render as the body of `POST /v1/sweep`."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: object) -> SweepRequest:
        """Read the body of `POST /v1/sweep`; raises `UsageError` naming what is wrong."""
        if not isinstance(document, dict):
            raise UsageError("the body is not a JSON object")
        unknown = set(document) - set(cls.__dataclass_fields__)
        if unknown:
            raise UsageError(f"unknown keys in the request: {', '.join(sorted(unknown))}")
        dryrun, why = document.get("dryrun", False), document.get("why", False)
        free_bytes = document.get("free_bytes", 0)
        if not isinstance(dryrun, bool) or not isinstance(why, bool):
            raise UsageError("'dryrun' and 'why' are true or false")
        if isinstance(free_bytes, float) and free_bytes.is_integer():
            free_bytes = int(free_bytes)  # JSON has one kind of number
        if isinstance(free_bytes, bool) or not isinstance(free_bytes, int) or free_bytes < 0:
            raise UsageError("'free_bytes' is a number of bytes")
        return cls(dryrun, why, free_bytes)


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep did, or would do; sizes in bytes as they are allocated on the disk.

    `kept` is filled if the reasons were asked for. `blobs_in_use`: another process was pulling, so
    objects whose snapshots went are left for a later sweep.
    """

    dryrun: bool
    used_bytes: int
    needed_bytes: int
    freed_bytes: int
    evicted: tuple[Verdict, ...] = ()
    kept: tuple[Verdict, ...] = ()
    orphan_bytes: int = 0
    blobs_removed: int = 0
    blobs_in_use: bool = False

    @property
    def satisfied(self) -> bool:
        """Tell whether as much came free as was needed."""
        return self.freed_bytes >= self.needed_bytes

    def to_json(self) -> dict[str, Any]:
        """Render for the wire."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> SweepReport:
        """Read what `to_json` wrote; keys of a newer daemon are ignored."""
        known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        for name in ("evicted", "kept"):
            known[name] = tuple(map(Verdict.from_json, document.get(name, ())))
        return cls(**known)


@dataclass(frozen=True, slots=True)
class PlanView:
    """What a pull would do now. `bytes_*` go by the manifest; the others are blocks on the disk.

    `available_bytes` may be used without evicting anything; `fits` says whether the pull would be
    let in, after the evictions listed. `kept` names the largest snapshots that stay, and why.
    """

    snapshot_id: str
    store: str
    complete: bool
    objects_total: int
    objects_cached: int
    bytes_total: int
    bytes_cached: int
    required_bytes: int = 0
    available_bytes: int = 0
    freed_bytes: int = 0
    fits: bool = True
    evict: tuple[Verdict, ...] = ()
    kept: tuple[Verdict, ...] = ()

    @property
    def bytes_to_fetch(self) -> int:
        """How many bytes have to come from the store."""
        return self.bytes_total - self.bytes_cached

    def to_json(self) -> dict[str, Any]:
        """Render for the wire."""
        return {**asdict(self), "bytes_to_fetch": self.bytes_to_fetch}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> PlanView:
        """Read what `to_json` wrote; keys of a newer daemon are ignored."""
        known = {name: document[name] for name in cls.__dataclass_fields__ if name in document}
        for name in ("evict", "kept"):
            known[name] = tuple(map(Verdict.from_json, document.get(name, ())))
        return cls(**known)
