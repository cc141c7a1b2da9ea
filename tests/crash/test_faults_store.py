"""A real daemon, a real S3 server, and a proxy between the two that fails in every way we know."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from snapd.model.errors import TimedOut
from snapd.model.ids import digest_of
from snapd.model.jobs import JobView, PullRequest
from snapd.model.layout import manifest_key, object_key
from tests.caching import assert_sound, assert_tree
from tests.crash.faulty import (
    CASES,
    DEADLINE_SECONDS,
    PATIENCE,
    PATIENT,
    RANGE_BYTES,
    STALL_SECONDS,
    Case,
)
from tests.crash.living import Living, Place, blobs_in, staged_by_the_dead, starting
from tests.e2e.installed import Host
from tests.samples import Sample, sample
from tests.servers.faultproxy import Fault, FaultProxy
from tests.servers.ports import reserved_port
from tests.servers.seaweed import Seaweed, running_seaweed, stopped

WITHIN_SECONDS = 10 * DEADLINE_SECONDS
"""The deadline of the retries of the manifest, then of the objects, on a machine that is busy."""


def made_for(name: str) -> Sample:
    """Make a snapshot that no other test has objects of."""
    dice = random.Random(name)
    files = {f"d/f{number}": dice.randbytes(3000 + number) for number in range(6)}
    return sample({**files, "large": dice.randbytes(5 * RANGE_BYTES)})


def large_of(made: Sample) -> bytes:
    return max(made.objects.values(), key=len)


def small_of(made: Sample) -> bytes:
    return min(made.objects.values(), key=len)


@pytest.fixture(scope="module")
def proxy(seaweed: Seaweed) -> Iterator[FaultProxy]:
    with FaultProxy.running(seaweed.endpoint_url) as running:
        yield running


@pytest.fixture(scope="module")
def host(seaweed: Seaweed, proxy: FaultProxy, tmp_path_factory: pytest.TempPathFactory) -> Host:
    variables = {**seaweed.environment(), "AWS_ENDPOINT_URL_S3": proxy.url}
    return Host(tmp_path_factory.mktemp("faults") / "host", variables)


@pytest.fixture(scope="module")
def living(host: Host) -> Iterator[Living]:
    with starting(host, PATIENCE) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def patient(host: Host) -> Iterator[Living]:
    """A daemon that bears some faults more: a busy machine stands still for a second, too."""
    with starting(Host(host.root / "patient", host.variables), PATIENT) as daemon:
        yield daemon


@pytest.fixture
def place(seaweed_bucket: str, proxy: FaultProxy) -> Iterator[Place]:
    yield Place(f"s3://{seaweed_bucket}/crash/faults", proxy)
    proxy.plan()


def upload(seaweed: Seaweed, store: str, made: Sample) -> None:
    bucket, _, prefix = store.removeprefix("s3://").partition("/")
    with closing(seaweed.client()) as client:
        for key, body in made.keys().items():
            client.put_object(Bucket=bucket, Key=f"{prefix}/{key}", Body=body)


def pull_in_time(living: Living, made: Sample, store: str) -> JobView:
    began = time.monotonic()
    view = living.pull(made.id, store)
    assert time.monotonic() - began < WITHIN_SECONDS
    return view


def assert_ended(view: JobView, code: str) -> None:
    """Check that a pull ended as documented, with a message that names the place."""
    if not code:
        assert view.state == "done", view.error
        return
    assert view.state == "failed"
    assert view.error is not None
    assert view.error["code"] == code, view.error
    assert view.error["hint"]


def assert_in_order(living: Living) -> None:
    assert_sound(living.host.cache)
    assert staged_by_the_dead(living.host.cache) == []


def assert_resumes(living: Living, made: Sample, place: Place) -> None:
    """With the fault gone the next pull succeeds, and asks only for what is missing."""
    place.proxy.plan()
    kept = blobs_in(living.host.cache)
    with place.counting() as requests:
        view = living.pull(made.id, place.store)
    assert view.state == "done", view.error
    assert set(requests) - {made.id} == set(made.objects) - kept
    assert_tree(Path(view.tree), made.manifest)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fault_that_comes_once(
    patient: Living, seaweed: Seaweed, place: Place, case: Case
) -> None:
    made = made_for(f"once {case.name}")
    upload(seaweed, place.store, made)
    small, large = (object_key(digest_of(chosen(made))) for chosen in (small_of, large_of))
    size = case.once(f"{large}$", method="HEAD")
    reads = [case.once(f"{key}$", method="GET") for key in (manifest_key(made.id), small, large)]
    # A fault that ends the pull leaves the others for the next one.
    for chosen in [[fault] for fault in reads] if case.ends_once else [[size, *reads]]:
        place.proxy.plan(*chosen)
        began = len(place.proxy.seen)
        assert_ended(pull_in_time(patient, made, place.store), case.ends_once)
        met = [seen for seen in place.proxy.seen[began:] if seen.fault]
        assert len(met) == len(chosen)
        assert_in_order(patient)
    assert_resumes(patient, made, place)


@pytest.mark.parametrize("target", ["manifest", "small", "large"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fault_that_never_ends(
    living: Living, seaweed: Seaweed, place: Place, case: Case, target: str
) -> None:
    made = made_for(f"always {case.name} {target}")
    upload(seaweed, place.store, made)
    chosen = {"small": small_of, "large": large_of}.get(target)
    key = object_key(digest_of(chosen(made))) if chosen else manifest_key(made.id)
    place.proxy.plan(case.always(f"{key}$"))
    began = len(place.proxy.seen)
    view = pull_in_time(living, made, place.store)
    assert_ended(view, case.ends)
    assert sum(bool(seen.fault) for seen in place.proxy.seen[began:]) < 40, "bounded requests"
    assert_in_order(living)
    assert_resumes(living, made, place)


def test_a_host_name_that_is_gone(seaweed: Seaweed, tmp_path: Path) -> None:
    variables = {**seaweed.environment(), "AWS_ENDPOINT_URL_S3": "http://no-such-host.invalid:80"}
    made = made_for("dns")
    with starting(Host(tmp_path / "host", variables), PATIENCE) as living:
        assert_ended(pull_in_time(living, made, "s3://any/prefix"), "name_not_resolved")
        assert_in_order(living)


def test_nobody_listens(seaweed: Seaweed, tmp_path: Path) -> None:
    made = made_for("refused")
    with reserved_port() as port:
        variables = {**seaweed.environment(), "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}"}
        with starting(Host(tmp_path / "host", variables), PATIENCE) as living:
            assert_ended(pull_in_time(living, made, "s3://any/prefix"), "connection_refused")
            assert_in_order(living)


def test_a_trickle_that_outlasts_the_caller(living: Living, seaweed: Seaweed, place: Place) -> None:
    made = made_for("trickle")
    upload(seaweed, place.store, made)
    key = object_key(digest_of(large_of(made)))
    place.proxy.plan(Fault("trickle", path=key, method="GET", times=None, seconds=0.1))
    with pytest.raises(TimedOut):
        list(
            living.client.pull(
                PullRequest(made.id, place.store), deadline=time.monotonic() + STALL_SECONDS
            )
        )
    (job,) = [job for job in living.client.jobs() if job.snapshot_id == made.id]
    *_, last = living.client.watch(job.job_id)
    assert last.state == "cancelled"
    assert_in_order(living)
    assert_resumes(living, made, place)


def test_a_server_that_restarts_in_the_middle(tmp_path: Path) -> None:
    """The pull goes on by itself if it has tries left, and asks for nothing twice that it has."""
    made = made_for("restart")
    with (
        running_seaweed(tmp_path / "seaweed") as seaweed,
        FaultProxy.running(seaweed.endpoint_url) as proxy,
    ):
        place = Place(f"s3://{seaweed.make_bucket('restarted')}/p", proxy)
        upload(seaweed, place.store, made)
        host = Host(tmp_path / "host", {**seaweed.environment(), "AWS_ENDPOINT_URL_S3": proxy.url})
        key = object_key(digest_of(large_of(made)))
        proxy.plan(Fault("stall", path=key, method="GET", after_bytes=100))
        with starting(host, PATIENT) as living:
            views = living.client.pull(PullRequest(made.id, place.store))
            next(views)
            assert proxy.began.wait(WITHIN_SECONDS)
            with stopped(tmp_path / "seaweed", seaweed) as start:
                before = len(proxy.seen)
                start()
                *_, last = views
                assert_ended(last, "")
            assert_tree(Path(last.tree), made.manifest)
            assert len(proxy.seen) > before
            assert_in_order(living)
