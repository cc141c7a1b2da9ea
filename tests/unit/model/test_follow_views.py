from __future__ import annotations

import json

import pytest

from snapd.model.follow_views import FollowView, HookResult
from snapd.model.ids import SnapshotId
from snapd.model.releases import Change, Release


def test_a_view_survives_the_wire_and_a_newer_daemon() -> None:
    view = FollowView(
        "abc",
        "iris@production",
        "s3://a",
        "/srv/iris",
        "/srv/iris/current",
        configured=False,
        state="live",
        change=Change(1.0, "ann", "rollback", "bad"),
        previous=(Release(SnapshotId("1" * 64), "iris", "v1.0.0", 5.0),),
        hook=HookResult(9.0, 1.0, 0),
        error={"code": "x"},
    )
    document = json.loads(json.dumps(view.to_json()))
    document["new"] = 1
    document["hook"]["new"] = 1
    assert FollowView.from_json(document) == view


@pytest.mark.parametrize(
    ("result", "failed", "words"),
    [
        (HookResult(1, 2.0, 0), False, "ended with exit code 0 after 2.0 s"),
        (HookResult(1, 2.0, 3), True, "ended with exit code 3 after 2.0 s"),
        (HookResult(1, 2.0, -9), True, "ended with signal 9 after 2.0 s"),
        (HookResult(1, 60.0, -15, timed_out=True), True, "did not end within 60 s and was killed"),
        (HookResult(1, 0.0, None), True, "could not be started"),
    ],
)
def test_how_a_hook_ended_is_said(result: HookResult, failed: bool, words: str) -> None:
    assert (result.failed, result.said()) == (failed, words)
