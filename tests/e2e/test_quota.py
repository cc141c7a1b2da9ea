"""A cache with a quota: admission, eviction, sweeps and their reasons, on an installed daemon."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.installed import Host, files_below
from tests.samples import Sample, sample

KIB = 1024
SHARED = os.urandom(200 * KIB)


def made(name: str, *, kib: int = 400, shared: bool = False) -> Sample:
    files = {f"{name}/{number}": os.urandom(100 * KIB) for number in range(kib // 100)}
    return sample({**files, **({"shared": SHARED} if shared else {})})


Put = Callable[[Sample], str]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    root = tmp_path / "store"

    def write(snapshot: Sample) -> str:
        for key, data in snapshot.keys().items():
            (root / key).parent.mkdir(parents=True, exist_ok=True)
            (root / key).write_bytes(data)
        return f"file://{root}"

    return write


def config(tmp_path: Path, **cache: object) -> str:
    settings = {"max_bytes": '"2M"', "min_free_bytes": 0, "lease_seconds": 0, **cache}
    lines = [f"{key} = {value}" for key, value in settings.items()]
    stores = f'[daemon]\nlisten = "127.0.0.1:0"\nstores = ["file://{tmp_path / "store"}"]\n'
    return "\n".join([stores, "[cache]", "high_watermark = 1.0", *lines])


def pull(host: Host, snapshot: Sample, store: str, *more: str) -> tuple[int, str]:
    ran = host.snapctl("pull", "--id", snapshot.id, "--store", store, "--quiet", *more)
    return ran.code, ran.stderr


def listed(host: Host) -> set[str]:
    found = host.snapctl("cache", "ls", "--json").document["snapshots"]
    return {each["snapshot_id"] for each in found}


def used_by(host: Host) -> int:
    """Count objects, trees and manifests in blocks, as `du` does."""
    found: dict[int, int] = {}
    for name in ("blobs", "trees", "manifests", "quarantine"):
        for path in (host.cache / name).rglob("*"):
            if not (name == "blobs" and path.is_dir()):
                found[path.lstat().st_ino] = path.lstat().st_blocks * 512
    return sum(found.values())


def test_a_full_cache_evicts_exactly_enough(host: Host, put: Put, tmp_path: Path) -> None:
    old, middle, new, large = (made(n) for n in ("old", "middle", "new", "large"))
    with host.daemon(config=config(tmp_path, max_bytes='"1600K"')):
        for each in (old, middle, new):
            assert pull(host, each, put(each)) == (0, "")
        assert listed(host) == {old.id, middle.id, new.id}
        words = ("plan", "--id", large.id, "--store", put(large))
        foreseen = host.snapctl(*words, "--json").document
        assert foreseen["bytes_to_fetch"] == 400 * KIB
        assert foreseen["fits"] is True
        assert [each["snapshot_id"] for each in foreseen["evict"]] == [old.id]
        assert "used longest ago" in host.snapctl(*words).stdout
        assert listed(host) == {old.id, middle.id, new.id}
        assert pull(host, large, put(large)) == (0, "")
        assert listed(host) == {middle.id, new.id, large.id}
        assert used_by(host) <= 1600 * KIB
        tree = host.cache / "trees" / large.id
        assert files_below(tree) == {
            entry.path[2:]: large.objects[entry.checksum]
            for entry in large.manifest
            if entry.kind == "F"
        }
        again = host.snapctl(*words, "--json").document
        assert (again["complete"], again["bytes_to_fetch"]) == (True, 0)


def test_a_refusal_names_what_holds_the_space(host: Host, put: Put, tmp_path: Path) -> None:
    kept, wanted, huge = made("kept", kib=1500), made("wanted", kib=900), made("huge", kib=3000)
    with host.daemon(config=config(tmp_path)):
        assert pull(host, kept, put(kept)) == (0, "")
        assert host.snapctl("cache", "pin", kept.id, "--reason", "release 3").code == 0
        ran = host.snapctl("pull", "--id", wanted.id, "--store", put(wanted), "--json")
        assert ran.code == 11
        error = ran.error
        assert error["code"] == "cache_full"
        details = error["details"]
        assert details["required_bytes"] >= 900 * KIB
        assert 0 < details["available_bytes"] < 900 * KIB
        (holder,) = details["holders"]
        assert holder["snapshot_id"] == kept.id
        assert "release 3" in holder["leases"][0]
        assert "release 3" in error["message"]
        plan = host.snapctl("plan", "--id", wanted.id, "--store", put(wanted))
        assert plan.code == 11
        assert "release 3" in plan.stdout
        assert not (host.cache / "trees" / wanted.id).exists()
        assert not any((host.cache / "blobs").glob(f"*/{next(iter(wanted.objects))}*"))
        hopeless = pull(host, huge, put(huge), "--wait-for-space", "--timeout", "30s")
        assert hopeless[0] == 11
        waiting = host.start(
            *("snapctl", "pull", "--id", wanted.id, "--store", put(wanted)),
            *("--wait-for-space", "--events"),
        )
        assert waiting.stdout is not None
        for line in waiting.stdout:
            if '"waiting_for_space"' in line:
                break
        status = host.snapctl("status", "--json").document
        assert (status["jobs_running"], status["reserved_bytes"]) == (0, 0)
        leases = host.snapctl("leases", "--json").document["leases"]
        assert host.snapctl("cache", "unpin", kept.id).code == 0, leases
        assert host.snapctl("cache", "evict", kept.id).code == 0
        out, err = waiting.communicate(timeout=60)
        assert waiting.returncode == 0, out + err
        assert listed(host) == {wanted.id}


def test_a_sweep_says_why_and_spares_what_is_shared(host: Host, put: Put, tmp_path: Path) -> None:
    first, second, third = made("a", shared=True), made("b", shared=True), made("c")
    dest = tmp_path / "linked"
    with host.daemon(config=config(tmp_path)):
        for each in (first, second, third):
            assert pull(host, each, put(each)) == (0, "")
        linked = host.snapctl("checkout", "--id", third.id, str(dest), "--mode", "hardlink")
        assert linked.code == 0, linked.stderr
        before = used_by(host)
        words = ("cache", "gc", "--free", "500K", "--why", "--json")
        dry = host.snapctl(*words, "--dryrun").document
        assert used_by(host) == before
        done = host.snapctl(*words).document
        assert done["evicted"] == dry["evicted"]
        assert [each["snapshot_id"] for each in done["evicted"]] == [first.id, second.id]
        assert done["freed_bytes"] == before - used_by(host)
        (kept,) = done["kept"]
        assert kept["snapshot_id"] == third.id
        more = host.snapctl("cache", "gc", "--free", "500K", "--why")
        assert more.code == 3
        assert "would free nothing" in more.stdout
        assert listed(host) == {third.id}
        assert pull(host, first, put(first)) == (0, "")
        assert pull(host, second, put(second)) == (0, "")
        one = host.snapctl("cache", "evict", first.id, "--json").document
        assert 400 * KIB <= one["freed_bytes"] < 500 * KIB
        tree = host.cache / "trees" / second.id
        assert (tree / "shared").read_bytes() == SHARED
        metrics_at = host.snapctl("status", "--json").document["listen"]
        metrics = scrape(metrics_at)
        assert 'snapd_evictions_total{cause="request"} 3.0' in metrics
        assert "snapd_cache_bytes_limit 2.097152e+06" in metrics


def scrape(address: str) -> str:
    from urllib.request import urlopen

    with urlopen(f"http://{address}/metrics") as response:
        return str(response.read(), "utf-8")


def test_a_path_given_out_lately_is_not_taken_away(host: Host, put: Put, tmp_path: Path) -> None:
    one = made("one")
    with host.daemon(config=config(tmp_path, lease_seconds='"1h"')):
        assert pull(host, one, put(one)) == (0, "")
        refused = host.snapctl("cache", "evict", one.id, "--json")
        assert (refused.code, refused.error["code"]) == (1, "snapshot_in_use")
        assert "given out" in refused.error["message"]
        assert host.snapctl("cache", "gc", "--free", "1M").code == 3
        assert listed(host) == {one.id}
        assert host.snapctl("cache", "evict", one.id, "--given-out-too").code == 0
        assert listed(host) == set()
        gone = host.snapctl("cache", "evict", one.id, "--json")
        assert gone.error["code"] == "no_such_snapshot"
    assert not list((host.cache / "blobs").glob("*/*"))


def test_above_the_high_watermark_it_is_swept_down_to_the_low_one(
    host: Host, put: Put, tmp_path: Path
) -> None:
    snapshots = [made(str(number)) for number in range(4)]
    watermarks = {"high_watermark": 0.7, "low_watermark": 0.5}
    text = config(tmp_path).replace("high_watermark = 1.0\n", "")
    text += "".join(f"\n{key} = {value}" for key, value in watermarks.items())
    with host.daemon(config=text) as daemon:
        for each in snapshots:
            assert pull(host, each, put(each)) == (0, "")
        wait_for(daemon.log, "swept the cache")
        assert snapshots[-1].id in listed(host)
        assert snapshots[0].id not in listed(host)
        assert used_by(host) <= 0.5 * 2048 * KIB


def wait_for(log: Path, text: str) -> None:
    import time

    deadline = time.monotonic() + 60
    while text not in log.read_text(encoding="utf-8"):
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.05)


def test_a_standalone_pull_keeps_to_the_quota_too(host: Host, put: Put, tmp_path: Path) -> None:
    first, second = made("first", kib=1200), made("second", kib=1200)
    path = tmp_path / "config.toml"
    path.write_text(config(tmp_path))
    more = ("--standalone", "--config", str(path))
    assert pull(host, first, put(first), *more) == (0, "")
    assert pull(host, second, put(second), *more) == (0, "")
    trees = [each.name for each in (host.cache / "trees").iterdir()]
    assert trees == [second.id]
    assert used_by(host) <= 2048 * KIB
