"""A histogram of times that takes many equal ones at once: a batch of requests is one call."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class _Row:
    """The times under one value of the label; the last bucket is for those above all bounds."""

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * (buckets + 1)
        self.sum_seconds = 0.0


class Durations(Collector):
    """Times by one label. To be told of them by one thread, read by any."""

    def __init__(
        self, name: str, meaning: str, label: str, bounds_seconds: Sequence[float]
    ) -> None:
        self._name = name
        self._meaning = meaning
        self._label = label
        self._bounds = bounds_seconds
        self._rows: dict[str, _Row] = {}

    def observe(self, value: str, seconds: float, count: int) -> None:
        """Take note that something under this value of the label took so long, so many times."""
        row = self._rows.get(value)
        if row is None:
            row = self._rows[value] = _Row(len(self._bounds))
        row.counts[bisect_left(self._bounds, seconds)] += count
        row.sum_seconds += seconds * count

    def collect(self) -> Iterator[Metric]:
        """Make the family that a scraper reads."""
        family = HistogramMetricFamily(self._name, self._meaning, labels=[self._label])
        bounds = [*map(str, self._bounds), "+Inf"]
        for value, row in list(self._rows.items()):
            counts = list(accumulate(row.counts))
            family.add_metric([value], list(zip(bounds, counts, strict=True)), row.sum_seconds)
        yield family
