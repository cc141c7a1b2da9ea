"""Why a cached snapshot may not be evicted: who holds it, since when, until when; JSON on disk too.

A lease is looked at anew whenever it counts: one whose process, link or pod is gone holds nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

from snapd.model.errors import InvalidId, UsageError
from snapd.model.ids import SnapshotId, parse_snapshot_id

if TYPE_CHECKING:
    from snapd.model.jobs import SnapshotView

RequestedKind = Literal["process", "link", "pod", "pin"]
LeaseKind = Literal["process", "link", "pod", "pin", "follow", "time"]

REASON_MAX_CHARACTERS = 200
_PATH_MAX_CHARACTERS = 4096
_POD_UID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}", re.ASCII)
_LEASE_ID = re.compile(r"[0-9a-f]{12}-[0-9a-f]{12}", re.ASCII)


def is_lease_id(text: str) -> bool:
    """Tell whether `text` could name a lease, hence a file of our own."""
    return _LEASE_ID.fullmatch(text) is not None


def lease_prefix(snapshot_id: SnapshotId) -> str:
    """Give how the IDs of all leases of a snapshot begin."""
    return f"{snapshot_id[:12]}-"


def parse_pod_uid(text: str) -> str:
    """Read a pod's UID as Kubernetes writes it; raises `UsageError` naming the text."""
    if _POD_UID.fullmatch(text) is None:
        raise UsageError(
            f"not a pod UID: {text[:80]!r}",
            hint="Take it from the downward API: fieldPath: metadata.uid.",
        )
    return text


def fit_reason(text: str) -> str:
    """Shorten a text, such as a command line, to what a lease may say, without control signs."""
    shown = "".join(sign if sign.isprintable() else "?" for sign in text)
    if len(shown) <= REASON_MAX_CHARACTERS:
        return shown
    return f"{shown[: REASON_MAX_CHARACTERS - 3]}..."


