from __future__ import annotations

from dataclasses import replace

from snapd.runtime.metrics import Metrics
from tests.unit.runtime.test_metrics import FOLLOW, samples

WHO = ("abc123abc123", "iris@production")


def test_how_a_follow_stands_is_shown() -> None:
    metrics = Metrics(version="1")
    metrics.set_follows([FOLLOW, replace(FOLLOW, follow_id="other", version="", error=None)])
    seen = samples(metrics)
    assert seen[("snapd_follow_info", *WHO, "v1.0.0")] == 1
    assert seen["snapd_follow_info", "other", "iris@production", ""] == 1
    assert [key[1:] for key in seen if key[0] == "snapd_follow_error"] == [
        ("digest_mismatch", *WHO)
    ]
    for name, value in {
        "live_timestamp_seconds": 100,
        "behind_seconds": 7,
        "checked_timestamp_seconds": 200,
        "poll_interval_seconds": 5,
        "last_error_timestamp_seconds": 150,
        "switches_total": 3,
        "polls_total": 40,
        "poll_failures_total": 2,
        "hook_failures_total": 1,
    }.items():
        assert seen[(f"snapd_follow_{name}", *WHO)] == value


def test_a_follow_that_has_ended_is_shown_no_more() -> None:
    metrics = Metrics(version="1")
    metrics.set_follows([FOLLOW])
    metrics.set_follows([])
    assert not [key for key in samples(metrics) if key[0].startswith("snapd_follow")]


def test_a_registry_that_was_never_read_grows_old_from_the_beginning() -> None:
    metrics = Metrics(version="1")
    metrics.set_follows([replace(FOLLOW, checked_at=None, began_at=50.0)])
    assert samples(metrics)[("snapd_follow_checked_timestamp_seconds", *WHO)] == 50
