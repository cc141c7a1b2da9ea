"""How a node stands at one moment, and how each of these numbers is called in the metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


def _gauge(name: str, meaning: str) -> Any:
    return field(default=0, metadata={"name": name, "meaning": meaning})


def _gauges(name: str, label: str, meaning: str, *values: str) -> Any:
    """Describe a gauge for each value of a label; the values given here are always shown."""
    return field(
        default_factory=lambda: dict.fromkeys(values, 0),
        metadata={"name": name, "meaning": meaning, "label": label},
    )


@dataclass(frozen=True, slots=True)
class NodeNumbers:
    """How a node stands at one moment; `GET /v1/status` and `/metrics` show the same numbers.

    Sizes in bytes, times in seconds, moments since the epoch.
    """

    pulls: Mapping[str, int] = _gauges(
        "snapd_pulls",
        "state",
        "Pulls that have not ended.",
        *("running", "queued", "waiting_for_space"),
    )
    pulls_limit: Mapping[str, int] = _gauges(
        "snapd_pulls_limit", "state", "How many pulls may be in this state.", "running", "queued"
    )
    running_bytes: Mapping[str, int] = _gauges(
        "snapd_running_pulls_bytes",
        "part",
        "Bytes of the snapshots that are being pulled, by what became of them.",
        *("cached", "fetched", "left"),
    )
    running_objects: Mapping[str, int] = _gauges(
        "snapd_running_pulls_objects",
        "part",
        "Objects of the snapshots that are being pulled, by what became of them.",
        *("cached", "fetched", "left"),
    )
    stalled_seconds: float = _gauge(
        "snapd_pulls_stalled_seconds", "Longest time that a running pull has got no further."
    )
    objects_in_flight: int = _gauge("snapd_objects_in_flight", "Objects being fetched now.")
    objects_in_flight_max: int = _gauge(
        "snapd_objects_in_flight_limit", "How many objects may be fetched at once."
    )
    bytes_in_flight: int = _gauge("snapd_bytes_in_flight", "Bytes being fetched now.")
    bytes_in_flight_max: int = _gauge(
        "snapd_bytes_in_flight_limit", "How many bytes may be fetched at once."
    )
    transfers_waiting: int = _gauge(
        "snapd_transfers_waiting", "Transfers that wait for a place in flight."
    )
    snapshots: int = _gauge("snapd_snapshots", "Complete snapshots in the cache.")
    leases: Mapping[str, int] = _gauges(
        "snapd_leases",
        "kind",
        "What keeps snapshots from being evicted.",
        *("process", "pod", "link", "pin", "follow", "time"),
    )
    cache: Mapping[str, int] = _gauges(
        "snapd_cache_bytes",
        "state",
        "Bytes that the cache takes on disk, by what they are.",
        *("linked", "loose", "tree", "staging", "quarantine", "other", "new"),
    )
    cache_bytes_max: int = _gauge(
        "snapd_cache_bytes_limit", "The quota of the cache; 0 without one."
    )
    reserved_bytes: int = _gauge(
        "snapd_reserved_bytes", "Bytes that running pulls have yet to write."
    )
    quarantined_objects: int = _gauge(
        "snapd_quarantine_objects", "Objects whose wrong bytes are kept for a look."
    )
    disk_free_bytes: int = _gauge("snapd_disk_free_bytes", "Free bytes of the cache's file system.")
    disk_free_bytes_min: int = _gauge(
        "snapd_disk_free_bytes_limit", "What pulls leave free on the cache's file system."
    )
    disk_total_bytes: int = _gauge(
        "snapd_disk_total_bytes", "Size of the cache's file system in bytes."
    )
    scrub_progress: float = _gauge(
        "snapd_scrub_progress_ratio", "Which part of the running round is done."
    )
    scrub_began_at: float = _gauge(
        "snapd_scrub_round_begin_timestamp_seconds", "When the last round of the scrub began."
    )
    scrub_ended_at: float = _gauge(
        "snapd_scrub_round_end_timestamp_seconds", "When the last whole round of the scrub ended."
    )
    scrub_interval_seconds: float = _gauge(
        "snapd_scrub_interval_seconds", "How often a round should begin; 0: the scrub is off."
    )
    awaiting_repair: int = _gauge(
        "snapd_objects_awaiting_repair", "Damaged objects whose trees are not right again yet."
    )

    @property
    def cache_bytes(self) -> int:
        """What the cache takes on disk."""
        return sum(self.cache.values())

    @property
    def pulls_running(self) -> int:
        """How many pulls have a place now."""
        return self.pulls["running"]

    @property
    def pulls_queued(self) -> int:
        """How many pulls wait for a place."""
        return self.pulls["queued"]


class NumbersCollector(Collector):
    """Gives out the numbers that it was given last."""

    def __init__(self) -> None:
        self.numbers = NodeNumbers()

    def collect(self) -> Iterator[Metric]:
        """Make one family a number."""
        numbers = self.numbers
        for each in fields(numbers):
            about, value = each.metadata, getattr(numbers, each.name)
            if each.default is not MISSING:
                yield GaugeMetricFamily(about["name"], about["meaning"], value=value)
                continue
            family = GaugeMetricFamily(about["name"], about["meaning"], labels=[about["label"]])
            for label, labelled in value.items():
                family.add_metric([label], labelled)
            yield family
