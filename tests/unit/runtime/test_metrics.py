from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from snapd.model.follow_views import FollowView
from snapd.model.jobs import JobView, Step
from snapd.runtime.metrics import Metrics
from snapd.runtime.numbers import NodeNumbers
from snapd.runtime.observer import Observer

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"
LABELS = frozenset(
    {"cause", "code", "kind", "operation", "outcome", "part", "python", "reason", "source", "state"}
) | {"version", "le", "follow", "ref"}
"""Whatever is a label is drawn from a closed vocabulary; follows are few, and bounded."""


FOLLOW = FollowView(
    "abc123abc123",
    "iris@production",
    "s3://b",
    "/srv/iris",
    "/srv/iris/current",
    configured=True,
    state="behind",
    version="v1.0.0",
    live_since=100.0,
    behind_seconds=7.0,
    checked_at=200.0,
    poll_seconds=5.0,
    error={"code": "digest_mismatch"},
    last_error_at=150.0,
    switches=3,
    polls=40,
    poll_failures=2,
    hook_failures=1,
)


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Read back what a scraper would: (name, label values...) -> value."""
    body, _ = metrics.render()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def ended(state: Any, **more: Any) -> JobView:
    return JobView("j1", "id", "s3://b", state, created_at=100.0, ended_at=112.0, **more)


def every_kind() -> Metrics:
    metrics = Metrics(version="1.2.3")
    observer: Observer = metrics
    observer.on_requests("get", "ok", 3, 0.2, 700)
    observer.on_requests("get", "throttled", 1, 0.1, 0)
    observer.on_retry("get", "throttled")
    observer.on_credentials("s3://a", 5000.0)
    observer.on_transfer_limit("small", 96)
    observer.on_objects("store", 3, 900)
    observer.on_verification_failure()
    observer.on_pull_ended(ended("done"), [Step("queued", 100.0)])
    observer.on_pull_ended(ended("failed", error={"code": "stalled"}), [])
    observer.on_pull_refused("quota")
    observer.on_evicted("watermark", 2, 8192)
    observer.on_rehashed(100, False)
    observer.on_scrubbed(7, 4096, 0.5)
    observer.on_scrub_damage(2)
    observer.on_repaired(1)
    metrics.on_reload(accepted=True)
    metrics.set_follows([FOLLOW])
    metrics.set_ready(True)
    metrics.set_loop_lag(0.25)
    metrics.set_numbers(
        NodeNumbers(
            pulls={"running": 2, "queued": 1, "waiting_for_space": 0},
            running_bytes={"cached": 1, "fetched": 2, "left": 3},
            cache={"linked": 5, "new": 1},
            scrub_progress=0.5,
        )
    )
    return metrics


def test_what_happened_is_what_a_scraper_reads() -> None:
    seen = samples(every_kind())
    assert seen["snapd_store_requests_total", "get", "ok"] == 3
    assert seen["snapd_store_requests_total", "get", "throttled"] == 1
    assert seen["snapd_store_request_duration_seconds_count", "get"] == 4
    assert seen["snapd_store_transferred_bytes_total", "get"] == 700
    assert seen["snapd_store_retries_total", "throttled"] == 1
    assert seen[("snapd_credentials_expiry_timestamp_seconds",)] == 5000
    assert seen["snapd_transfer_limit_objects", "small"] == 96
    assert seen["snapd_objects_total", "store"] == 3
    assert seen["snapd_bytes_total", "store"] == 900
    assert seen[("snapd_verification_failures_total",)] == 1
    assert seen["snapd_pull_duration_seconds_sum", "done"] == 12
    assert seen["snapd_pull_failures_total", "stalled"] == 1
    assert seen["snapd_config_reloads_total", "accepted"] == 1
    assert seen["snapd_evictions_total", "watermark"] == 2
    assert seen["snapd_evicted_bytes_total", "watermark"] == 8192
    assert seen["snapd_pulls_refused_total", "quota"] == 1
    assert seen["snapd_pulls_refused_total", "disk"] == 0
    assert seen["snapd_rehashed_objects_total", "damaged"] == 1
    assert seen["snapd_rehashed_objects_total", "right"] == 0
    assert seen[("snapd_scrub_objects_total",)] == 7
    assert seen[("snapd_scrub_bytes_total",)] == 4096
    assert seen[("snapd_scrub_errors_total",)] == 2
    assert seen[("snapd_repaired_objects_total",)] == 1
    assert seen[("snapd_ready",)] == 1
    assert seen[("snapd_event_loop_lag_seconds",)] == 0.25
    build = [key for key in seen if key[0] == "snapd_build_info"]
    assert [set(key[1:]) for key in build] == [{"1.2.3", platform.python_version()}]


def test_the_numbers_of_the_moment_are_shown() -> None:
    metrics = every_kind()
    seen = samples(metrics)
    assert seen["snapd_pulls", "running"] == 2
    assert seen["snapd_running_pulls_bytes", "left"] == 3
    assert seen["snapd_cache_bytes", "linked"] == 5
    assert seen[("snapd_scrub_progress_ratio",)] == 0.5
    assert seen["snapd_leases", "pod"] == 0
    metrics.set_numbers(NodeNumbers())
    assert samples(metrics)["snapd_pulls", "running"] == 0


def test_of_several_stores_the_credentials_that_expire_first_are_shown() -> None:
    metrics = every_kind()
    metrics.on_credentials("s3://b", 4000.0)
    assert samples(metrics)[("snapd_credentials_expiry_timestamp_seconds",)] == 4000
    metrics.on_credentials("s3://b", None)
    assert samples(metrics)[("snapd_credentials_expiry_timestamp_seconds",)] == 5000
    metrics.on_credentials("s3://a", None)
    assert samples(metrics)[("snapd_credentials_expiry_timestamp_seconds",)] == 0


def test_known_series_exist_before_anything_happens() -> None:
    seen = samples(Metrics(version="1"))
    assert seen["snapd_objects_total", "shared"] == 0
    assert seen["snapd_pull_duration_seconds_count", "failed"] == 0
    assert seen["snapd_config_reloads_total", "refused"] == 0
    assert seen["snapd_pulls_refused_total", "queue_full"] == 0
    assert seen["snapd_store_retries_total", "throttled"] == 0
    assert ("snapd_store_retries_total", "access_denied") not in seen
    assert seen["snapd_pull_failures_total", "cache_full"] == 0


def test_two_nodes_in_one_process_do_not_mix() -> None:
    one, other = Metrics(version="1"), Metrics(version="1")
    one.on_verification_failure()
    assert samples(other)[("snapd_verification_failures_total",)] == 0


def test_a_scraper_may_ask_for_openmetrics() -> None:
    body, content_type = every_kind().render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def exported() -> dict[str, str]:
    """Name -> type, as the exposition's TYPE lines say, without the process's own."""
    body, _ = every_kind().render()
    lines = re.findall(r"^# TYPE (\S+) (\S+)$", body.decode(), re.MULTILINE)
    return {name: kind for name, kind in lines if not name.startswith("process_")}


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", DOCUMENT.read_text(), re.MULTILINE)
    assert dict(rows) == exported()
    assert len(rows) == len(dict(rows))


def test_every_event_counts_somewhere() -> None:
    """What an observer hears and the metrics do not override would be lost in silence."""
    heard = {name for name in vars(Observer) if name.startswith("on_")}
    # The end of a round is read from the cache's index, which remembers it over a restart.
    assert heard - {"on_scrub_round"} <= set(vars(Metrics))
    assert {name for name in vars(Metrics) if name.startswith("on_")} - {"on_reload"} <= heard


def test_names_follow_the_conventions() -> None:
    for name, kind in exported().items():
        assert re.fullmatch(r"snapd_[a-z_]+", name)
        assert name.endswith("_total") == (kind == "counter")
        assert not re.search(r"_(ms|millis|kb|mb|mib)(_|$)", name)


def test_labels_are_drawn_from_closed_vocabularies() -> None:
    body, _ = every_kind().render()
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            assert set(sample.labels) <= LABELS, sample.name
