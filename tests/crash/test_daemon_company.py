"""Several processes on one cache: standalone pulls, a daemon beside them, kills under load."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from snapd.model.errors import SnapsyncError
from snapd.model.ids import digest_of
from tests.caching import assert_sound, assert_tree
from tests.crash.living import (
    PATIENCE_SECONDS,
    Doom,
    Place,
    doomed,
    dooms,
    launch,
    staged_by_the_dead,
    starting,
    steps_in,
)
from tests.crash.nursery import Born
from tests.e2e.installed import BIN, Host
from tests.samples import Sample, sample
from tests.servers.faultproxy import Fault, FaultProxy
from tests.servers.seaweed import Seaweed
from tests.trees import manifest_of

SHARED = {f"s{n % 4}/f{n}": b"shared %d" % n * 50 for n in range(20)}
ONE = sample({**SHARED, "only/one": b"1" * 5000, "closed/f": b"x"}, modes={"closed/": 0o555})
TWO = sample({**SHARED, "only/two": b"2" * 5000, "big": os.urandom(300_000)})
CONFIG = """
[transfer]
batch_objects = 4
large_object_bytes = 131072
range_bytes = 65536
backoff_base_seconds = 0.01
"""


@pytest.fixture
def host(quick_path: Path, seaweed: Seaweed, fault_proxy: FaultProxy) -> Host:
    host = Host(
        quick_path / "host", {**seaweed.environment(), "AWS_ENDPOINT_URL_S3": fault_proxy.url}
    )
    host.environment()
    (host.root / "transfer.toml").write_text(CONFIG, encoding="utf-8")
    return host


@pytest.fixture(scope="module")
def store(seaweed: Seaweed, seaweed_bucket: str) -> str:
    with closing(seaweed.client()) as client:
        for made in (ONE, TWO):
            for key, body in made.keys().items():
                client.put_object(Bucket=seaweed_bucket, Key=f"crash/company/{key}", Body=body)
    return f"s3://{seaweed_bucket}/crash/company"


@pytest.fixture
def place(store: str, fault_proxy: FaultProxy) -> Place:
    return Place(store, fault_proxy)


def words(host: Host, made: Sample, place: Place, *more: str) -> list[str]:
    """Say a standalone pull, on the cache that the daemon has too."""
    config = str(host.root / "transfer.toml")
    fixed = ["pull", "--id", made.id, "--store", place.store, "--standalone", "--json"]
    return [*fixed, "--cache-dir", str(host.cache), "--config", config, *more]


def run(host: Host, command: Sequence[str]) -> subprocess.Popen[bytes] | Born:
    return launch(host, command, log=host.root / "snapctl.log")


def standalone(
    host: Host, made: Sample, place: Place, *more: str
) -> subprocess.Popen[bytes] | Born:
    return run(host, [str(BIN / "snapctl"), *words(host, made, place, *more)])


def log_of(host: Host) -> str:
    return (host.root / "snapctl.log").read_text(encoding="utf-8", errors="replace")


@pytest.fixture
def slow(place: Place) -> Iterator[None]:
    """Make each answer late, so that those who begin together are at it together."""
    place.proxy.plan(Fault("delay", times=None, seconds=0.1))
    yield
    place.proxy.plan()


@pytest.mark.usefixtures("slow")
def test_two_standalone_pulls_fetch_one_snapshot_once(host: Host, place: Place) -> None:
    with place.counting() as requests:
        pulls = [standalone(host, ONE, place) for _ in range(2)]
        assert [each.wait(PATIENCE_SECONDS) for each in pulls] == [0, 0], log_of(host)
    assert requests == dict.fromkeys((ONE.id, *ONE.objects), 1)
    assert_tree(host.cache / "trees" / ONE.id, ONE.manifest)
    assert_sound(host.cache)
    assert list((host.cache / "staging").iterdir()) == []


@pytest.mark.usefixtures("slow")
def test_a_daemon_and_standalone_pulls_on_one_cache(host: Host, place: Place) -> None:
    with starting(host, CONFIG) as living, place.counting() as requests:
        pulls = [standalone(host, made, place) for made in (ONE, TWO, ONE)]
        views = [living.pull(made.id, place.store) for made in (ONE, TWO)]
        assert [each.wait(PATIENCE_SECONDS) for each in pulls] == [0, 0, 0], log_of(host)
        assert [view.state for view in views] == ["done", "done"]
        assert {view.snapshot_id for view in living.client.snapshots()} == {ONE.id, TWO.id}
    assert requests[ONE.id] == requests[TWO.id] == 1
    # Processes share snapshots, not objects: of two snapshots each may fetch what both hold.
    assert all(requests[digest] <= 2 for digest in ONE.objects)
    for made in (ONE, TWO):
        assert_tree(host.cache / "trees" / made.id, made.manifest)
    assert_sound(host.cache)
    assert list((host.cache / "staging").iterdir()) == []


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("seed", range(4))
def test_kills_under_load(host: Host, place: Place, seed: int) -> None:
    """Daemon and standalone pulls die at steps by chance, over and over; those that live succeed.

    The lottery is the same in every run, but which thread comes to a step first is not.
    """
    dice = random.Random(seed)
    note = host.root / "steps"
    first = run(host, doomed("snapctl", *words(host, TWO, place), note=str(note)))
    assert first.wait(PATIENCE_SECONDS) == 0, log_of(host)
    steps = dooms(steps_in(note))
    for _ in range(3):
        shutil.rmtree(host.cache)
        host.environment()
        one_round(host, place, dice, steps)


def one_round(host: Host, place: Place, dice: random.Random, steps: list[Doom]) -> None:
    with ExitStack() as stack:
        doom = dice.choice(steps)
        living = stack.enter_context(starting(host, CONFIG, doomed("snapd", doom=doom)))
        pulls = [
            run(host, doomed("snapctl", *words(host, made, place), doom=dice.choice(steps)))
            for made in (ONE, TWO, ONE)
        ]
        healthy = standalone(host, dice.choice((ONE, TWO)), place)
        with suppress(SnapsyncError):
            living.pull(dice.choice((ONE, TWO)).id, place.store)
        assert healthy.wait(PATIENCE_SECONDS) == 0, log_of(host)
        for each in pulls:
            assert each.wait(PATIENCE_SECONDS) in (0, -signal.SIGKILL), log_of(host)
    assert_sound(host.cache, just_crashed=True)
    with starting(host, CONFIG) as living:
        assert_sound(host.cache)
        assert staged_by_the_dead(host.cache) == []
        for made in (ONE, TWO):
            assert_tree(Path(living.pull(made.id, place.store).tree), made.manifest)
    assert list((host.cache / "staging").iterdir()) == []


CHECKOUT = ("destination.", "placing.", "checkout.", "mirror.", "laying_out.", "comparing.")


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize("mode", ["copy", "hardlink", "symlink"])
def test_a_checkout_by_snapctl_killed_at_every_step(host: Host, place: Place, mode: str) -> None:
    dest, note = host.root / "dest", host.root / "steps"
    arguments = words(host, ONE, place, "--mode", mode, "--delete", str(dest))
    assert standalone(host, ONE, place).wait(PATIENCE_SECONDS) == 0, log_of(host)
    assert run(host, doomed("snapctl", *arguments, note=str(note))).wait(PATIENCE_SECONDS) == 0
    chosen = [doom for doom in dooms(steps_in(note)) if any(part in doom.step for part in CHECKOUT)]
    assert chosen
    killed = 0
    for doom in chosen:
        remove(dest)
        code = run(host, doomed("snapctl", *arguments, doom=doom)).wait(PATIENCE_SECONDS)
        assert code in (0, -signal.SIGKILL), log_of(host)
        killed += code != 0
        assert_only_whole_files(dest, ONE)
        assert_sound(host.cache, just_crashed=True)
        assert run(host, [str(BIN / "snapctl"), *arguments]).wait(PATIENCE_SECONDS) == 0
        assert manifest_of(dest.resolve()).id == ONE.id
    assert killed == len(chosen)


def remove(dest: Path) -> None:
    if dest.is_symlink():
        dest.unlink()
    elif dest.exists():
        shutil.rmtree(dest)


def assert_only_whole_files(dest: Path, made: Sample) -> None:
    """Check that whatever has its final name has its final bytes."""
    for path in dest.rglob("*"):
        shown = str(path.relative_to(dest))
        if path.is_file() and ".snapsync-" not in shown:
            entry = made.manifest.find(f"./{shown}")
            assert entry is not None, shown
            assert digest_of(path.read_bytes()) == entry.checksum, shown
