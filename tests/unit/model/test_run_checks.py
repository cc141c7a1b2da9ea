from __future__ import annotations

import pytest

from snapd.model.ids import SnapshotId, digest_of
from snapd.model.run_checks import (
    Check,
    CodeHere,
    RunChecks,
    check_code,
    check_environment,
    only,
    same_commit,
    subject_of,
    uses_of,
)
from snapd.model.run_parts import Code, Environment, Use
from snapd.model.runs import Run

COMMIT = "693e354a61b9e31f1b1d6a0ad6ed8f9f1c6f7d3e"
LOCK = "ab" * 32
ID = SnapshotId(digest_of(b"a"))


def statuses(checks: list[Check]) -> dict[str, str]:
    return {each.subject: each.status for each in checks}


def test_a_line_and_a_summary() -> None:
    checks = [
        Check("data", "data x", "ok", "3 objects"),
        Check("environment", "python", "differs", "3.12.1, and it was 3.11.9"),
        Check("code", "commit", "not checked", "there is none"),
    ]
    report = RunChecks("r7", checks)
    assert [each.line() for each in checks] == [
        "ok           data x: 3 objects",
        "differs      python: 3.12.1, and it was 3.11.9",
        "not checked  commit: there is none",
    ]
    assert report.summary() == "1 ok, 1 differs, 1 not checked"
    document = report.to_json()
    assert (document["ok"], document["differs"], document["not_checked"]) == (1, 1, 1)
    assert document["checks"][0]["area"] == "data"
    assert only(checks, ["code"]) == checks[2:]
    assert only(checks, []) == checks


@pytest.mark.parametrize(
    ("code", "here", "expected"),
    [
        (None, CodeHere("/r"), {"commit": "not checked"}),
        (Code(COMMIT), CodeHere("no repository"), {"commit": "not checked"}),
        (Code(COMMIT), CodeHere("/r", False), {"commit": "differs"}),
        (Code(COMMIT), CodeHere("/r.git", True), {"commit": "ok"}),
        (
            Code(COMMIT[:9]),
            CodeHere("/r", True, Code(COMMIT, dirty=False)),
            {"commit": "ok", "working tree": "ok"},
        ),
        (
            Code(COMMIT),
            CodeHere("/r", True, Code(COMMIT, dirty=True)),
            {"commit": "ok", "working tree": "differs"},
        ),
        (
            Code(COMMIT, dirty=True),
            CodeHere("/r", True, Code("0" * 40, dirty=False)),
            {"commit": "ok", "changes": "not checked", "working tree": "differs"},
        ),
        (
            Code(COMMIT, untracked=3),
            CodeHere("/r", True),
            {"commit": "ok", "changes": "not checked"},
        ),
    ],
)
def test_code(code: Code | None, here: CodeHere, expected: dict[str, str]) -> None:
    assert statuses(check_code(code, here)) == expected


def test_a_commit_may_be_recorded_short_but_not_as_anything() -> None:
    assert same_commit(COMMIT[:7].upper(), COMMIT)
    assert not same_commit(COMMIT[:6], COMMIT)
    assert not same_commit("v1.0", COMMIT)


def test_an_environment_is_compared_as_far_as_it_was_recorded() -> None:
    recorded = Environment(
        python="3.11.9",
        lock_file="uv.lock",
        lock_hash=f"sha256:{LOCK}",
        image="trainer@sha256:1",
        platform="Linux-6.1.0-x86_64",
    )
    here = Environment(
        python="3.11.9", lock_hash=LOCK.upper(), image="trainer@sha256:1", platform="Linux-5-x86_64"
    )
    assert set(statuses(check_environment(recorded, here, {})).values()) == {"ok"}
    other = Environment("3.12.1", None, f"sha256:{'0' * 64}", "trainer:2", "Linux-6.1.0-aarch64")
    found = check_environment(recorded, other, {})
    assert set(statuses(found).values()) == {"differs"}
    assert found[0].detail == "3.12.1, and it was 3.11.9"
    assert len(found) == 4
    [python] = check_environment(Environment(python="3.11.9"), other, {})
    assert python.status == "differs"


def test_what_is_not_known_here_is_never_fine() -> None:
    recorded = Environment(
        python="3.11.9", lock_hash="md5:1", image="i", extra={"cuda": "12.1"}, platform="Linux-1-x"
    )
    found = check_environment(recorded, Environment(), {"image": "name it"})
    assert set(statuses(found).values()) == {"not checked"}
    assert {each.subject for each in found} == {
        "python",
        "lock file",
        "image",
        "platform",
        "env cuda",
    }
    assert [each.detail for each in found if each.subject == "image"] == ["i: name it"]
    [nothing] = check_environment(Environment(), Environment(python="3"), {})
    assert nothing.status == "not checked"


def test_snapshots_are_called_by_what_they_were_recorded_as() -> None:
    run = Run(
        "r",
        "2026-03-01T09:30:01Z",
        "a",
        "1",
        data=(Use(ID, "imagenet@v1.0.0", "x"),),
        outputs=(Use(ID, path="model"),),
    )
    assert [subject_of(area, use) for area, use in uses_of(run)] == [
        f"data {ID[:12]} imagenet@v1.0.0",
        f"output {ID[:12]} model",
    ]
