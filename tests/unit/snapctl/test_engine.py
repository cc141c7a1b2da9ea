from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snapd.disk.cache import open_cache
from tests.samples import Sample, sample
from tests.unit.snapctl.running import IN_BACKGROUND, environment_of, snapctl


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Sample, str]:
    """A snapshot and the URI of the directory store that holds it."""
    made = sample({"a": b"hello", "d/b": b"x" * 100_000, "d/same": b"hello"})
    root = tmp_path / "store"
    for key, data in made.keys().items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(data)
    return made, f"file://{root}"


def test_a_cold_pull_and_a_warm_one(tmp_path: Path, stored: tuple[Sample, str]) -> None:
    made, store = stored
    words = ["pull", "--id", made.id, "--store", store, "--standalone"]
    cold = json.loads(snapctl(*words, "--json", home=tmp_path).stdout)
    assert (cold["objects_total"], cold["objects_fetched"]) == (2, 2)
    assert cold["tree"] == str(tmp_path / "cache" / "snapsync" / "trees" / made.id)
    assert (Path(cold["tree"]) / "d" / "same").read_bytes() == b"hello"
    warm = snapctl(*words, home=tmp_path)
    assert warm.stdout == f"{cold['tree']}\n"
    assert "fetched 0 B (0 objects)" in warm.stderr


def test_auto_says_that_it_works_alone(tmp_path: Path, stored: tuple[Sample, str]) -> None:
    made, store = stored
    extra = {"SNAPSYNC_STANDALONE": "auto", "SNAPSYNC_SOCKET": str(tmp_path / "absent")}
    extra["SNAPSYNC_CACHE_DIR"] = str(tmp_path / "elsewhere")
    ran = snapctl("pull", "--id", made.id, "--store", store, home=tmp_path, extra=extra)
    assert ran.stdout == f"{tmp_path / 'elsewhere' / 'trees' / made.id}\n"
    assert "pulling in this process" in ran.stderr


def test_events_of_a_standalone_pull(tmp_path: Path, stored: tuple[Sample, str]) -> None:
    made, store = stored
    words = ["pull", "--id", made.id, "--store", store, "--standalone", "--events"]
    ran = snapctl(*words, home=tmp_path)
    views = [json.loads(line) for line in ran.stdout.splitlines()]
    assert views[-1]["state"] == "done"
    assert views[-1]["tree"].endswith(made.id)
    assert ran.stderr == ""


@pytest.mark.parametrize(
    ("damage", "code"),
    [("manifest", 10), ("object", 12), ("bytes", 12), ("store", 13)],
)
def test_exit_codes(tmp_path: Path, stored: tuple[Sample, str], damage: str, code: int) -> None:
    made, store = stored
    root = Path(store.removeprefix("file://"))
    keys = {
        kind: next(key for key in sorted(made.keys()) if key.startswith(f".{kind}"))
        for kind in ("manifests", "objects")
    }
    if damage == "manifest":
        (root / keys["manifests"]).unlink()
    elif damage == "object":
        (root / keys["objects"]).unlink()
    elif damage == "bytes":
        (root / keys["objects"]).write_bytes(b"other")
    else:
        store += "-absent"
    words = ["pull", "--id", made.id, "--store", store, "--standalone", "--json"]
    ran = snapctl(*words, "dest", home=tmp_path)
    assert ran.returncode == code
    assert ran.stdout == ""
    assert json.loads(ran.stderr.splitlines()[-1])["exit_code"] == code
    assert not (tmp_path / "dest").exists()
    assert not list((tmp_path / "cache" / "snapsync" / "trees").iterdir())


@contextmanager
def held(cache: Path, made: Sample) -> Iterator[None]:
    """Keep every other process from pulling the snapshot into the cache."""
    with open_cache(cache, now=time.time) as opened:
        lock = opened.snapshot_lock(made.id)
        assert lock.try_acquire()
        try:
            yield
        finally:
            lock.release()


def test_the_timeout_of_a_standalone_pull(tmp_path: Path, stored: tuple[Sample, str]) -> None:
    made, store = stored
    words = ["pull", "--id", made.id, "--store", store, "--standalone", "--timeout", "300ms"]
    with held(tmp_path / "cache" / "snapsync", made):
        ran = snapctl(*words, home=tmp_path)
    assert ran.returncode == 16
    assert "--timeout" in ran.stderr
    assert snapctl(*words[:-2], home=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("number", "in_background"),
    [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)],
)
def test_a_signal_ends_a_standalone_pull(
    tmp_path: Path, stored: tuple[Sample, str], number: signal.Signals, in_background: bool
) -> None:
    made, store = stored
    cache = tmp_path / "cache" / "snapsync"
    words = ["pull", "--id", made.id, "--store", store, "--standalone"]
    with (
        held(cache, made),
        subprocess.Popen(
            [*(IN_BACKGROUND if in_background else ()), sys.executable, "-m", "snapctl", *words],
            env=environment_of(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stderr is not None
        assert "queued" in process.stderr.readline()
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert len(list((cache / "staging").iterdir())) == 1, "only the test's own is left"
    assert process.returncode == 130
    assert out == ""
    assert "stays in the cache" in err
    assert "Traceback" not in err
