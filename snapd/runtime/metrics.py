"""What Prometheus is told of a node. `docs/metrics.md` documents each name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector

from snapd.model.jobs import ENDED_STATES
from snapd.runtime.observer import EvictionCause, ObjectSource, RefusalReason

REQUEST_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
PULL_BUCKETS_SECONDS = (0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 7200.0)


@dataclass(frozen=True, slots=True)
class NodeNumbers:
    """How a node stands at one moment; `GET /v1/status` and `/metrics` show the same numbers."""

    pulls_running: int = 0
    pulls_running_max: int = 0
    pulls_queued: int = 0
    pulls_queued_max: int = 0
    objects_in_flight: int = 0
    objects_in_flight_max: int = 0
    bytes_in_flight: int = 0
    bytes_in_flight_max: int = 0
    transfers_waiting: int = 0
    snapshots: int = 0
    cache_bytes: int = 0
    cache_bytes_max: int = 0
    reserved_bytes: int = 0
    disk_free_bytes: int = 0
    disk_total_bytes: int = 0


class Metrics:
    """All metrics of one node, in a registry of their own. Implements `Observer`.

    Labels are drawn from closed vocabularies (operations of a store, error codes, job states), so
    the number of series is bounded; an ID, a path or a URI is never a label.
    """

    def __init__(self, *, version: str) -> None:
        # One `_created` series beside each counter and bucket set would double what is scraped.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library does not say
        self.registry = CollectorRegistry()
        self._describe_pulls()
        self._describe_store()
        self._describe_space()
        self._describe_node()
        self._describe_care()
        Info("snapd_build", "The running version.", registry=self.registry).info(
            {"version": version}
        )
        ProcessCollector(registry=self.registry)
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Make the known series exist from the start, so that the first event is an increase."""
        for source in get_args(ObjectSource):
            self._objects.labels(source)
            self._bytes.labels(source)
        for state in ENDED_STATES:
            self._pull_seconds.labels(state)
        for cause in get_args(EvictionCause):
            self._evictions.labels(cause)
            self._evicted_bytes.labels(cause)
        for reason in get_args(RefusalReason):
            self._refused.labels(reason)
        for outcome in ("accepted", "refused"):
            self._reloads.labels(outcome)
        for outcome in ("right", "damaged"):
            self._rehashed.labels(outcome)

    def _describe_pulls(self) -> None:
        registry = self.registry
        self._pulls = Gauge(
            "snapd_pulls", "Pulls that have not ended.", ["state"], registry=registry
        )
        self._pulls_limit = Gauge(
            "snapd_pulls_limit",
            "How many pulls may be in this state.",
            ["state"],
            registry=registry,
        )
        self._pull_seconds = Histogram(
            "snapd_pull_duration_seconds",
            "Time from request to end of a pull.",
            ["outcome"],
            buckets=PULL_BUCKETS_SECONDS,
            registry=registry,
        )
        self._objects = Counter(
            "snapd_objects",
            "Objects that pulls obtained, by source.",
            ["source"],
            registry=registry,
        )
        self._bytes = Counter(
            "snapd_bytes", "Bytes of those objects, by source.", ["source"], registry=registry
        )
        self._verification_failures = Counter(
            "snapd_verification_failures",
            "Objects whose bytes did not match their digest.",
            registry=registry,
        )

    def _describe_store(self) -> None:
        registry = self.registry
        self._requests = Counter(
            "snapd_store_requests",
            "Requests to stores; `ok` or the error's code.",
            ["operation", "outcome"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            "snapd_store_request_duration_seconds",
            "Time of one store request.",
            ["operation"],
            buckets=REQUEST_BUCKETS_SECONDS,
            registry=registry,
        )
        self._transferred = Counter(
            "snapd_store_transferred_bytes",
            "Body bytes moved from and to stores, repeated requests included.",
            ["operation"],
            registry=registry,
        )
        self._retries = Counter(
            "snapd_store_retries", "Requests asked again, by reason.", ["reason"], registry=registry
        )

    def _describe_space(self) -> None:
        registry = self.registry
        self._evictions = Counter(
            "snapd_evictions", "Snapshots evicted, by cause.", ["cause"], registry=registry
        )
        self._evicted_bytes = Counter(
            "snapd_evicted_bytes", "Bytes that evictions freed.", ["cause"], registry=registry
        )
        self._refused = Counter(
            "snapd_pulls_refused",
            "Pulls refused because they do not fit.",
            ["reason"],
            registry=registry,
        )

    def _describe_node(self) -> None:
        def gauge(name: str, meaning: str) -> Gauge:
            return Gauge(name, meaning, registry=self.registry)

        self._gauges = {
            "objects_in_flight": gauge("snapd_objects_in_flight", "Objects being fetched now."),
            "objects_in_flight_max": gauge(
                "snapd_objects_in_flight_limit", "How many objects may be fetched at once."
            ),
            "bytes_in_flight": gauge("snapd_bytes_in_flight", "Bytes being fetched now."),
            "bytes_in_flight_max": gauge(
                "snapd_bytes_in_flight_limit", "How many bytes may be fetched at once."
            ),
            "transfers_waiting": gauge(
                "snapd_transfers_waiting", "Transfers that wait for a place in flight."
            ),
            "snapshots": gauge("snapd_snapshots", "Complete snapshots in the cache."),
            "cache_bytes": gauge("snapd_cache_bytes", "Bytes that the cache takes on disk."),
            "cache_bytes_max": gauge(
                "snapd_cache_bytes_limit", "The quota of the cache; 0 without one."
            ),
            "reserved_bytes": gauge(
                "snapd_reserved_bytes", "Bytes that running pulls have yet to write."
            ),
            "disk_free_bytes": gauge(
                "snapd_disk_free_bytes", "Free bytes of the cache's file system."
            ),
            "disk_total_bytes": gauge(
                "snapd_disk_total_bytes", "Size of the cache's file system in bytes."
            ),
        }
        self._loop_lag = gauge(
            "snapd_event_loop_lag_seconds", "Longest delay of the event loop in the last 15 s."
        )
        self._ready = gauge("snapd_ready", "1 while new pulls are accepted.")
        self._reloads = Counter(
            "snapd_config_reloads", "Configuration reloads.", ["outcome"], registry=self.registry
        )

    def _describe_care(self) -> None:
        registry = self.registry
        self._rehashed = Counter(
            "snapd_rehashed_objects",
            "Cached objects that looked changed, or were suspect, and were hashed again.",
            ["outcome"],
            registry=registry,
        )
        self._repaired = Counter(
            "snapd_repaired_objects",
            "Damaged objects that are right again in all trees.",
            registry=registry,
        )
        self._scrubbed = Counter(
            "snapd_scrub_objects", "Objects that the scrub has hashed.", registry=registry
        )
        self._scrubbed_bytes = Counter(
            "snapd_scrub_bytes", "Bytes that the scrub has hashed.", registry=registry
        )
        self._scrub_errors = Counter(
            "snapd_scrub_errors", "Objects that the scrub found damaged.", registry=registry
        )
        self._scrub_progress = Gauge(
            "snapd_scrub_progress_ratio",
            "Which part of the running round is done.",
            registry=registry,
        )
        self._scrub_ended = Gauge(
            "snapd_scrub_round_end_timestamp_seconds",
            "When the last round of the scrub ended; 0 if none has since the start.",
            registry=registry,
        )

    def on_request(self, operation: str, outcome: str, seconds: float, size_bytes: int) -> None:
        """See `Observer`."""
        self._requests.labels(operation, outcome).inc()
        self._request_seconds.labels(operation).observe(seconds)
        if size_bytes:
            self._transferred.labels(operation).inc(size_bytes)

    def on_retry(self, operation: str, reason: str) -> None:
        """See `Observer`."""
        self._retries.labels(reason).inc()

    def on_objects(self, source: ObjectSource, objects: int, size_bytes: int) -> None:
        """See `Observer`."""
        self._objects.labels(source).inc(objects)
        self._bytes.labels(source).inc(size_bytes)

    def on_verification_failure(self) -> None:
        """See `Observer`."""
        self._verification_failures.inc()

    def on_pull_ended(self, state: str, seconds: float) -> None:
        """See `Observer`."""
        self._pull_seconds.labels(state).observe(seconds)

    def on_evicted(self, cause: EvictionCause, snapshots: int, freed_bytes: int) -> None:
        """See `Observer`."""
        self._evictions.labels(cause).inc(snapshots)
        self._evicted_bytes.labels(cause).inc(freed_bytes)

    def on_refused(self, reason: RefusalReason) -> None:
        """See `Observer`."""
        self._refused.labels(reason).inc()

    def on_rehashed(self, size_bytes: int, right: bool) -> None:
        """See `Observer`."""
        del size_bytes
        self._rehashed.labels("right" if right else "damaged").inc()

    def on_scrubbed(self, objects: int, size_bytes: int, progress: float) -> None:
        """See `Observer`."""
        self._scrubbed.inc(objects)
        self._scrubbed_bytes.inc(size_bytes)
        self._scrub_progress.set(progress)

    def on_scrub_round(self, ended_at: float) -> None:
        """See `Observer`."""
        self._scrub_progress.set(0)
        self._scrub_ended.set(ended_at)

    def on_scrub_damage(self, objects: int) -> None:
        """See `Observer`."""
        self._scrub_errors.inc(objects)

    def on_repaired(self, objects: int) -> None:
        """See `Observer`."""
        self._repaired.inc(objects)

    def on_reload(self, *, accepted: bool) -> None:
        """Take note of a configuration reload and whether the new one is in force."""
        self._reloads.labels("accepted" if accepted else "refused").inc()

    def set_ready(self, ready: bool) -> None:
        """Show whether new pulls are accepted."""
        self._ready.set(ready)

    def set_loop_lag(self, seconds: float) -> None:
        """Show how late the event loop ran."""
        self._loop_lag.set(seconds)

    def set_numbers(self, numbers: NodeNumbers) -> None:
        """Show how the node stands."""
        self._pulls.labels("running").set(numbers.pulls_running)
        self._pulls.labels("queued").set(numbers.pulls_queued)
        self._pulls_limit.labels("running").set(numbers.pulls_running_max)
        self._pulls_limit.labels("queued").set(numbers.pulls_queued_max)
        for field, gauge in self._gauges.items():
            gauge.set(getattr(numbers, field))

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Render everything in the format that the scraper asks for: the body and its type.

        Blocks: the process's own numbers are read from /proc.
        """
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type
