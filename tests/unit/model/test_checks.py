from __future__ import annotations

import json

import pytest

from snapd.model.checks import (
    Check,
    Verdict,
    exit_code_of,
    failure,
    judge_credentials,
    judge_disk,
    judge_open_files,
    judge_skew,
    ok,
    warning,
)
from snapd.model.errors import AccessDenied, DaemonNotRunning

GIB = 1 << 30


def test_a_check_travels() -> None:
    sent = failure("store:s3://b", AccessDenied("s3://b: denied", status=403), endpoint="http://x")
    read = Check.from_json(json.loads(json.dumps(sent.to_json() | {"novelty": 1})))
    assert read == sent
    assert (read.exit_code, read.details["code"], read.details["status"]) == (
        15,
        "access_denied",
        403,
    )


def test_the_first_failure_decides_and_warnings_do_not() -> None:
    fine, odd = ok("a", "fine"), warning("b", "odd", "do this")
    assert exit_code_of([fine, odd]) == 0
    denied, absent = failure("c", AccessDenied("x")), failure("d", DaemonNotRunning("y"))
    assert exit_code_of([fine, odd, absent, denied]) == 14
    assert exit_code_of([denied, absent]) == 15
    assert exit_code_of([Check("e", "failure", "z")]) == 1


@pytest.mark.parametrize(
    ("skew", "verdict", "said"),
    [
        (0.4, "ok", "agrees"),
        (-29.0, "ok", "agrees"),
        (45.0, "warning", "ahead of"),
        (-45.0, "warning", "behind"),
        (900.0, "failure", "ahead of"),
    ],
)
def test_clocks(skew: float, verdict: Verdict, said: str) -> None:
    check = judge_skew("clock", skew, "https://s3")
    assert check.verdict == verdict
    assert said in check.message
    assert bool(check.hint) == (verdict != "ok")


@pytest.mark.parametrize(
    ("expires_at", "verdict", "said"),
    [
        (None, "ok", "does not expire"),
        (1000.0 + 3600, "ok", "expires in 1h"),
        (1000.0 + 60, "warning", "expires in 1m"),
        (1000.0 - 60, "failure", "expired 1m"),
    ],
)
def test_credentials(expires_at: float | None, verdict: Verdict, said: str) -> None:
    check = judge_credentials("credentials", "AKIA…7XQ2 (env)", expires_at, now=1000.0)
    assert check.verdict == verdict
    assert said in check.message
    assert check.details["identity"] == "AKIA…7XQ2 (env)"


@pytest.mark.parametrize(
    ("free", "verdict"), [(100 * GIB, "ok"), (int(1.5 * GIB), "warning"), (GIB, "failure")]
)
def test_disk(free: int, verdict: Verdict) -> None:
    room, inodes = judge_disk(
        free_bytes=free, total_bytes=200 * GIB, min_free_bytes=GIB, inodes_free=90, inodes=100
    )
    assert (room.verdict, inodes.verdict) == (verdict, "ok")
    assert room.exit_code == (11 if verdict == "failure" else 0)


def test_few_inodes_are_told_and_file_systems_without_any_are_not() -> None:
    def judge(inodes_free: int, inodes: int) -> list[Check]:
        return judge_disk(
            free_bytes=9 * GIB,
            total_bytes=9 * GIB,
            min_free_bytes=1,
            inodes_free=inodes_free,
            inodes=inodes,
        )

    assert [check.verdict for check in judge(4, 100)] == ["ok", "warning"]
    assert [check.name for check in judge(0, 0)] == ["disk"]


def test_open_files() -> None:
    assert judge_open_files(1024).verdict == "warning"
    assert judge_open_files(65536).verdict == "ok"
