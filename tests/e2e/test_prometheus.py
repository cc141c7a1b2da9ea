"""A real Prometheus watches a real daemon pull, and is asked what dashboard and alerts ask."""

from __future__ import annotations

import math
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from snapctl.client import Client
from tests.deploy.test_prometheus import RULES, expressions
from tests.e2e.installed import COMMAND_SECONDS, Daemon, Host, write_files
from tests.servers.faultproxy import Fault, FaultProxy
from tests.servers.prometheus import Prometheus, promtool, running_prometheus

OBJECTS = 24
BOTH = 8
CONFIG = """
[daemon]
listen = "127.0.0.1:0"
stores = ["{store}"]
[cache]
max_bytes = "8M"
min_free_bytes = "1M"
[transfer]
objects_in_flight = 8
batch_objects = 2
stall_timeout_seconds = 1
# A store that stands still is asked until the test has seen what it wants to see.
attempts_max = 1000
backoff_base_seconds = 0.05
backoff_max_seconds = 0.5
[[store]]
uri = "{store}"
endpoint_url = "{proxy}"
"""


@pytest.fixture
def store(s3_store: Callable[[], str]) -> str:
    return s3_store()


def push(host: Host, tmp_path: Path, store: str, name: str, files: dict[str, bytes]) -> str:
    ran = host.snapctl("push", write_files(tmp_path / name, files), "--store", store)
    assert ran.code == 0, ran.stderr
    return ran.stdout.strip()


def some(name: str, count: int, first: int = 0) -> dict[str, bytes]:
    return {f"{name}{n}": f"{name} {n} ".encode() * 2000 for n in range(first, first + count)}


class Scene:
    """A daemon behind a proxy, watched by Prometheus."""

    def __init__(
        self, host: Host, daemon: Daemon, proxy: FaultProxy, prometheus: Prometheus, store: str
    ) -> None:
        self.host, self.daemon, self.proxy, self.store = host, daemon, proxy, store
        self.ask = prometheus
        self.client = Client([str(host.socket)])

    def pull(self, snapshot_id: str) -> subprocess.Popen[str]:
        words = ("--id", snapshot_id, "--store", self.store, "--timeout", "60s", "--quiet")
        return self.host.start("snapctl", "pull", *words)

    def scraped(self) -> str:
        url = f"http://{self.daemon.status['listen']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as reply:
            text: str = reply.read().decode()
        return text


@contextmanager
def scene(host: Host, proxy: FaultProxy, store: str, tmp_path: Path) -> Iterator[Scene]:
    soon = datetime.now(UTC) + timedelta(minutes=5)
    # Session credentials that nobody will renew.
    host.variables["AWS_CREDENTIAL_EXPIRATION"] = soon.isoformat()
    with (
        host.daemon(config=CONFIG.format(store=store, proxy=proxy.url)) as daemon,
        running_prometheus(
            tmp_path / "prometheus", targets=[daemon.status["listen"]], rules=RULES
        ) as prometheus,
    ):
        yield Scene(host, daemon, proxy, prometheus, store)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_dashboard_and_alerts_ask_during_a_pull(
    cloud_host: Host, fault_proxy: FaultProxy, store: str, tmp_path: Path
) -> None:
    first = push(cloud_host, tmp_path, store, "first", some("both", BOTH))
    one = push(cloud_host, tmp_path, store, "one", some("both", BOTH) | some("x", OBJECTS))
    two = push(cloud_host, tmp_path, store, "two", some("x", OBJECTS) | some("y", 2))
    huge = push(cloud_host, tmp_path, store, "huge", {"h": bytes(12 * 1024 * 1024)})
    with scene(cloud_host, fault_proxy, store, tmp_path) as on:
        ask = on.ask
        ask.until_true('up{job="snapd"} == 1')
        a_pull_with_faults(on, first)
        a_pull_that_stands_still(on, one, two)
        a_pull_that_is_refused(on, huge)
        the_alerts(on)
        what_is_followed(on, first, tmp_path)
        the_dashboard(on)
        assert promtool("check", "metrics", given=on.scraped()) == ""
        assert on.daemon.stop() == 0
        ask.until_true('up{job="snapd"} == 0')
        ask.until_true('ALERTS{alertname="SnapsyncDaemonDown", alertstate="pending"}')


def a_pull_with_faults(on: Scene, snapshot_id: str) -> None:
    """One object comes wrong and one request is throttled; the pull is done all the same."""
    on.proxy.plan(
        Fault("flip", path=r"/\.objects/", after_bytes=3),
        Fault("answer", path=r"/\.objects/", status=503, code="SlowDown"),
    )
    pulling = on.pull(snapshot_id)
    pulling.communicate(timeout=COMMAND_SECONDS)
    assert pulling.returncode == 0
    ask = on.ask
    ask.until_true('snapd_pull_duration_seconds_count{outcome="done"} == 1')
    ask.until_is("snapd_verification_failures_total", {(): 1})
    ask.until_is("snapd_store_retries_total > 0", {("throttled",): 1})
    assert [view.retries for view in on.client.jobs()] == [1]
    ask.until_is('snapd_bytes_total{source="store"}', {("store",): size_of("both", BOTH)})
    ask.until_is("snapd_quarantine_objects", {(): 1})
    ask.until_is("snapd_leases > 0", {("time",): 1})


