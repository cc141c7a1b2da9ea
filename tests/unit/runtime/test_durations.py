from __future__ import annotations

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest

from snapd.runtime.durations import Durations

BOUNDS = (0.25, 1.0, 2.5)
SEEN = ((0.1, 3), (0.25, 1), (2.0, 64), (9.0, 2))


def test_it_counts_as_the_library_would_one_by_one() -> None:
    registry, expected = CollectorRegistry(), CollectorRegistry()
    durations = Durations("t_seconds", "Times.", "operation", BOUNDS)
    registry.register(durations)
    histogram = Histogram("t_seconds", "Times.", ["operation"], buckets=BOUNDS, registry=expected)
    for seconds, count in SEEN:
        durations.observe("get", seconds, count)
        for _ in range(count):
            histogram.labels("get").observe(seconds)
    durations.observe("put", 1.5, 1)
    histogram.labels("put").observe(1.5)
    ours, theirs = (generate_latest(each).decode().splitlines() for each in (registry, expected))
    assert ours == [line for line in theirs if "_created" not in line]
