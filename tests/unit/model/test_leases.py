from __future__ import annotations

import json
from typing import Any

import pytest

from snapd.model.errors import InvalidId, SnapsyncError, UsageError
from snapd.model.ids import SnapshotId
from snapd.model.jobs import SnapshotView
from snapd.model.leases import (
    Lease,
    LeaseRequest,
    ProcessMark,
    fit_reason,
    is_lease_id,
    lease_prefix,
    parse_pod_uid,
    time_lease,
)

ID = SnapshotId("ab" * 32)
UID = "0a1b2c3d-0000-4000-8000-00000000abcd"
BODY = {"id": ID, "kind": "pin", "subject": "", "reason": "baseline"}
LEASE = Lease("abababababab-0123456789ab", ID, "pin", since=5.0, reason="baseline", uid=7)
PROCESS = LEASE._replace(
    kind="process", process=ProcessMark(12, 99, "boot", "pid:[1]"), reason="sh"
)


def test_a_request_survives_the_wire() -> None:
    for request in (
        LeaseRequest(ID, "pin", reason="baseline"),
        LeaseRequest(ID, "pod", UID),
        LeaseRequest(ID, "link", "/data/with \udcff byte"),
        LeaseRequest(ID, "process"),
    ):
        assert LeaseRequest.from_json(json.loads(json.dumps(request.to_json()))) == request
    assert LeaseRequest.from_json({"id": ID.upper(), "kind": "pin"}) == LeaseRequest(ID, "pin")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"id": "ab"}, "snapshot ID"),
        ({"kind": "time"}, "kind"),
        ({"kind": None}, "strings"),
        ({"reason": 7}, "strings"),
        ({"pid": "1"}, "unknown keys"),
        ({"subject": "x"}, "no subject"),
        ({"kind": "process", "subject": "12"}, "no subject"),
        ({"kind": "pod", "subject": "../../etc"}, "pod UID"),
        ({"kind": "pod", "subject": ""}, "pod UID"),
        ({"kind": "pod", "subject": UID.upper()}, "pod UID"),
        ({"kind": "pod", "subject": f"{UID}\n"}, "pod UID"),
        ({"kind": "link", "subject": "data/current"}, "absolute"),
        ({"kind": "link", "subject": "/a\0b"}, "absolute"),
        ({"kind": "link", "subject": "/\ud800"}, "absolute"),
        ({"kind": "link", "subject": "/" + "a" * 5000}, "absolute"),
        ({"reason": "a" * 201}, "reason"),
        ({"reason": "two\nlines"}, "reason"),
    ],
)
def test_what_is_unfit_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        LeaseRequest.from_json(BODY | change)


@pytest.mark.parametrize("body", [None, [], "pin", 3])
def test_a_body_is_an_object(body: object) -> None:
    with pytest.raises(UsageError):
        LeaseRequest.from_json(body)


def test_static_pods_have_a_uid_without_dashes() -> None:
    assert parse_pod_uid("0123456789abcdef" * 2)
    assert parse_pod_uid(UID) == UID


def test_any_text_becomes_a_fit_reason() -> None:
    reason = fit_reason("train.py\x1b[31m\n" + "x" * 500)
    assert reason.startswith("train.py?[31m?xxx")
    LeaseRequest(ID, "pin", reason=reason).check()
    assert fit_reason("train.py") == "train.py"


def test_ids_of_leases_are_names_of_files_and_nothing_else() -> None:
    assert is_lease_id(f"{lease_prefix(ID)}0123456789ab")
    for name in ("", "..", "abababababab-0123456789ab\n", "../abababababab-0123456789ab", ID):
        assert not is_lease_id(name)


@pytest.mark.parametrize("lease", [LEASE, PROCESS, LEASE._replace(kind="link", subject="/x")])
def test_a_lease_survives_the_disk(lease: Lease) -> None:
    document = json.loads(json.dumps(lease.to_json()))
    assert Lease.from_json(document) == lease
    if document["process"]:
        document["process"]["newer"] = 1
    assert Lease.from_json(document | {"newer": 1}) == lease


@pytest.mark.parametrize(
    "document",
    [None, [], {}, {"lease_id": "x"}, LEASE.to_json() | {"snapshot_id": 3},
     LEASE.to_json() | {"snapshot_id": "3"}, LEASE.to_json() | {"kind": "loan"},
     LEASE.to_json() | {"process": 3}, LEASE.to_json() | {"process": {"started_ticks": 3}}],
)  # fmt: skip
def test_what_is_no_lease_is_refused(document: object) -> None:
    with pytest.raises(UsageError) as refused:
        Lease.from_json(document)
    assert not isinstance(refused.value, InvalidId)
    assert isinstance(refused.value, SnapsyncError)


def test_who_holds_is_said_in_words() -> None:
    assert PROCESS.describe() == "process 12 (sh)"
    assert LEASE.describe() == "pin of uid 7 (baseline)"
    assert LEASE._replace(kind="pod", subject=UID, reason="").describe() == f"pod {UID}"
    link = LEASE._replace(kind="link", subject="/data/a\nforged", reason="")
    assert link.describe() == r"link '/data/a\nforged'"


def test_the_same_holder_is_known_again_whatever_it_says() -> None:
    assert LEASE.same_holder(LEASE._replace(lease_id="y", since=9.0, reason="other", uid=8))
    assert not LEASE.same_holder(LEASE._replace(snapshot_id=SnapshotId("cd" * 32)))
    assert not PROCESS.same_holder(PROCESS._replace(process=ProcessMark(12, 100, "boot")))


def view(used_at: float) -> SnapshotView:
    return SnapshotView(ID, "s3://b", "/t", 1, 1, 1, completed_at=1.0, used_at=used_at)


def test_a_path_given_out_holds_for_its_time() -> None:
    lease = time_lease(view(1000.0), lease_seconds=60.0, now=1059.0)
    assert lease is not None
    assert (lease.kind, lease.since, lease.until) == ("time", 1000.0, 1060.0)
    assert lease.describe() == "its path was given out; held until 1970-01-01T00:17:40Z"
    assert time_lease(view(1000.0), lease_seconds=60.0, now=1060.0) is None
    assert time_lease(view(1000.0), lease_seconds=0.0, now=1000.0) is None


def test_a_clock_that_was_far_ahead_holds_nothing_for_ever() -> None:
    assert time_lease(view(1000.0), lease_seconds=60.0, now=990.0) is not None
    assert time_lease(view(1e9), lease_seconds=60.0, now=1000.0) is None