class LeaseRequest(NamedTuple):
    """Ask that a snapshot is kept. `subject` is a link's absolute path or a pod's UID, else empty.

    A process is never named: it is the one that asks.
    """

    snapshot_id: SnapshotId
    kind: RequestedKind
    subject: str = ""
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Render as the body of `POST /v1/leases`."""
        return {
            "id": self.snapshot_id,
            "kind": self.kind,
            "subject": self.subject,
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, document: object) -> LeaseRequest:
        """Read the body of `POST /v1/leases`; raises `UsageError` naming what is wrong."""
        if not isinstance(document, dict):
            raise UsageError("the body is not a JSON object")
        unknown = set(document) - {"id", "kind", "subject", "reason"}
        if unknown:
            raise UsageError(f"unknown keys in the request: {', '.join(sorted(unknown))}")
        fields = {"id": "", "kind": "", "subject": "", "reason": ""} | document
        if not all(isinstance(value, str) for value in fields.values()):
            raise UsageError("'id', 'kind', 'subject' and 'reason' are strings")
        if fields["kind"] not in get_args(RequestedKind):
            raise UsageError(
                f"unknown kind of lease: {fields['kind'][:80]!r}",
                hint="Use process, link, pod or pin.",
            )
        kind = cast(RequestedKind, fields["kind"])
        snapshot_id = parse_snapshot_id(fields["id"])
        request = cls(snapshot_id, kind, fields["subject"], fields["reason"])
        request.check()
        return request

    def check(self) -> None:
        """Raise `UsageError` if subject or reason are unfit."""
        if self.kind == "pod":
            parse_pod_uid(self.subject)
        elif self.kind == "link":
            _check_path(self.subject)
        elif self.subject:
            raise UsageError(f"a {self.kind} lease has no subject: {self.subject[:80]!r}")
        if len(self.reason) > REASON_MAX_CHARACTERS or not self.reason.isprintable():
            raise UsageError(
                f"a reason has at most {REASON_MAX_CHARACTERS} characters, all of them printable"
            )


def _check_path(path: str) -> None:
    try:
        path.encode("utf-8", "surrogateescape")
        fit = path.startswith("/") and "\0" not in path and len(path) <= _PATH_MAX_CHARACTERS
    except UnicodeEncodeError:
        fit = False
    if not fit:
        raise UsageError(f"a link is named by its absolute path, not by {path[:80]!r}")


class ProcessMark(NamedTuple):
    """What tells a process from every other one that ever has its number.

    `started_ticks` counts from the start of the machine that `boot_id` names; 0 if it can't be
    known. `pid_namespace` is where the number means something.
    """

    pid: int
    started_ticks: int = 0
    boot_id: str = ""
    pid_namespace: str = ""


class Lease(NamedTuple):
    """One reason to keep one snapshot. Times in seconds since the epoch.

    `uid` is the user who asked. `until` is set only where time ends the lease.
    """

    lease_id: str
    snapshot_id: SnapshotId
    kind: LeaseKind
    since: float
    until: float | None = None
    subject: str = ""
    reason: str = ""
    uid: int | None = None
    process: ProcessMark | None = None

    @property
    def holder(self) -> str:
        """Name who holds the snapshot: a process, a path, a pod, a user."""
        if self.process is not None:
            return f"process {self.process.pid}"
        if self.kind == "link":
            return f"link {_printable(self.subject)}"
        if self.kind == "pod":
            return f"pod {self.subject}"
        if self.kind == "follow":
            return f"follow at {_printable(self.subject)}"
        if self.kind == "time":
            return "whoever got its path"
        return "pin" if self.uid is None else f"pin of uid {self.uid}"

    def describe(self) -> str:
        """Say who holds the snapshot and why, to a person: `process 12 (python train.py)`."""
        if self.until is not None:
            return f"its path was given out; held until {moment(self.until)}"
        return f"{self.holder} ({self.reason})" if self.reason else self.holder

    def same_holder(self, other: Lease) -> bool:
        """Tell whether both say the same, whenever and in whatever words."""
        mine = (self.snapshot_id, self.kind, self.subject, self.process)
        return mine == (other.snapshot_id, other.kind, other.subject, other.process)

    def to_json(self) -> dict[str, Any]:
        """Render for the disk and the wire."""
        process = None if self.process is None else self.process._asdict()
        return self._asdict() | {"process": process}

    @classmethod
    def from_json(cls, document: object) -> Lease:
        """Read what `to_json` wrote; keys of a newer version are ignored.

        Raises `UsageError` if it is no lease.
        """
        if not isinstance(document, dict):
            raise UsageError("a lease is a JSON object")
        known = {name: document[name] for name in cls._fields if name in document}
        process = known.get("process")
        try:
            if process is not None:
                known["process"] = _known(ProcessMark, process)
            lease = cls(**known)
            parse_snapshot_id(lease.snapshot_id)
        except (TypeError, AttributeError, InvalidId) as exc:
            raise UsageError(f"not a lease: {exc}") from exc
        if lease.kind not in get_args(LeaseKind):
            raise UsageError(f"unknown kind of lease: {lease.kind!r}")
        return lease


def _known(kind: type[ProcessMark], document: Mapping[str, Any]) -> ProcessMark:
    return kind(**{name: document[name] for name in kind._fields if name in document})


def time_lease(view: SnapshotView, *, lease_seconds: float, now: float) -> Lease | None:
    """Make the lease of whoever got the path of a snapshot lately; None if that is over.

    A use that lies further ahead than a lease lasts was written down by a clock that was wrong;
    it holds nothing.
    """
    if not abs(now - view.used_at) < lease_seconds:
        return None
    snapshot_id = SnapshotId(view.snapshot_id)
    until = view.used_at + lease_seconds
    return Lease("", snapshot_id, "time", since=view.used_at, until=until)


def moment(seconds: float) -> str:
    """`1_700_000_000` -> `2023-11-14T22:13:20Z`."""
    from datetime import UTC, datetime

    text = datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="seconds")
    return text.replace("+00:00", "Z")


def _printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)
