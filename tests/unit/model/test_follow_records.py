from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapd.model.access import Peer
from snapd.model.errors import UsageError
from snapd.model.follow_records import FollowRecord
from snapd.model.ids import SnapshotId
from snapd.model.releases import Release
from snapd.model.settings import FollowSettings

FOLLOW = FollowSettings("iris@production", "/srv/iris", "s3://a", keep_previous=2)
HOOKED = FollowSettings("iris@production", "/srv/iris", "s3://a", hook=("/bin/true",))


def release(number: int, since: float = 0.0) -> Release:
    return Release(SnapshotId(f"{number:064x}"), "iris", f"v{number}.0.0", since)


def went_live(record: FollowRecord, *numbers: int) -> FollowRecord:
    for number in numbers:
        record = record.heading_for(release(number)).switched(float(number))
    return record


def test_what_was_live_is_kept_for_a_rollback() -> None:
    record = went_live(FollowRecord(FOLLOW), 1, 2, 3, 4)
    assert record.live == release(4, 4.0)
    assert record.previous == (release(3, 3.0), release(2, 2.0))
    back = went_live(record, 3)
    assert (back.live, back.coming) == (release(3, 3.0), None)
    assert back.previous == (release(4, 4.0), release(2, 2.0)), "none is there twice"
    assert back.held() == tuple(f"{n:064x}" for n in (3, 4, 2))


def test_what_comes_is_held_before_it_is_live() -> None:
    record = went_live(FollowRecord(FOLLOW), 1).heading_for(release(2))
    assert record.held() == (release(1).snapshot_id, release(2).snapshot_id)


def test_a_death_after_the_switch_is_found_by_the_link() -> None:
    dead = went_live(FollowRecord(HOOKED), 1).told(release(1, 1.0)).heading_for(release(2))
    found = dead.recovered(release(2).snapshot_id, 9.0)
    assert (found.live, found.coming) == (release(2, 9.0), None)
    assert found.previous == (release(1, 1.0),)
    assert found.hook_due, "nobody told the hook"


def test_a_death_before_the_switch_changes_nothing() -> None:
    dead = went_live(FollowRecord(FOLLOW), 1).heading_for(release(2))
    assert dead.recovered(release(1).snapshot_id, 9.0) is dead


def test_a_link_that_nobody_knows_of_is_live_all_the_same() -> None:
    record = went_live(FollowRecord(FOLLOW), 1, 2)
    bent = record.recovered(release(7).snapshot_id, 9.0)
    assert bent.live == Release(release(7).snapshot_id, since=9.0)
    back = record.recovered(release(1).snapshot_id, 9.0)
    assert back.live == release(1, 9.0), "of the previous ones the name is known"
    lost = FollowRecord(FOLLOW).recovered(release(3).snapshot_id, 9.0)
    assert lost.live is not None
    assert lost.live.version == ""


def test_a_link_that_is_gone_leaves_nothing_live() -> None:
    record = went_live(FollowRecord(FOLLOW), 1)
    assert record.recovered(None, 9.0).live is None
    assert FollowRecord(FOLLOW).recovered(None, 9.0) == FollowRecord(FOLLOW)


def test_the_hook_is_due_until_it_was_told_of_what_is_live() -> None:
    one = went_live(FollowRecord(HOOKED), 1)
    two = went_live(one, 2)
    assert one.hook_due
    assert two.told(release(1, 1.0)).hook_due, "another one is live by now"
    assert not two.told(release(2, 2.0)).hook_due
    assert not went_live(FollowRecord(FOLLOW), 1).hook_due


@given(st.lists(st.integers(0, 4), max_size=12), st.booleans())
def test_a_record_survives_the_disk(numbers: list[int], asked: bool) -> None:
    asker = Peer(0, 1000, 100, frozenset({4, 24})) if asked else None
    record = went_live(FollowRecord(HOOKED, asker), *numbers).heading_for(release(9))
    assert FollowRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert len(record.previous) <= HOOKED.keep_previous
    assert len(set(record.held())) == len(record.held())


@pytest.mark.parametrize(
    "change",
    [
        {"follow": None},
        {"follow": {"ref": "iris", "dest": "/srv/iris"}},
        {"follow": {"ref": "iris@production", "dest": "iris"}},
        {"live": 1},
        {"live": {"snapshot_id": "x"}},
        {"previous": [{}]},
        {"asker": {"uid": "x", "gid": 1, "groups": []}},
    ],
    ids=str,
)
def test_what_is_no_record_is_refused(change: dict[str, object]) -> None:
    document = went_live(FollowRecord(FOLLOW), 1).to_json() | change
    with pytest.raises(UsageError):
        FollowRecord.from_json(document)
    with pytest.raises(UsageError):
        FollowRecord.from_json([])