def size_of(name: str, count: int) -> int:
    return sum(map(len, some(name, count).values()))


def a_pull_that_stands_still(on: Scene, one: str, two: str) -> None:
    """The store stops answering in the middle; two pulls wait for the same objects."""
    stuck = Fault("hang", path=r"/\.objects/", times=None, skip=6)
    on.proxy.plan(stuck)
    ask = on.ask
    pulling = [on.pull(one)]
    try:
        # Six of 24 arrive, and the store hangs; a batch counts when it is whole.
        ask.until_true('snapd_running_pulls_objects{part="fetched"} >= 2')
        pulling.append(on.pull(two))
        ask.until_true('snapd_pulls{state="running"} == 2')
        ask.until_true("snapd_pulls_stalled_seconds > 0.5")
        ask.until_true("snapd_objects_in_flight > 0")
        ask.until_true('rate(snapd_store_transferred_bytes_total{operation="get"}[1m]) > 0')
        total = size_of("both", BOTH) + 2 * size_of("x", OBJECTS) + size_of("y", 2)
        ask.until_is("sum(snapd_running_pulls_bytes)", {(): total})
        parts = ask.until_true("snapd_running_pulls_bytes")
        assert parts["cached",] >= size_of("both", BOTH)
        assert parts["fetched",] > 0
        assert parts["left",] > 0
        done = ask.until_true("instance:snapd_running_pulls_bytes:done_ratio > 0")
        assert 0 < done[()] < 1
        ask.until_true("instance:snapd_received_bytes:rate5m > 0")
        stuck.times = 0
        for each in pulling:
            each.communicate(timeout=COMMAND_SECONDS)
            assert each.returncode == 0
    finally:
        for each in pulling:
            each.kill()
            each.communicate()
    # The ends were counted, and the views of the jobs say the same as Prometheus.
    ask.until_true('snapd_pull_duration_seconds_count{outcome="done"} == 3')
    views = on.client.jobs()
    fetched = sum(view.bytes_fetched for view in views)
    cached = sum(view.bytes_cached for view in views)
    bytes_by_source = ask.until_true("snapd_bytes_total")
    assert bytes_by_source["store",] + bytes_by_source["shared",] == fetched
    assert bytes_by_source["shared",] > 0
    assert bytes_by_source["cache",] == cached
    ask.until_true("sum(snapd_running_pulls_bytes) == 0 and sum(snapd_pulls) == 0")
    ask.until_is("snapd_snapshots", {(): 3})
    ask.until_true("instance:snapd_cache_bytes:sum > 0")


def a_pull_that_is_refused(on: Scene, snapshot_id: str) -> None:
    pulling = on.pull(snapshot_id)
    pulling.communicate(timeout=COMMAND_SECONDS)
    assert pulling.returncode == 11
    on.ask.until_true('snapd_pulls_refused_total{reason="quota"} == 1')
    on.ask.until_is("snapd_pull_failures_total > 0", {("cache_full",): 1})


def the_alerts(on: Scene) -> None:
    ask = on.ask
    for alert in ("SnapsyncVerificationFailure", "SnapsyncPullsRefused"):
        ask.until_true(f'ALERTS{{alertname="{alert}", alertstate="firing"}}')
    for alert in ("SnapsyncCredentialsExpiring", "SnapsyncPullsFailing"):
        ask.until_true(f'ALERTS{{alertname="{alert}"}}')
    for alert in ("SnapsyncDaemonDown", "SnapsyncScrubOverdue", "SnapsyncDiskNearlyFull"):
        ask.until_is(f'ALERTS{{alertname="{alert}"}}', {})
    rules = [rule for group in ask.ask("rules")["groups"] for rule in group["rules"]]
    assert [rule["lastError"] for rule in rules if rule["health"] != "ok"] == []
    texts = [
        text
        for rule in rules
        for alert in rule.get("alerts", ())
        for text in alert["annotations"].values()
    ]
    assert texts
    assert not [text for text in texts if "<error" in text or "{{" in text]


def what_is_followed(on: Scene, snapshot_id: str, tmp_path: Path) -> None:
    """One name leads to what is here already, and one leads nowhere."""
    words = ("--store", on.store, "--socket", str(on.host.socket))
    named = on.host.snapctl("dataset", "add", "iris@v1.0.0", "--id", snapshot_id, *words)
    assert named.code == 0, named.stderr
    for reference, dest in (("iris@v1.0.0", "live"), ("nothing@production", "nothing")):
        asked = ("follow", reference, "--dest", tmp_path / dest, "--poll", "1s", "--wait")
        followed = on.host.snapctl(*asked, *words)
        assert followed.code == 0, followed.stderr
    on.ask.until_true('snapd_follow_info{ref="iris@v1.0.0", version="v1.0.0"} == 1')
    on.ask.until_true('snapd_follow_error{ref="nothing@production", code="no_such_name"} == 1')


def the_dashboard(on: Scene) -> None:
    """Every question of every panel has an answer, now that all of it has happened once."""
    ask = on.ask

    def unanswered() -> list[str]:
        return [
            each
            for each in expressions()
            if not any(map(math.isfinite, ask.query(each).values()))
            and "done_ratio" not in each
            and not each.startswith("sum(snapd_running_pulls_bytes")
        ]

    try:
        ask.until(lambda: not unanswered())
    except AssertionError:
        raise AssertionError(f"without an answer: {unanswered()}") from None
