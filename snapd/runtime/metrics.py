"""What Prometheus is told of a node. `docs/metrics.md` documents each name."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import Generic, Literal, Protocol, TypeVar, get_args

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

from snapd.model.errors import SnapsyncError
from snapd.model.follow_views import FollowView
from snapd.model.jobs import ENDED_STATES, JobView, Step
from snapd.runtime.durations import Durations
from snapd.runtime.follow_metrics import FollowsCollector
from snapd.runtime.numbers import NodeNumbers, NumbersCollector
from snapd.runtime.observer import EvictionCause, ObjectSource, Observer, RefusalReason

REQUEST_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
PULL_BUCKETS_SECONDS = (0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 7200.0)
USUAL_REFUSALS = (*get_args(RefusalReason), "queue_full", "store_not_allowed", "daemon_stopping")

_C = TypeVar("_C", bound="_Labelled")


def _codes(kind: type[SnapsyncError] = SnapsyncError, *, retryable: bool = False) -> set[str]:
    """List the codes of all errors, or of those after which a request is asked again."""
    below = (_codes(each, retryable=retryable) for each in kind.__subclasses__())
    own = {kind.code} if kind.retryable or not retryable else set()
    return own.union(*below)


class _Labelled(Protocol):
    def labels(self: _C, *values: str) -> _C: ...


class _Children(dict[str | tuple[str, ...], _C], Generic[_C]):
    """The children of a metric by label values, each looked up in the library only once."""

    def __init__(self, parent: _C, *known: str) -> None:
        """Make the known series exist from the start, so that the first event is an increase."""
        super().__init__()
        self._parent = parent
        for value in known:
            self[value]

    def __missing__(self, key: str | tuple[str, ...]) -> _C:
        child = self._parent.labels(*((key,) if isinstance(key, str) else key))
        self[key] = child
        return child


class Metrics(Observer):
    """All metrics of one node, in a registry of their own.

    Labels are drawn from closed vocabularies (operations of a store, error codes, job states), so
    the number of series is bounded; an ID of a snapshot, a path or a URI is never a label. Follows,
    of which there are few, are named by their references.
    """

    def __init__(self, *, version: str) -> None:
        # One `_created` series beside each counter and bucket set would double what is scraped.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library does not say
        self.registry = CollectorRegistry()
        self._describe_pulls()
        self._describe_store()
        self._describe_space()
        self._describe_care()
        self._describe_daemon()
        self._numbers = NumbersCollector()
        self.registry.register(self._numbers)
        self._follows = FollowsCollector()
        self.registry.register(self._follows)
        Info("snapd_build", "The running version.", registry=self.registry).info(
            {"version": version, "python": platform.python_version()}
        )
        ProcessCollector(registry=self.registry)

    def _counter(self, name: str, meaning: str) -> Counter:
        return Counter(name, meaning, registry=self.registry)

    def _counters(self, name: str, meaning: str, label: str, *known: str) -> _Children[Counter]:
        return _Children(Counter(name, meaning, [label], registry=self.registry), *known)

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(name, meaning, registry=self.registry)

    def _describe_pulls(self) -> None:
        sources = get_args(ObjectSource)
        self._pull_seconds = _Children(
            Histogram(
                "snapd_pull_duration_seconds",
                "Time from request to end of a pull.",
                ["outcome"],
                buckets=PULL_BUCKETS_SECONDS,
                registry=self.registry,
            ),
            *sorted(ENDED_STATES),
        )
        self._failures = self._counters(
            "snapd_pull_failures",
            "Pulls that failed, by the error's code.",
            "code",
            *sorted(_codes()),
        )
        self._refused = self._counters(
            "snapd_pulls_refused", "Pulls that were refused.", "reason", *USUAL_REFUSALS
        )
        self._objects = self._counters(
            "snapd_objects", "Objects that pulls obtained, by source.", "source", *sources
        )
        self._bytes = self._counters(
            "snapd_bytes", "Bytes of those objects, by source.", "source", *sources
        )
        self._verification_failures = self._counter(
            "snapd_verification_failures", "Objects whose bytes did not match their digest."
        )

    def _describe_store(self) -> None:
        self._requests = _Children(
            Counter(
                "snapd_store_requests",
                "Requests to stores; `ok` or the error's code.",
                ["operation", "outcome"],
                registry=self.registry,
            )
        )
        self._request_seconds = Durations(
            "snapd_store_request_duration_seconds",
            "Time of one store request.",
            "operation",
            REQUEST_BUCKETS_SECONDS,
        )
        self.registry.register(self._request_seconds)
        self._transferred = self._counters(
            "snapd_store_transferred_bytes",
            "Body bytes moved from and to stores, repeated requests included.",
            "operation",
            "get",
        )
        self._retries = self._counters(
            "snapd_store_retries",
            "Requests asked again, by reason.",
            "reason",
            *sorted(_codes(retryable=True)),
        )
        self._transfer_limits = _Children(
            Gauge(
                "snapd_transfer_limit_objects",
                "How many requests of a kind may be in flight now, as far as it pays.",
                ["kind"],
                registry=self.registry,
            ),
            *("small", "rest"),
        )
        self._expiries: dict[str, float] = {}
        self._credentials_expiry = self._gauge(
            "snapd_credentials_expiry_timestamp_seconds",
            "When the first credentials of an open store expire; 0 if none do.",
        )

    def _describe_space(self) -> None:
        causes = get_args(EvictionCause)
        self._evictions = self._counters(
            "snapd_evictions", "Snapshots evicted, by cause.", "cause", *causes
        )
        self._evicted_bytes = self._counters(
            "snapd_evicted_bytes", "Bytes that evictions freed.", "cause", *causes
        )

    def _describe_care(self) -> None:
        self._rehashed = self._counters(
            "snapd_rehashed_objects",
            "Cached objects that looked changed, or were suspect, and were hashed again.",
            "outcome",
            *("right", "damaged"),
        )
        self._repaired = self._counter(
            "snapd_repaired_objects", "Damaged objects that are right again in all trees."
        )
        self._scrubbed = self._counter("snapd_scrub_objects", "Objects that the scrub has hashed.")
        self._scrubbed_bytes = self._counter(
            "snapd_scrub_bytes", "Bytes that the scrub has hashed."
        )
        self._scrub_errors = self._counter(
            "snapd_scrub_errors", "Objects that the scrub found damaged."
        )

    def _describe_daemon(self) -> None:
        self._loop_lag = self._gauge(
            "snapd_event_loop_lag_seconds", "Longest delay of the event loop in the last 15 s."
        )
        self._ready = self._gauge("snapd_ready", "1 while new pulls are accepted.")
        self._reloads = self._counters(
            "snapd_config_reloads",
            "Configuration reloads.",
            "outcome",
            *("accepted", "refused"),
        )

    def on_requests(
        self, operation: str, outcome: str, count: int, seconds: float, size_bytes: int
    ) -> None:
        """See `Observer`."""
        self._requests[operation, outcome].inc(count)
        self._request_seconds.observe(operation, seconds, count)
        if size_bytes:
            self._transferred[operation].inc(size_bytes)

    def on_retry(self, operation: str, reason: str) -> None:
        """See `Observer`."""
        del operation
        self._retries[reason].inc()

    def on_credentials(self, store: str, expires_at: float | None) -> None:
        """See `Observer`."""
        if expires_at is None:
            self._expiries.pop(store, None)
        else:
            self._expiries[store] = expires_at
        self._credentials_expiry.set(min(self._expiries.values(), default=0.0))

    def on_transfer_limit(self, kind: Literal["small", "rest"], objects: int) -> None:
        """See `Observer`."""
        self._transfer_limits[kind].set(objects)

    def on_objects(self, source: ObjectSource, objects: int, size_bytes: int) -> None:
        """See `Observer`."""
        self._objects[source].inc(objects)
        self._bytes[source].inc(size_bytes)

    def on_verification_failure(self) -> None:
        """See `Observer`."""
        self._verification_failures.inc()

    def on_pull_refused(self, reason: str) -> None:
        """See `Observer`."""
        self._refused[reason].inc()

    def on_pull_ended(self, view: JobView, steps: Sequence[Step]) -> None:
        """See `Observer`."""
        del steps
        self._pull_seconds[view.state].observe((view.ended_at or 0.0) - view.created_at)
        if view.state == "failed" and view.error is not None:
            self._failures[view.error["code"]].inc()

    def on_evicted(self, cause: EvictionCause, snapshots: int, freed_bytes: int) -> None:
        """See `Observer`."""
        self._evictions[cause].inc(snapshots)
        self._evicted_bytes[cause].inc(freed_bytes)

    def on_rehashed(self, size_bytes: int, right: bool) -> None:
        """See `Observer`."""
        del size_bytes
        self._rehashed["right" if right else "damaged"].inc()

    def on_scrubbed(self, objects: int, size_bytes: int, progress: float) -> None:
        """See `Observer`."""
        del progress
        self._scrubbed.inc(objects)
        self._scrubbed_bytes.inc(size_bytes)

    def on_scrub_damage(self, objects: int) -> None:
        """See `Observer`."""
        self._scrub_errors.inc(objects)

    def on_repaired(self, objects: int) -> None:
        """See `Observer`."""
        self._repaired.inc(objects)

    def on_reload(self, *, accepted: bool) -> None:
        """Take note of a configuration reload and whether the new one is in force."""
        self._reloads["accepted" if accepted else "refused"].inc()

    def set_ready(self, ready: bool) -> None:
        """Show whether new pulls are accepted."""
        self._ready.set(ready)

    def set_loop_lag(self, seconds: float) -> None:
        """Show how late the event loop ran."""
        self._loop_lag.set(seconds)

    def set_numbers(self, numbers: NodeNumbers) -> None:
        """Show how the node stands."""
        self._numbers.numbers = numbers

    def set_follows(self, views: Sequence[FollowView]) -> None:
        """Show how what is followed stands."""
        self._follows.views = views

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Render everything in the format that the scraper asks for: the body and its type.

        Blocks: the process's own numbers are read from /proc.
        """
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type
