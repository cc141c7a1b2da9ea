"""Damage in the cache as users meet it: found, repaired, told."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from snapctl.client import Client
from tests.e2e.installed import Daemon, Host, files_below, write_files

ONE = {"shared": b"both have this" * 1000, "a/own": b"only the first", "a/b/again": b"both" * 9}
TWO = {"elsewhere": ONE["shared"], "other": b"only the second"}
WAIT_SECONDS = 60.0

QUICK = """
[daemon]
listen = "127.0.0.1:0"
stores = ["*"]
[scrub]
bytes_per_second = "100M"
interval_seconds = 0.2
"""
OFF = QUICK.replace('"100M"', "0")


class Site:
    """A store with two snapshots, and a host that pulls them."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.store_path = host.root / "store"
        self.store = f"file://{self.store_path}"
        self.one = self.push("one", ONE)
        self.two = self.push("two", TWO)

    def push(self, name: str, files: dict[str, bytes]) -> str:
        source = write_files(self.host.root / name, files)
        pushed = self.host.snapctl("push", source, "--store", self.store)
        assert pushed.code == 0, pushed.stderr
        return pushed.stdout.strip()

    def pull(self, snapshot_id: str, *arguments: str) -> Path:
        pulled = self.host.snapctl("pull", "--id", snapshot_id, "--store", self.store, *arguments)
        assert pulled.code == 0, pulled.stderr
        return Path(pulled.stdout.strip())

    def scrub(self) -> dict[str, Any]:
        return Client([str(self.host.socket)])._document("GET", "/v1/scrub")

    def await_scrub(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + WAIT_SECONDS
        while not wanted(found := self.scrub()):
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        return found

    def listed(self) -> set[str]:
        found = self.host.snapctl("cache", "ls", "--json").document["snapshots"]
        return {each["snapshot_id"] for each in found}

    def hide_store(self) -> None:
        self.store_path.rename(self.store_path.with_name("hidden"))

    def show_store(self) -> None:
        self.store_path.with_name("hidden").rename(self.store_path)


@pytest.fixture
def site(host: Host) -> Site:
    return Site(host)


def damage(path: Path) -> None:
    """Write through a hard link as its owner, with another byte in the middle."""
    with path.open("r+b") as file:
        file.seek(7)
        file.write(b"\0")


def metric(daemon: Daemon, name: str) -> float:
    with urllib.request.urlopen(f"http://{daemon.status['listen']}/metrics") as answer:
        text = answer.read().decode()
    (line,) = [line for line in text.splitlines() if line.split(" ")[0] == name]
    return float(line.split(" ")[1])


def messages(daemon: Daemon) -> list[str]:
    return [json.loads(line)["message"] for line in daemon.log_text().splitlines()]


def test_a_write_through_a_tree_is_found_by_the_next_pull_that_shares_the_object(
    site: Site,
) -> None:
    with site.host.daemon(config=OFF) as daemon:
        first = site.pull(site.one)
        damage(first / "shared")
        second = site.pull(site.two)
        assert files_below(second) == TWO
        assert files_below(first) == ONE
        assert metric(daemon, 'snapd_rehashed_objects_total{outcome="damaged"}') == 1
        assert site.listed() == {site.one, site.two}
        kept = [
            each for each in (site.host.cache / "quarantine").iterdir() if each.suffix != ".json"
        ]
        assert [len(each.read_bytes()) for each in kept] == [len(ONE["shared"])]


def test_a_standalone_pull_finds_what_was_written_through_a_tree(site: Site) -> None:
    first = site.pull(site.one, "--standalone")
    damage(first / "shared")
    assert files_below(site.pull(site.two, "--standalone")) == TWO
    assert files_below(first) == ONE


def test_the_scrub_repairs_every_tree_and_says_so(site: Site) -> None:
    with site.host.daemon(config=QUICK) as daemon:
        trees = {site.pull(site.one): ONE, site.pull(site.two): TWO}
        for tree, files in trees.items():
            name = next(name for name, data in files.items() if data == ONE["shared"])
            with (tree / name).open("rb") as reader:
                assert reader.read(1)
        damage(site.pull(site.one) / "shared")
        found = site.await_scrub(lambda scrub: scrub["repaired"] > 0)
        assert (found["damaged"], found["repaired"], found["waiting_for_repair"]) == (1, 1, 0)
        for tree, files in trees.items():
            assert files_below(tree) == files
        assert metric(daemon, "snapd_scrub_errors_total") == 1
        assert metric(daemon, "snapd_repaired_objects_total") == 1
        assert metric(daemon, "snapd_scrub_bytes_total") >= len(ONE["shared"])
        told = [each for each in messages(daemon) if "repaired" in each]
        assert any("in 2 trees" in each for each in told), told


def test_what_cannot_be_repaired_is_not_complete_and_comes_back_with_its_store(
    site: Site,
) -> None:
    with site.host.daemon(config=QUICK):
        first = site.pull(site.one)
        site.hide_store()
        damage(first / "a" / "own")
        site.await_scrub(lambda scrub: scrub["waiting_for_repair"] == 1)
        assert site.listed() == set()
        failed = site.host.snapctl("pull", "--id", site.one, "--store", site.store)
        assert failed.code != 0
    with site.host.daemon(config=OFF):
        assert site.listed() == set()
        site.show_store()
        assert site.pull(site.one) == first
        assert files_below(first) == ONE
        assert site.listed() == {site.one}


def noted_position(site: Site) -> str:
    with closing(sqlite3.connect(site.host.cache / "index.sqlite3")) as index:
        rows = index.execute("SELECT position FROM scrub").fetchall()
    return rows[0][0] if rows else ""


def test_the_scrub_goes_on_where_it_was_after_a_kill(site: Site) -> None:
    slow = QUICK.replace('"100M"', "100000").replace("0.2", "3600")
    many = {f"{n:03}": os.urandom(20_000) for n in range(300)}
    snapshot_id = site.push("many", many)
    with site.host.daemon(config=OFF):
        site.pull(snapshot_id)
    with site.host.daemon(config=slow) as daemon:
        began = site.await_scrub(lambda scrub: scrub["phase"] == "running")["round_began_at"]
        site.await_scrub(lambda _: noted_position(site) > "")
        daemon.kill()
    position = noted_position(site)
    with site.host.daemon(config=slow):
        after = site.await_scrub(lambda scrub: scrub["objects"] > 0)
        assert after["round_began_at"] == began
        assert after["progress"] >= int(position[:8], 16) / 2**32 > 0


def test_a_scrub_that_is_off_reads_nothing(site: Site) -> None:
    with site.host.daemon(config=OFF):
        damage(site.pull(site.one) / "shared")
        found = site.scrub()
        assert (found["phase"], found["objects"]) == ("off", 0)


@pytest.mark.parametrize("standalone", [False, True])
def test_a_deep_verification_proves_and_repairs_a_tree(site: Site, standalone: bool) -> None:
    here = ("--standalone",) if standalone else ()

    def check() -> None:
        tree = site.pull(site.one, *here)
        assert site.host.snapctl("verify", "--deep", site.one, *here).code == 0
        damage(tree / "shared")
        (tree / "a" / "own").unlink()
        proven = site.host.snapctl("verify", "--deep", "--id", site.one, "--json", *here)
        assert (proven.code, proven.document["repaired"]) == (0, 2), proven.stderr
        assert files_below(tree) == ONE
        site.hide_store()
        damage(tree / "a" / "own")
        refused = site.host.snapctl("verify", "--deep", site.one, "--json", *here)
        assert (refused.code, refused.error["code"]) == (12, "tree_differs")
        assert refused.error["details"]["problems"][0]["path"] == "./a/own"
        site.show_store()
        assert site.host.snapctl("verify", "--deep", site.one, *here).code == 0
        (tree / "extra").write_bytes(b"")
        assert site.host.snapctl("verify", "--deep", site.one, *here).code == 12
        (tree / "extra").unlink()
        assert site.host.snapctl("verify", "--deep", site.two, *here).code == 10

    if standalone:
        check()
    else:
        with site.host.daemon(config=OFF):
            check()


@pytest.mark.parametrize("how", ["missing", "torn", "nonsense"])
def test_a_lost_index_loses_nothing_else(site: Site, how: str) -> None:
    with site.host.daemon(config=OFF):
        first = site.pull(site.one)
        assert site.host.snapctl("cache", "pin", site.one).code == 0
    index = site.host.cache / "index.sqlite3"
    for suffix in ("-wal", "-shm"):
        index.with_name(index.name + suffix).unlink(missing_ok=True)
    if how == "missing":
        index.unlink()
    elif how == "torn":
        os.truncate(index, index.stat().st_size // 2 + 100)
    else:
        index.write_bytes(os.urandom(20_000))
    with site.host.daemon(config=OFF) as daemon:
        assert site.listed() == {site.one}
        held = site.host.snapctl("leases", "--json").document["leases"]
        assert [each["kind"] for each in held if each["kind"] == "pin"] == ["pin"]
        shutil.move(site.store_path / ".objects", site.host.root / "objects")
        assert site.pull(site.one) == first
        shutil.move(site.host.root / "objects", site.store_path / ".objects")
        site.pull(site.two)
        assert metric(daemon, 'snapd_rehashed_objects_total{outcome="right"}') == 1
        site.pull(site.two)
        assert metric(daemon, 'snapd_rehashed_objects_total{outcome="right"}') == 1
