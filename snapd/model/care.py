"""What the daemon and its clients tell each other about the care of the cache; JSON on the wire."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

ScrubPhase = Literal["off", "waiting", "running"]

ProblemKind = Literal["bytes", "missing", "mode", "type", "extra"]
"""What can be wrong with a name in a tree."""


@dataclass(frozen=True, slots=True)
class ScrubView:
    """How the scrub stands. Counts are since the daemon started; times are 0 if not yet."""

    phase: ScrubPhase
    progress: float
    """Which part of the running round is done, 0 to 1."""
    bytes_per_second: int
    round_began_at: float
    round_ended_at: float
    objects: int
    size_bytes: int
    damaged: int
    repaired: int
    waiting_for_repair: int
    """Objects that were found damaged and can't be had at the moment."""

    def to_json(self) -> dict[str, Any]:
        """Render for the wire."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class TreeProblem:
    """One name in a tree that is not as the manifest says. `object` is empty for directories."""

    path: str
    kind: ProblemKind
    object: str = ""
    mode: int = 0

    def to_json(self) -> dict[str, Any]:
        """Render for the wire."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ProofProgress:
    """How far the proof of a tree is."""

    files_done: int = 0
    files_total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0

    def to_json(self) -> dict[str, Any]:
        """Render for the wire."""
        return {"state": "running", **asdict(self)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> ProofProgress:
        """Read what `to_json` wrote; keys of a newer daemon are ignored."""
        return cls(
            **{name: document[name] for name in cls.__dataclass_fields__ if name in document}
        )


@dataclass(frozen=True, slots=True)
class Proof:
    """A tree that is what its ID says; `repaired` counts the objects that it took to get there."""

    snapshot_id: str
    tree: str
    files: int
    size_bytes: int
    repaired: int = 0

    def to_json(self) -> dict[str, Any]:
        """Render for the wire."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Proof:
        """Read what `to_json` wrote; keys of a newer daemon are ignored."""
        return cls(
            **{name: document[name] for name in cls.__dataclass_fields__ if name in document}
        )
