"""A checkout's report as programs read it."""

from __future__ import annotations

import json
from pathlib import Path

from snapd.model.checkouts import CheckoutChange, CheckoutReport
from snapd.model.ids import SnapshotId


def test_a_report_is_json() -> None:
    report = CheckoutReport(
        SnapshotId("0" * 64),
        Path("/data"),
        "copy",
        changes=(CheckoutChange("A", "./a"),),
        deleted=("./b",),
    )

    document = json.loads(json.dumps(report.to_json()))

    assert document["destination"] == "/data"
    assert document["changes"] == [{"status": "A", "path": "./a"}]
    assert document["deleted"] == ["./b"]
