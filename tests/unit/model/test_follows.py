from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapd.model.errors import UsageError
from snapd.model.follows import (
    JITTER,
    POLL_BACKOFF_MAX_SECONDS,
    FollowRequest,
    check_dest,
    clashing,
    complete,
    follow_id_of,
    pause_seconds,
)
from snapd.model.settings import FollowSettings

BODY: dict[str, Any] = {"reference": "iris@production", "dest": "/srv/iris"}
FOLLOW = FollowSettings("iris@production", "/srv/iris", "s3://ml/store", hook=("/bin/true", "x"))


@pytest.mark.parametrize(
    ("dest", "plain"), [("/srv/iris/", "/srv/iris"), ("/srv//a/./b", "/srv/a/b"), ("/a b", "/a b")]
)
def test_a_destination_is_spelt_plainly(dest: str, plain: str) -> None:
    assert check_dest(dest) == plain


@pytest.mark.parametrize(
    "dest", ["", "/", "//x", "srv", "/a/../b", "/a\n", "/a\0", "/" + "a" * 2000, "/\udc80", "/."]
)
def test_other_destinations_are_refused(dest: str) -> None:
    with pytest.raises(UsageError):
        check_dest(dest)


def test_destinations_in_each_other_clash() -> None:
    others = ["/srv/models/iris", "/data"]
    assert clashing("/srv/models/iris", others) == "/srv/models/iris"
    assert clashing("/srv", others) == "/srv/models/iris"
    assert clashing("/data/x/y", others) == "/data"
    assert clashing("/srv/models/iris2", others) == ""


def test_a_follow_has_a_name_of_its_own() -> None:
    assert len(follow_id_of("/srv/iris")) == 12
    assert follow_id_of("/srv/iris") != follow_id_of("/srv/iris2")


def test_the_only_store_is_meant_if_none_is_named() -> None:
    bare = FollowSettings("iris@1.0.0", "/srv/iris")
    assert complete(bare, ("s3://a/",)) == FollowSettings("iris@v1.0.0", "/srv/iris", "s3://a")
    for stores in ((), ("s3://a", "s3://b"), ("*",)):
        with pytest.raises(UsageError, match="no store"):
            complete(bare, stores)


def test_a_request_survives_the_wire() -> None:
    request = FollowRequest(FOLLOW, wait=True)
    assert FollowRequest.from_json(request.to_json()) == request
    assert FollowRequest.from_json(BODY).follow == FollowSettings("iris@production", "/srv/iris")


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"dest": "/srv/iris"},
        {"reference": "iris@production"},
        BODY | {"more": 1},
        BODY | {"reference": "iris"},
        BODY | {"reference": 1},
        BODY | {"dest": "iris"},
        BODY | {"store": "nonsense"},
        BODY | {"poll_seconds": 0.5},
        BODY | {"poll_seconds": float("nan")},
        BODY | {"poll_seconds": True},
        BODY | {"poll_seconds": 1e9},
        BODY | {"keep_previous": -1},
        BODY | {"keep_previous": 11},
        BODY | {"keep_previous": 1.5},
        BODY | {"hook": "/bin/true"},
        BODY | {"hook": [1]},
        BODY | {"hook": ["true"]},
        BODY | {"hook": ["/bin/true", "a\0b"]},
        BODY | {"hook": ["/bin/true"] * 33},
        BODY | {"hook_timeout_seconds": 0},
        BODY | {"wait": 1},
    ],
    ids=str,
)
def test_other_requests_are_refused(body: object) -> None:
    with pytest.raises(UsageError):
        FollowRequest.from_json(body)


@given(st.floats(1, 3600), st.integers(0, 100), st.floats(0, 1, exclude_max=True))
def test_pauses_grow_within_bounds(every: float, failures: int, dice: float) -> None:
    pause = pause_seconds(every, failures, lambda: dice)
    assert every * (1 - JITTER) <= pause * 1.000001
    assert pause <= max(every, POLL_BACKOFF_MAX_SECONDS) * (1 + JITTER)
    if failures == 0:
        assert pause <= every * (1 + JITTER)
