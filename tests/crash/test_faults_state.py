"""A damaged index, a clock that jumps, a foreign, a read-only and a full state directory."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from snapd.disk.cache import open_cache
from tests.caching import assert_sound, assert_tree, store_all
from tests.crash.living import starting
from tests.crash.test_cache_full import fill, mounted
from tests.e2e.installed import Host, write_files
from tests.samples import sample

ONE = sample({"a/b": b"1" * 300, "c": b"2"})
TWO = sample({"a/b": b"1" * 300, "other": b"3"})
HOUR = 3600.0
INDEX = "index.sqlite3"


@pytest.fixture
def store(tmp_path: Path) -> str:
    for made in (ONE, TWO):
        write_files(tmp_path / "store", made.keys())
    return f"file://{tmp_path}/store"


@pytest.fixture
def filled(quick_path: Path) -> Path:
    """Give a closed cache with two snapshots."""
    root = quick_path / "cache"
    with open_cache(root, now=lambda: 7.0) as cache:
        for made in (ONE, TWO):
            store_all(cache, made)
            cache.publish(made.manifest, store="file:///s", now=9.0)
    return root


def assert_all_there(root: Path) -> None:
    with open_cache(root, now=lambda: 11.0) as cache:
        assert {view.snapshot_id for view in cache.index.snapshots()} == {ONE.id, TWO.id}
        for made in (ONE, TWO):
            assert cache.complete(made.id) is not None
            assert_tree(cache.publish(made.manifest, store="file:///s", now=12.0), made.manifest)
    assert_sound(root)


def truncate_to(size: int) -> Callable[[Path], None]:
    return lambda index: os.truncate(index, size)


def scribble(index: Path) -> None:
    index.write_bytes(random.Random(1).randbytes(20_000))


def of_a_newer_schema(index: Path) -> None:
    with sqlite3.connect(index) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()


def without_tables(index: Path) -> None:
    with sqlite3.connect(index) as connection:
        for (name,) in list(
            connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ):
            connection.execute(f"DROP TABLE {name}")
    connection.close()


def torn_log(index: Path) -> None:
    index.with_name(f"{INDEX}-wal").write_bytes(os.urandom(5000))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "gone": Path.unlink,
    "empty": truncate_to(0),
    "torn in the header": truncate_to(50),
    "torn after a page": truncate_to(4096),
    "torn within a page": truncate_to(6000),
    "garbage": scribble,
    "newer": of_a_newer_schema,
    "no tables": without_tables,
    "torn log": torn_log,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_index_loses_nothing(filled: Path, name: str) -> None:
    DAMAGES[name](filled / INDEX)
    assert_all_there(filled)
    assert_all_there(filled)


def test_a_byte_of_the_index_that_changed_anywhere_loses_nothing(filled: Path) -> None:
    """SQLite has no checksums: what a flipped byte hides, makes up or breaks must not matter."""
    index, dice = filled / INDEX, random.Random(2)
    whole = index.read_bytes()
    used = [at for at, byte in enumerate(whole) if byte]
    for at in dice.sample(used, 200):
        for left in filled.glob(f"{INDEX}*"):
            left.unlink()
        spoiled = bytearray(whole)
        spoiled[at] ^= 1 << dice.randrange(8)
        index.write_bytes(spoiled)
        assert_all_there(filled)


def test_a_daemon_with_a_damaged_index_answers_from_the_disk(tmp_path: Path, store: str) -> None:
    host = Host(tmp_path / "host")
    with starting(host, "") as living:
        for made in (ONE, TWO):
            assert living.pull(made.id, store).state == "done"
    scribble(host.cache / INDEX)
    shutil.rmtree(tmp_path / "store")
    with starting(host, "") as living:
        assert {view.snapshot_id for view in living.client.snapshots()} == {ONE.id, TWO.id}
        for made in (ONE, TWO):
            view = living.pull(made.id, store)
            assert view.state == "done", view.error
            assert_tree(Path(view.tree), made.manifest)
    assert (host.cache / f"{INDEX}.damaged").exists()


def test_an_index_damaged_while_the_daemon_runs(tmp_path: Path, store: str) -> None:
    host = Host(tmp_path / "host")
    with starting(host, "") as living:
        assert living.pull(ONE.id, store).state == "done"
        for path in host.cache.glob(f"{INDEX}*"):
            with path.open("r+b") as file:
                file.write(os.urandom(path.stat().st_size))
        view = living.pull(TWO.id, store)
        assert view.state in ("done", "failed")
        assert view.error is None or view.error["code"] == "cache_unusable", view.error
        assert_sound(host.cache)
    with starting(host, "") as living:
        for made in (ONE, TWO):
            assert living.pull(made.id, store).state == "done"


def test_a_clock_that_jumps(tmp_path: Path) -> None:
    """What was used while the clock was ahead does not count as the newest for ever."""
    clock = 1_000_000.0
    with open_cache(tmp_path / "cache", now=lambda: clock) as cache:
        for made in (ONE, TWO):
            store_all(cache, made)
            cache.publish(made.manifest, store="file:///s", now=clock)
        cache.publish(ONE.manifest, store="file:///s", now=clock + 1000 * HOUR)
        clock += 10.0
        cache.publish(TWO.manifest, store="file:///s", now=clock)
        cache.publish(ONE.manifest, store="file:///s", now=clock)
        used = {view.snapshot_id: view.used_at for view in cache.index.snapshots()}
    assert used == {ONE.id: clock, TWO.id: clock}


def test_a_newer_layout_is_refused_by_the_daemon_and_the_command(
    tmp_path: Path, filled: Path, store: str
) -> None:
    host = Host(tmp_path / "host", {"SNAPSYNC_CACHE_DIR": str(filled)})
    (filled / "version").write_text("2\n", encoding="ascii")
    before = listing(filled)
    with starting(host, "") as living:
        assert living.wait() == 1
    log = (host.root / "snapd.log").read_text(encoding="utf-8")
    assert "2; this program knows 1" in log
    assert str(filled) in log
    assert "Traceback" not in log
    ran = host.snapctl(
        "pull", "--id", ONE.id, "--store", store, "--standalone", "--cache-dir", filled, "--json"
    )
    assert (ran.code, ran.error["code"]) == (1, "cache_unusable")
    assert "newer" in ran.error["hint"]
    assert listing(filled) == before


def listing(root: Path) -> dict[str, tuple[int, int]]:
    paths = (path for path in root.rglob("*") if path.name != "locks")
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in paths}


READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 99; shift; exec "$@"'


@pytest.mark.parametrize("state", ["new", "filled"])
def test_a_read_only_state_directory(tmp_path: Path, filled: Path, store: str, state: str) -> None:
    host = Host(tmp_path / "host")
    root = filled if state == "filled" else tmp_path / "new"
    root.mkdir(exist_ok=True)
    as_whom = [] if os.geteuid() == 0 else ["--map-root-user"]
    alone = ["unshare", *as_whom, "--mount", "sh", "-c", READ_ONLY, "sh", str(root)]
    words = ("--cache-dir", str(root), "--store", store)
    ran = host.command(*alone, str(host.program("snapd")), "--listen", "127.0.0.1:0", *words)
    assert ran.code == 1, ran.stderr
    assert str(root) in ran.stderr
    assert "Read-only" in ran.stderr
    assert "Traceback" not in ran.stderr
    pull = ("pull", "--id", ONE.id, "--standalone", "--json", *words)
    ran = host.command(*alone, str(host.program("snapctl")), *pull)
    assert (ran.code, ran.error["code"]) == (1, "cache_unusable")
    assert str(root) in ran.error["message"]


def test_a_full_disk_does_not_keep_from_what_is_complete(tmp_path: Path, store: str) -> None:
    """Somebody else fills the disk: complete snapshots are still given out, others are refused."""
    for disk in mounted(tmp_path / "disk", "size=8m"):
        host = Host(tmp_path / "host", {"SNAPSYNC_CACHE_DIR": str(disk / "cache")})
        with starting(host, "[cache]\nmin_free_bytes = 0") as living:
            assert living.pull(ONE.id, store).state == "done"
            ballast = fill(disk)
            for _ in range(3):
                view = living.pull(ONE.id, store)
                assert view.state == "done", view.error
                assert_tree(Path(view.tree), ONE.manifest)
            refused = living.pull(TWO.id, store)
            assert refused.error is not None
            assert refused.error["exit_code"] == 11, refused.error
            ballast.unlink()
            assert living.pull(TWO.id, store).state == "done"
        subprocess.run(["sync", "-f", str(disk)], check=True)
        assert_sound(disk / "cache")
