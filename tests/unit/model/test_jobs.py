from __future__ import annotations

import json
from typing import get_args

import pytest

from snapd.model.errors import UsageError
from snapd.model.ids import EMPTY_DIGEST, SnapshotId
from snapd.model.jobs import ENDED_STATES, JobState, JobView, PullRequest, SnapshotView

ID = SnapshotId(EMPTY_DIGEST)


def test_a_request_survives_the_wire() -> None:
    request = PullRequest(ID, "s3://b", "prefetch")
    assert PullRequest.from_json(json.loads(json.dumps(request.to_json()))) == request


def test_a_request_blocks_by_default_and_lowers_its_id() -> None:
    request = PullRequest.from_json({"id": ID.upper(), "store": "s3://b", "detach": True})
    assert request == PullRequest(ID, "s3://b", "blocking")


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ([], "not a JSON object"),
        ({"id": ID}, "needs 'id' and 'store'"),
        ({"id": 7, "store": "s3://b"}, "needs 'id' and 'store'"),
        ({"id": ID, "store": "s3://b", "prio": 1}, "unknown keys in the request: prio"),
        ({"id": ID, "store": "s3://b", "priority": "urgent"}, "unknown priority: 'urgent'"),
        ({"id": "latest", "store": "s3://b"}, "not a snapshot ID: 'latest'"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(document: object, complaint: str) -> None:
    with pytest.raises(UsageError) as caught:
        PullRequest.from_json(document)
    assert complaint in caught.value.message


def test_a_job_survives_the_wire_and_a_newer_daemon() -> None:
    view = JobView("j1", ID, "s3://b", "fetching", bytes_fetched=7, eta_seconds=1.5)
    document = json.loads(json.dumps(view.to_json()))
    assert JobView.from_json(document) == view
    assert JobView.from_json({**document, "mood": "good"}) == view


def test_a_job_has_ended_in_three_states_only() -> None:
    view = JobView("j1", ID, "s3://b", "queued")
    ended = {s for s in get_args(JobState) if view.with_changes(state=s).ended}
    assert ended == ENDED_STATES == {"done", "failed", "cancelled"}
    assert view.state == "queued"


def test_a_cached_snapshot_survives_the_wire_and_a_newer_daemon() -> None:
    view = SnapshotView(ID, "s3://b", "/trees/x", 3, 2, 100, 1.0, 2.0)
    document = json.loads(json.dumps(view.to_json()))
    assert SnapshotView.from_json(document) == view
    assert SnapshotView.from_json({**document, "mood": "good"}) == view
