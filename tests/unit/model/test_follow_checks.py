from __future__ import annotations

from typing import Any

import pytest

from snapd.model.errors import ConnectionLost
from snapd.model.follow_checks import judge_follows
from snapd.model.follow_views import FollowView, HookResult


def view(**more: Any) -> FollowView:
    made: dict[str, Any] = {
        "follow_id": "abc",
        "reference": "iris@production",
        "store": "s3://ml",
        "dest": "/srv/iris",
        "link": "/srv/iris/current",
        "configured": True,
        "state": "live",
        "version": "v1.0.0",
        "target_version": "v1.0.0",
    }
    return FollowView(**(made | more))


@pytest.mark.parametrize(
    ("more", "verdict", "said"),
    [
        ({}, "ok", "iris@production is v1.0.0"),
        ({"version": "", "state": "starting"}, "ok", "iris@production is not live yet"),
        ({"behind_seconds": 10.0, "target_version": "v2.0.0"}, "ok", "iris@production is v1.0.0"),
        (
            {"behind_seconds": 600.0, "target_version": "v2.0.0"},
            "warning",
            "iris@production is v1.0.0, and has led to v2.0.0 for 10m",
        ),
        (
            {"hook": HookResult(1.0, 0.5, 3)},
            "warning",
            "iris@production is v1.0.0; its hook ended with exit code 3 after 0.5 s",
        ),
        (
            {"error": ConnectionLost("the store is gone").to_json()},
            "failure",
            "iris@production is v1.0.0; the store is gone",
        ),
    ],
)
def test_a_follow_that_fails_or_is_behind_is_told(
    more: dict[str, Any], verdict: str, said: str
) -> None:
    [check] = judge_follows([view(**more)])
    assert (check.name, check.verdict) == ("follow:/srv/iris", verdict)
    assert check.message.startswith(said)
    assert bool(check.hint) == (verdict != "ok")
    assert check.exit_code == (ConnectionLost.exit_code if verdict == "failure" else 0)


def test_a_node_that_follows_nothing_has_no_line() -> None:
    assert judge_follows([]) == []
