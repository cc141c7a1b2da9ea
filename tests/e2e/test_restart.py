"""Pulls under load while their daemon is stopped, or killed, and another one takes its place."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from snapctl.client import Client
from snapd.model.ids import SnapshotId, parse_snapshot_id
from tests.e2e.installed import COMMAND_SECONDS, READY_SECONDS, Daemon, Host, write_files
from tests.servers.faultproxy import Fault, FaultProxy

OBJECTS = 60
_OBJECT = re.compile(r"/\.objects/([0-9a-f/]+)")

CONFIG = """
[daemon]
listen = ""
stores = ["{store}"]
grace_seconds = 0.2
[transfer]
objects_in_flight = 6
batch_objects = 2
[[store]]
uri = "{store}"
endpoint_url = "{proxy}"
"""


def stop(daemon: Daemon) -> None:
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(READY_SECONDS) == 0


def blobs(host: Host) -> set[str]:
    """Name the objects that are verified in the cache."""
    return {path.name.partition(".")[0] for path in host.cache.glob("blobs/*/*")}


def asked_for(proxy: FaultProxy) -> list[str]:
    """Name the objects that the store was asked for, in order."""
    found = (_OBJECT.search(seen.target) for seen in proxy.seen if seen.method == "GET")
    return [match[1].replace("/", "") for match in found if match]


@pytest.fixture
def store(s3_store: Callable[[], str]) -> str:
    return s3_store()


@pytest.fixture
def pushed(cloud_host: Host, tmp_path: Path, store: str) -> list[SnapshotId]:
    """Two snapshots that share a third of their objects."""
    ids = []
    for name in ("one", "two"):
        files = {
            f"d{n % 7}/{n}": f"{name if n % 3 else 'both'} {n} ".encode() * 500
            for n in range(OBJECTS)
        }
        ran = cloud_host.snapctl("push", write_files(tmp_path / name, files), "--store", store)
        assert ran.code == 0, ran.stderr
        ids.append(parse_snapshot_id(ran.stdout))
    return ids


@pytest.mark.parametrize("end", [stop, Daemon.kill], ids=["stopped", "killed"])
def test_pulls_under_load_outlast_their_daemon(
    cloud_host: Host,
    fault_proxy: FaultProxy,
    tmp_path: Path,
    store: str,
    pushed: list[SnapshotId],
    end: Callable[[Daemon], None],
) -> None:
    one, two = pushed
    stuck = Fault("hang", path=r"/\.objects/", times=None, skip=20)
    fault_proxy.plan(stuck)
    config = CONFIG.format(store=store, proxy=fault_proxy.url)
    client = Client([str(cloud_host.socket)])
    began: list[subprocess.Popen[str]] = []

    def begin(*words: str | Path) -> subprocess.Popen[str]:
        began.append(cloud_host.start("snapctl", *words))
        return began[-1]

    def pull(snapshot_id: str, *more: str | Path) -> subprocess.Popen[str]:
        return begin("pull", "--id", snapshot_id, "--store", store, "--timeout", "90s", *more)

    try:
        with cloud_host.daemon(config=config) as first:
            pulling = [pull(one), pull(one, "--json"), pull(one, tmp_path / "out")]
            ordered = cloud_host.snapctl(
                "pull", "--id", two, "--store", store, "--detach", "--priority", "prefetch"
            )
            assert ordered.code == 0, ordered.stderr
            job_id = ordered.stdout.strip()
            watching = begin("watch", job_id, "--json")
            assert watching.stderr is not None
            assert watching.stderr.readline().startswith("pull ")
            deadline = time.monotonic() + COMMAND_SECONDS
            while True:
                views = client.jobs()
                fetching = [view.waiters for view in views if view.state == "fetching"]
                fetched = sum(view.objects_fetched for view in views)
                if sorted(fetching) == [1, len(pulling)] and fetched >= 10:
                    break
                assert time.monotonic() < deadline, views
                time.sleep(0.02)
            end(first)
        kept = blobs(cloud_host)
        assert 5 <= len(kept) <= 20
        assert all(each.poll() is None for each in began)
        asked_before = len(asked_for(fault_proxy))
        stuck.times = 0
        with cloud_host.daemon(config=config):
            results = [each.communicate(timeout=COMMAND_SECONDS) for each in (*pulling, watching)]
            assert [each.returncode for each in (*pulling, watching)] == [0] * 4, results
            assert client.jobs()
    finally:
        for each in began:
            each.kill()
            each.communicate()
    trees = cloud_host.cache / "trees"
    assert results[0][0].strip() == str(trees / one)
    assert json.loads(results[1][0])["tree"] == str(trees / one)
    watched = json.loads(results[3][0])
    assert (watched["job_id"], watched["state"]) == (job_id, "done")
    assert "waiting for the next one" in results[0][1]
    for path, snapshot_id in ((trees / one, one), (tmp_path / "out", one), (trees / two, two)):
        assert cloud_host.snapctl("id", path).stdout.strip() == snapshot_id
    # Nothing that was verified is fetched again, nothing is fetched twice by the second daemon.
    later = asked_for(fault_proxy)[asked_before:]
    assert not kept & set(later)
    assert len(later) == len(set(later))
    assert kept | set(later) == blobs(cloud_host)
    assert not list((cloud_host.cache / "orders").iterdir())


def test_a_daemon_that_stays_away_ends_a_pull_within_its_timeout(
    cloud_host: Host, fault_proxy: FaultProxy, store: str, pushed: list[SnapshotId]
) -> None:
    fault_proxy.plan(Fault("hang", path=r"/\.objects/", times=None))
    config = CONFIG.format(store=store, proxy=fault_proxy.url)
    with cloud_host.daemon(config=config) as daemon:
        words = ("pull", "--id", pushed[0], "--store", store, "--timeout", "8s", "--json")
        pulling = cloud_host.start("snapctl", *words)
        assert fault_proxy.began.wait(READY_SECONDS)
        daemon.kill()
        _, errors = pulling.communicate(timeout=COMMAND_SECONDS)
    error = json.loads(errors.splitlines()[-1])
    assert (pulling.returncode, error["code"]) == (16, "timed_out")
    assert "went away" in error["message"]
    # Nobody was there to begin with: that is told at once, not after the timeout.
    again = cloud_host.snapctl(*words[:-2], "1h", "--json")
    assert (again.code, again.error["code"]) == (14, "daemon_not_running")
