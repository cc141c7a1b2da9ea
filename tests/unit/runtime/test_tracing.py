from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from snapd.model.errors import InvalidConfig
from snapd.model.jobs import JobView, Step
from snapd.model.settings import TracingSettings
from snapd.runtime.log import job_context
from snapd.runtime.observer import Observer
from snapd.runtime.tracing import JOBS_MAX, RETRIES_MAX, Tracing, open_tracing
from tests.servers.otlp import Collector, attributes_of, running_collector

STEPS = [Step("queued", 100.0), Step("planning", 101.5), Step("fetching", 102.0)]

OFF = """
import sys, anyio
import snapd.daemon
from snapd.model.settings import TracingSettings
from snapd.runtime.tracing import open_tracing

async def main():
    async with open_tracing(TracingSettings(), version="1", now=lambda: 0.0) as observer:
        observer.on_retry("get", "throttled")

anyio.run(main)
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


def ended(state: Any = "done", job_id: str = "j1", **more: Any) -> JobView:
    return JobView(
        job_id, "1d", "s3://b/p", state, created_at=100.0, ended_at=110.0, bytes_fetched=7, **more
    )


async def traced(
    collector: Collector, *pulls: tuple[JobView, list[Step]], retries: int = 0
) -> None:
    settings = TracingSettings(endpoint_url=f"{collector.url}/")
    async with open_tracing(settings, version="1.2", now=lambda: 105.0) as tracing:
        with job_context("j1"):
            for _ in range(retries):
                tracing.on_retry("get", "throttled")
        for view, steps in pulls:
            tracing.on_pull_ended(view, steps)


def test_turned_off_nothing_of_the_library_is_imported() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", OFF], capture_output=True, text=True, check=False, timeout=60
    )
    assert (ran.returncode, ran.stdout) == (0, "[]\n"), ran.stderr


async def test_a_pull_is_a_span_with_its_steps_below_it() -> None:
    with running_collector() as collector:
        await traced(collector, (ended(), STEPS))
        spans = {span.name: span for span in collector.wait_for(4)}
    assert set(spans) == {"pull", "queued", "planning", "fetching"}
    pull = spans.pop("pull")
    assert {span.parent_span_id for span in spans.values()} == {pull.span_id}
    assert {span.trace_id for span in spans.values()} == {pull.trace_id}
    assert not pull.parent_span_id
    times = {
        name: (span.start_time_unix_nano / 1e9, span.end_time_unix_nano / 1e9)
        for name, span in spans.items()
    }
    assert times == {"queued": (100, 101.5), "planning": (101.5, 102), "fetching": (102, 110)}
    assert (pull.start_time_unix_nano, pull.end_time_unix_nano) == (100 * 10**9, 110 * 10**9)
    attributes = attributes_of(pull)
    assert attributes["snapsync.job_id"] == "j1"
    assert attributes["snapsync.store"] == "s3://b/p"
    assert attributes["snapsync.bytes.fetched"] == 7
    assert attributes["snapsync.outcome"] == "done"
    assert "error.type" not in attributes
    about = collector.resources[0]
    assert (about["service.name"], about["service.version"]) == ("snapd", "1.2")


async def test_a_failure_is_one_in_the_trace() -> None:
    error = {"code": "stalled", "message": "nothing came"}
    with running_collector() as collector:
        await traced(collector, (ended("failed", error=error), STEPS))
        (pull,) = [span for span in collector.wait_for(4) if span.name == "pull"]
    assert attributes_of(pull)["error.type"] == "stalled"
    assert (pull.status.code, pull.status.message) == (2, "nothing came")


async def test_retries_are_events_and_bounded() -> None:
    with running_collector() as collector:
        pulls = [(ended(), STEPS), (ended(job_id="j2"), STEPS)]
        await traced(collector, *pulls, retries=RETRIES_MAX + 5)
        found = [span for span in collector.wait_for(8) if span.name == "pull"]
    one, two = sorted(found, key=lambda span: str(attributes_of(span)["snapsync.job_id"]))
    assert len(one.events) == RETRIES_MAX
    assert attributes_of(one)["snapsync.retries"] == RETRIES_MAX + 5
    assert attributes_of(one.events[0]) == {"operation": "get", "reason": "throttled"}
    assert one.events[0].time_unix_nano == 105 * 10**9
    assert (len(two.events), attributes_of(two)["snapsync.retries"]) == (0, 0)


def test_retries_that_no_pull_claims_do_not_pile_up() -> None:
    tracing = Tracing(None, lambda: 0.0)  # type: ignore[arg-type]  # nothing is sent
    tracing.on_retry("get", "throttled")
    for number in range(JOBS_MAX + 9):
        with job_context(f"j{number}"):
            tracing.on_retry("get", "throttled")
    assert len(tracing._retries) == JOBS_MAX


async def test_a_collector_that_is_down_stops_nobody() -> None:
    with running_collector() as gone:
        pass
    await traced(gone, (ended(), STEPS))
    assert gone.spans == []


async def test_without_the_library_the_daemon_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    settings = TracingSettings(endpoint_url="http://127.0.0.1:1")
    with pytest.raises(InvalidConfig) as refusal:
        async with open_tracing(settings, version="1", now=lambda: 0.0):
            pass
    assert "snapsync[otel]" in refusal.value.hint


async def test_turned_off_it_listens_to_nothing() -> None:
    async with open_tracing(TracingSettings(), version="1", now=lambda: 0.0) as observer:
        assert type(observer) is Observer
