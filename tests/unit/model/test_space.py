from __future__ import annotations

import json

import pytest

from snapd.model.errors import UsageError
from snapd.model.eviction import Verdict
from snapd.model.space import PlanView, SweepReport, SweepRequest

VERDICT = Verdict("ab" * 32, False, "leased", 1.0, 2, leases=("pin x",))


def test_a_request_travels() -> None:
    request = SweepRequest(dryrun=True, free_bytes=7)
    assert SweepRequest.from_json(json.loads(json.dumps(request.to_json()))) == request
    assert SweepRequest.from_json({}) == SweepRequest()
    with pytest.raises(UsageError, match="unknown keys"):
        SweepRequest.from_json({"dry": True})


def test_a_report_travels() -> None:
    report = SweepReport(False, 10, 5, 5, evicted=(VERDICT,), kept=(VERDICT, VERDICT))
    document = json.loads(json.dumps({**report.to_json(), "newer": 1}))
    assert SweepReport.from_json(document) == report
    assert report.satisfied


def test_a_plan_travels() -> None:
    view = PlanView("ab" * 32, "s3://b", False, 2, 1, 20, 5, kept=(VERDICT,))
    document = json.loads(json.dumps({**view.to_json(), "newer": 1}))
    assert document["bytes_to_fetch"] == 15
    assert PlanView.from_json(document) == view
