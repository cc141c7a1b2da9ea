"""What a doctor finds: one line a check, with what to do; JSON on the wire."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from snapd.model.errors import ExitCode, SnapsyncError
from snapd.model.units import format_duration, format_size

Verdict = Literal["ok", "warning", "failure"]

SKEW_WARNING_SECONDS = 30.0
SKEW_FAILURE_SECONDS = 300.0
"""Beyond a quarter of an hour AWS refuses signatures; certificates and tokens are stricter."""
EXPIRY_WARNING_SECONDS = 600.0
OPEN_FILES_MIN = 4096
INODES_FREE_MIN_FRACTION = 0.05
REMOTE_FILE_SYSTEMS = frozenset({"nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "ceph", "9p"})


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `name` is stable, with what it is about behind a colon."""

    name: str
    verdict: Verdict
    message: str
    hint: str = ""
    exit_code: int = 0
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Render for the wire."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Check:
        """Read what `to_json` wrote; keys of a newer daemon are ignored."""
        return cls(**{key: document[key] for key in cls.__dataclass_fields__ if key in document})


def ok(name: str, message: str, **details: Any) -> Check:
    """Say that something is as it should be."""
    return Check(name, "ok", message, details=details)


def warning(name: str, message: str, hint: str, **details: Any) -> Check:
    """Say that something works, but not as well or not as long as it should."""
    return Check(name, "warning", message, hint, details=details)


def failure(name: str, error: SnapsyncError, **details: Any) -> Check:
    """Say that something does not work, as an error that a pull would meet."""
    told = {"code": error.code, **error.details, **details}
    return Check(name, "failure", error.message, error.hint, int(error.exit_code), told)


def exit_code_of(checks: Iterable[Check]) -> int:
    """Choose what the doctor exits with: the code of the first failure; warnings are no failure."""
    for check in checks:
        if check.verdict == "failure":
            return check.exit_code or int(ExitCode.FAILED)
    return int(ExitCode.DONE)


def judge_skew(name: str, skew_seconds: float, store: str) -> Check:
    """Judge how far this node's clock is ahead (positive) or behind that of a store."""
    off = abs(skew_seconds)
    details = {"skew_seconds": round(skew_seconds, 1)}
    if off < SKEW_WARNING_SECONDS:
        return ok(name, f"the clock agrees with {store} (within {max(1.0, off):.0f} s)", **details)
    side = "ahead of" if skew_seconds > 0 else "behind"
    message = f"this node's clock is {format_duration(off)} {side} {store}"
    hint = "Synchronise the clock (chronyc tracking, timedatectl): signatures carry the time."
    verdict: Verdict = "failure" if off >= SKEW_FAILURE_SECONDS else "warning"
    code = int(ExitCode.NOT_ALLOWED) if verdict == "failure" else 0
    return Check(name, verdict, message, hint, code, details)


def judge_credentials(name: str, identity: str, expires_at: float | None, *, now: float) -> Check:
    """Judge who the node is at a store, and for how long."""
    details = {"identity": identity, "expires_at": expires_at}
    if expires_at is None:
        return ok(name, f"{identity}; does not expire, as far as is known", **details)
    left = expires_at - now
    if left <= 0:
        message = f"{identity}; expired {format_duration(-left)} ago"
        hint = "Log in again (aws sso login) or look why the role can't be assumed."
        return Check(name, "failure", message, hint, int(ExitCode.NOT_ALLOWED), details)
    said = f"{identity}; expires in {format_duration(left)}"
    if left < EXPIRY_WARNING_SECONDS:
        hint = "They should have been refreshed by now: look at the daemon's log for the reason."
        return warning(name, said, hint, **details)
    return ok(name, said, **details)


def judge_disk(
    *, free_bytes: int, total_bytes: int, min_free_bytes: int, inodes_free: int, inodes: int
) -> list[Check]:
    """Judge the room on the cache's file system; `inodes` is 0 where they are not counted."""
    found = []
    message = f"{format_size(free_bytes)} free of {format_size(total_bytes)}"
    details = {"free_bytes": free_bytes, "total_bytes": total_bytes}
    if free_bytes <= min_free_bytes:
        hint = "Free space, or set `[cache] max_bytes`: pulls that need room are refused."
        code = int(ExitCode.NO_SPACE)
        message += f"; pulls leave {format_size(min_free_bytes)} free"
        found.append(Check("disk", "failure", message, hint, code, details))
    elif free_bytes <= 2 * min_free_bytes:
        hint = "The cache evicts what nobody holds; `snapctl leases` shows what stays."
        found.append(warning("disk", message, hint, **details))
    else:
        found.append(ok("disk", message, **details))
    if inodes:
        said = f"{inodes_free} of {inodes} inodes free"
        if inodes_free < inodes * INODES_FREE_MIN_FRACTION:
            hint = "Each object of a snapshot is a file: make the file system with more inodes."
            found.append(warning("inodes", said, hint, free=inodes_free, total=inodes))
        else:
            found.append(ok("inodes", said, free=inodes_free, total=inodes))
    return found


def judge_open_files(limit: int, *, name: str = "open files") -> Check:
    """Judge how many files the daemon may have open."""
    if limit < OPEN_FILES_MIN:
        hint = "Raise LimitNOFILE of the service (ulimit -n): each transfer and client needs one."
        return warning(name, f"at most {limit}", hint, limit=limit)
    return ok(name, f"up to {limit}", limit=limit)
