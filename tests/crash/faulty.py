"""What a network and a store can do to a pull: the catalogue, for tests and for comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.servers.faultproxy import Fault, Kind

DEADLINE_SECONDS = 6.0
STALL_SECONDS = 1.0
RANGE_BYTES = 32768


def transfer_table(attempts_max: int, deadline_seconds: float) -> str:
    """Say how a daemon pulls that gives a request up so soon."""
    return f"""
[transfer]
connect_timeout_seconds = 1.0
stall_timeout_seconds = {STALL_SECONDS}
attempts_max = {attempts_max}
backoff_base_seconds = 0.05
backoff_max_seconds = 0.2
deadline_seconds = {deadline_seconds}
large_object_bytes = {2 * RANGE_BYTES}
range_bytes = {RANGE_BYTES}
"""


PATIENCE = transfer_table(3, DEADLINE_SECONDS)
PATIENT = transfer_table(1000, 60.0)

ANY = r"/\.(manifests|objects)/"
TRICKLE = {"chunk_bytes": 2048, "seconds": 0.02}
IN_A_SECOND = {"Retry-After": "1"}
IN_AN_HOUR = {"Retry-After": "3600"}


@dataclass(frozen=True)
class Case:
    """One fault: what it is, how it looks, and how a pull must end if it never stops.

    `ends` is the code of the error in which it must end then; empty: the pull succeeds even so.
    `ends_once` is the same for a fault that comes once.
    """

    name: str
    kind: Kind
    ends: str
    ends_once: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def once(self, path: str = ANY, *, method: str = "") -> Fault:
        return Fault(self.kind, path=path, method=method, times=1, **self.options)

    def always(self, path: str = ANY) -> Fault:
        return Fault(self.kind, path=path, times=None, **self.options)


def _answer(status: int, code: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    return {"status": status, "code": code, "headers": headers or {}}


CASES = (
    Case("connection reset", "reset", "connection_lost"),
    Case("closed in mid-body", "close", "connection_lost", options={"after_bytes": 100}),
    Case("reset in mid-body", "cut", "connection_lost", options={"after_bytes": 100}),
    Case("truncated, right length", "shorten", "digest_mismatch", options={"after_bytes": 100}),
    Case("stalls in mid-body", "stall", "stalled", options={"after_bytes": 100}),
    Case("never answers", "hang", "stalled"),
    Case("slow trickle", "trickle", "", options=TRICKLE),
    Case("wrong bytes", "flip", "digest_mismatch", options={"after_bytes": 100}),
    Case("500", "answer", "store_failing", options=_answer(500, "InternalError")),
    Case("500 without a body", "answer", "store_failing", options=_answer(500, "")),
    Case("502", "answer", "store_failing", options=_answer(502, "")),
    Case("504", "answer", "store_failing", options=_answer(504, "")),
    Case("503", "answer", "throttled", options=_answer(503, "SlowDown")),
    Case("503, Retry-After", "answer", "throttled", options=_answer(503, "SlowDown", IN_A_SECOND)),
    Case(
        "503, Retry-After an hour",
        "answer",
        "throttled",
        "throttled",
        options=_answer(503, "SlowDown", IN_AN_HOUR),
    ),
    Case("429", "answer", "throttled", options=_answer(429, "TooManyRequests")),
    Case("expired token", "answer", "credentials_expired", options=_answer(400, "ExpiredToken")),
    Case(
        "expired token (403)", "answer", "credentials_expired", options=_answer(403, "ExpiredToken")
    ),
    Case(
        "access denied",
        "answer",
        "access_denied",
        "access_denied",
        options=_answer(403, "AccessDenied"),
    ),
)
