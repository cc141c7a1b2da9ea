from __future__ import annotations

import pytest

from snapd.model.ids import SnapshotId
from snapd.model.jobs import JobView, SnapshotView
from snapd.model.leases import Lease
from snapd.model.overview import (
    SNAPSHOTS_MAX,
    Hold,
    failed_pulls,
    held_snapshots,
    running_pulls,
    without_secrets,
)

ID = SnapshotId("ab" * 32)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:word@host/x", "https://host/x"),
        ("at https://host/?X-Amz-Signature=1f&a=1", "at https://host/?X-Amz-Signature=...&a=1"),
        ("https://host/a@b", "https://host/a@b"),
        ("s3://bucket/key=1", "s3://bucket/key=1"),
    ],
)
def test_secrets_are_taken_out_and_nothing_else(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_of_a_lease_its_kind_is_told_and_no_command_line() -> None:
    views = [SnapshotView(ID, "s3://b", "/t", 1, 1, 10, 1.0, 2.0)]
    leases = [
        Lease("a", ID, "process", 1.0, reason="train --token=hush"),
        Lease("b", ID, "process", 2.0),
        Lease("c", ID, "link", 2.0, subject="/home/me/private"),
        Lease("", ID, "time", 2.0, until=9.0),
    ]
    (held,) = held_snapshots(views, leases)
    assert held.holds == (Hold("link", 1), Hold("process", 2), Hold("time", 1, 9.0))
    assert "hush" not in repr(held)
    assert "private" not in repr(held)


def test_the_snapshots_used_last_are_shown() -> None:
    views = [
        SnapshotView(f"{number:064x}", "s3://b", "/t", 1, 1, 1, 1.0, float(number))
        for number in range(SNAPSHOTS_MAX + 5)
    ]
    shown = held_snapshots(views, [])
    assert len(shown) == SNAPSHOTS_MAX
    assert shown[0].used_at == SNAPSHOTS_MAX + 4


def test_running_ones_come_by_age_and_failed_ones_by_their_end() -> None:
    error = {"code": "x", "message": "at https://a:b@h/", "hint": "h"}
    views = [
        JobView("new", ID, "s3://b", "fetching", created_at=5.0, bytes_cached=1, bytes_fetched=2),
        JobView("old", ID, "s3://b", "queued", created_at=1.0),
        JobView("f1", ID, "s3://b", "failed", ended_at=1.0, error=error),
        JobView("f2", ID, "s3://b", "failed", ended_at=2.0, error=error),
        JobView("c", ID, "s3://b", "cancelled", ended_at=3.0, error=error),
        JobView("d", ID, "s3://b", "done", ended_at=3.0),
    ]
    assert [(pull.job_id, pull.bytes_done) for pull in running_pulls(views)] == [
        ("old", 0),
        ("new", 3),
    ]
    failed = failed_pulls(views)
    assert [each.job_id for each in failed] == ["f2", "f1"]
    assert failed[0].message == "at https://h/"
