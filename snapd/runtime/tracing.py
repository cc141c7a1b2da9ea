"""Traces of pulls, sent to an OpenTelemetry collector: off unless one is configured.

The library is an extra (`snapsync[otel]`) and is imported only when traces are on. A pull's spans
are made when it has ended, from the steps that it noted anyway, so that nothing is done for them
before.
"""

from __future__ import annotations

import socket
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import anyio
from anyio import to_thread

from snapd.model.errors import InvalidConfig
from snapd.model.jobs import JobView, Step
from snapd.model.settings import TracingSettings
from snapd.runtime.log import current_job_id
from snapd.runtime.observer import Observer

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

RETRIES_MAX = 32
"""A span has so many events of a pull's retries; their number is told whole."""
JOBS_MAX = 256
EXPORT_SECONDS = 5.0
FLUSH_SECONDS = 3.0
"""How long the end of the daemon waits for a collector that takes nothing."""


class Retry(NamedTuple):
    """A request that was asked again."""

    operation: str
    reason: str
    at: float


class Retries:
    """The retries of one pull: the first few as they were, and how many there were."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[Retry] = []

    def add(self, retry: Retry) -> None:
        """Take note of one more."""
        self.count += 1
        if len(self.first) < RETRIES_MAX:
            self.first.append(retry)


class Tracing(Observer):
    """Makes a trace of each pull: one span for all of it, one below for each step."""

    def __init__(self, tracer: Tracer, now: Callable[[], float]) -> None:
        self._tracer = tracer
        self._now = now
        self._retries: OrderedDict[str, Retries] = OrderedDict()

    def on_retry(self, operation: str, reason: str) -> None:
        """See `Observer`."""
        job_id = current_job_id()
        if not job_id:
            return
        self._retries.setdefault(job_id, Retries()).add(Retry(operation, reason, self._now()))
        # A flight may go on for another pull than the one that began it, whose end is over then.
        if len(self._retries) > JOBS_MAX:
            self._retries.popitem(last=False)

    def on_pull_ended(self, view: JobView, steps: Sequence[Step]) -> None:
        """See `Observer`."""
        from opentelemetry.trace import Status, StatusCode, set_span_in_context

        ended_at = view.ended_at or self._now()
        retries = self._retries.pop(view.job_id, Retries())
        attributes = _attributes(view) | {"snapsync.retries": retries.count}
        began_ns = _nanoseconds(view.created_at)
        pull = self._tracer.start_span("pull", attributes=attributes, start_time=began_ns)
        context = set_span_in_context(pull)
        for step, following in pairwise([*steps, Step(view.state, ended_at)]):
            below: Span = self._tracer.start_span(
                step.state, context, start_time=_nanoseconds(step.began_at)
            )
            below.end(_nanoseconds(following.began_at))
        for retry in retries.first:
            facts = {"operation": retry.operation, "reason": retry.reason}
            pull.add_event("retry", facts, _nanoseconds(retry.at))
        if view.error is not None:
            pull.set_attribute("error.type", view.error["code"])
            pull.set_status(Status(StatusCode.ERROR, view.error["message"]))
        pull.end(_nanoseconds(ended_at))


def _attributes(view: JobView) -> dict[str, str | int]:
    return {
        "snapsync.job_id": view.job_id,
        "snapsync.snapshot_id": view.snapshot_id,
        "snapsync.store": view.store,
        "snapsync.priority": view.priority,
        "snapsync.outcome": view.state,
        "snapsync.objects.cached": view.objects_cached,
        "snapsync.objects.fetched": view.objects_fetched,
        "snapsync.bytes.cached": view.bytes_cached,
        "snapsync.bytes.fetched": view.bytes_fetched,
    }


def _nanoseconds(moment: float) -> int:
    return int(moment * 1e9)


@asynccontextmanager
async def open_tracing(
    settings: TracingSettings, *, version: str, now: Callable[[], float]
) -> AsyncIterator[Observer]:
    """Send traces for the length of the block, and what is left of them at its end.

    What it gives listens to nothing if no collector is configured. Raises `InvalidConfig` if one is
    and the library is not installed. A collector that is down delays nothing; its spans are lost.
    """
    if not settings.endpoint_url:
        yield Observer()
        return
    provider = await to_thread.run_sync(_provider, settings, version)
    try:
        yield Tracing(provider.get_tracer("snapsync", version), now)
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(FLUSH_SECONDS):
            await to_thread.run_sync(provider.shutdown, abandon_on_cancel=True)


def _provider(settings: TracingSettings, version: str) -> TracerProvider:
    """Load the library, which takes a while, and set it up; its queue is bounded."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as exc:
        raise InvalidConfig(
            f"[tracing] endpoint_url is set, but OpenTelemetry is not installed: {exc}",
            hint="Install the extra: pip install 'snapsync[otel]'.",
        ) from exc
    about = {"service.name": "snapd", "service.version": version, "host.name": socket.gethostname()}
    provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(
        endpoint=f"{settings.endpoint_url.rstrip('/')}/v1/traces", timeout=EXPORT_SECONDS
    )
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
