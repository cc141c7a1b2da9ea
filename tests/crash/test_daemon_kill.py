"""SIGKILL of a real daemon at every distinct step of a pull, and what the next daemon finds."""

from __future__ import annotations

import os
import shutil
import signal
from contextlib import closing, suppress
from pathlib import Path

import pytest

from snapd.model.errors import SnapsyncError
from snapd.model.ids import digest_of
from snapd.model.layout import object_key
from tests.caching import assert_sound, assert_tree
from tests.crash.living import (
    Doom,
    Place,
    assert_whole_or_absent,
    blobs_in,
    doomed,
    dooms,
    sound_after_a_crash,
    staged_by_the_dead,
    starting,
    steps_in,
)
from tests.e2e.installed import Host
from tests.samples import sample
from tests.servers.faultproxy import Fault, FaultProxy
from tests.servers.seaweed import Seaweed

RANGE_BYTES = 65536
LARGE = os.urandom(3 * RANGE_BYTES + 1)
SPOILED = b"comes wrong once" * 50
MADE = sample(
    {
        **{f"d{n % 3}/f{n}": b"%d" % n * 100 for n in range(7)},
        "large": LARGE,
        "spoiled": SPOILED,
        "twice": b"the same",
        "d1/closed/twice": b"the same",
        "empty": b"",
    },
    modes={"d1/closed/": 0o555, "d1/closed/twice": 0o700, "": 0o555},
)
CONFIG = f"""
[transfer]
workers = 1
batch_objects = 3
large_object_bytes = {2 * RANGE_BYTES}
range_bytes = {RANGE_BYTES}
backoff_base_seconds = 0.01
"""


PARTS = 10


@pytest.fixture
def host(quick_path: Path, seaweed: Seaweed, fault_proxy: FaultProxy) -> Host:
    return Host(
        quick_path / "host", {**seaweed.environment(), "AWS_ENDPOINT_URL_S3": fault_proxy.url}
    )


@pytest.fixture(scope="module")
def store(seaweed: Seaweed, seaweed_bucket: str) -> str:
    prefix = "crash/daemon-kill"
    with closing(seaweed.client()) as client:
        for key, body in MADE.keys().items():
            client.put_object(Bucket=seaweed_bucket, Key=f"{prefix}/{key}", Body=body)
    return f"s3://{seaweed_bucket}/{prefix}"


@pytest.fixture
def place(store: str, fault_proxy: FaultProxy) -> Place:
    return Place(store, fault_proxy)


def spoil_once(place: Place) -> None:
    place.proxy.plan(Fault("flip", path=object_key(digest_of(SPOILED)), after_bytes=3))


def one_life(host: Host, place: Place, command: list[str]) -> int:
    """Let a daemon live, pull and stop, or die on the way; give its exit code."""
    spoil_once(place)
    with starting(host, CONFIG, command) as living:
        with suppress(SnapsyncError):
            living.pull(MADE.id, place.store)
        if living.process.poll() is None:
            living.process.terminate()
        code = living.wait()
    place.proxy.plan()
    return code


def forget(host: Host) -> None:
    """Remove all that a life left, so that the next one comes to the same steps."""
    shutil.rmtree(host.cache)
    shutil.rmtree(host.socket.parent)


def all_steps(host: Host, place: Place) -> list[Doom]:
    note = host.root / "steps"
    assert one_life(host, place, doomed("snapd", note=str(note))) == 0
    forget(host)
    return dooms(steps_in(note))


def requests_expected(before: set[str], manifest_kept: bool) -> dict[str, int]:
    expected: dict[str, int] = {digest: 1 for digest in MADE.objects if digest not in before}
    if digest_of(LARGE) in expected:
        expected[digest_of(LARGE)] = -(-len(LARGE) // RANGE_BYTES)
    return expected if manifest_kept else {**expected, MADE.id: 1}


def check_the_next_life(host: Host, place: Place) -> None:
    root = host.cache
    before: set[str] = set(blobs_in(root))
    with starting(host, CONFIG) as living:
        assert living.process.poll() is None, (host.root / "snapd.log").read_text()
        assert_sound(root)
        assert staged_by_the_dead(root) == []
        assert before <= blobs_in(root), "what was verified is kept"
        whole = assert_whole_or_absent(living, MADE)
        kept = (root / "manifests" / MADE.id).exists()
        with place.counting() as requests:
            view = living.pull(MADE.id, place.store)
        assert view.state == "done", view.error
        assert requests == ({} if whole else requests_expected(before, kept))
        assert_tree(Path(view.tree), MADE.manifest)
        assert_sound(root)
    assert list((root / "staging").iterdir()) == []


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("part", range(PARTS))
def test_a_daemon_killed_at_every_step_of_a_pull(host: Host, place: Place, part: int) -> None:
    chosen = all_steps(host, place)
    assert len(chosen) > 40
    killed = 0
    mine = chosen[part::PARTS]
    for doom in mine:
        code = one_life(host, place, doomed("snapd", doom=doom))
        assert code in (0, -signal.SIGKILL), doom
        killed += code != 0
        sound_after_a_crash(host.cache)
        check_the_next_life(host, place)
        forget(host)
    # Which thread makes a step first is a matter of luck, so a rare one may not come again.
    assert killed >= 0.9 * len(mine) - 1
