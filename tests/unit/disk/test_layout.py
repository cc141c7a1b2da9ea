from __future__ import annotations

import shutil
import sqlite3
import time
from pathlib import Path

import pytest

from snapd.disk.cache import open_cache
from snapd.disk.layout import LAYOUT_VERSION, bring_up_to_date, read_version, write_version
from snapd.model.errors import CacheUnusable
from tests.caching import assert_tree, store_all
from tests.samples import sample


def test_a_directory_without_a_version_has_none(tmp_path: Path) -> None:
    assert read_version(tmp_path) is None
    assert read_version(tmp_path / "absent") is None
    write_version(tmp_path, 3)
    assert read_version(tmp_path) == 3


@pytest.mark.parametrize("text", ["", "one", "-1", "1.5"])
def test_a_version_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "version").write_text(text)
    with pytest.raises(CacheUnusable, match="which is none"):
        read_version(tmp_path)


def test_an_older_directory_is_led_on_step_by_step(tmp_path: Path) -> None:
    done: list[tuple[str, int | None]] = []
    migrations = {
        1: lambda root: done.append(("one", read_version(root))),
        2: lambda root: done.append(("two", read_version(root))),
    }
    write_version(tmp_path, 1)
    bring_up_to_date(tmp_path, 1, target=3, migrations=migrations)
    assert done == [("one", 1), ("two", 2)]
    assert read_version(tmp_path) == 3
    bring_up_to_date(tmp_path, 3, target=3, migrations=migrations)
    assert len(done) == 2


def test_a_step_that_failed_is_taken_again_and_no_other(tmp_path: Path) -> None:
    done: list[str] = []

    def fail(_root: Path) -> None:
        done.append("failing")
        raise OSError(5, "no luck")

    write_version(tmp_path, 1)
    with pytest.raises(OSError, match="no luck"):
        bring_up_to_date(
            tmp_path, 1, target=3, migrations={1: lambda _root: done.append("one"), 2: fail}
        )
    assert read_version(tmp_path) == 2
    bring_up_to_date(tmp_path, 2, target=3, migrations={2: lambda _root: done.append("two")})
    assert done == ["one", "failing", "two"]
    assert read_version(tmp_path) == 3


def test_a_version_that_nothing_leads_on_from_is_refused(tmp_path: Path) -> None:
    write_version(tmp_path, 1)
    with pytest.raises(CacheUnusable, match="bring up to date"):
        bring_up_to_date(tmp_path, 1, target=2, migrations={})
    assert read_version(tmp_path) == 1


def test_nobody_migrates_what_an_older_process_has_open(tmp_path: Path) -> None:
    with open_cache(tmp_path, now=time.time), pytest.raises(CacheUnusable, match="have it open"):
        bring_up_to_date(
            tmp_path,
            LAYOUT_VERSION,
            target=LAYOUT_VERSION + 1,
            migrations={LAYOUT_VERSION: lambda _root: None},
        )
    bring_up_to_date(
        tmp_path,
        LAYOUT_VERSION,
        target=LAYOUT_VERSION + 1,
        migrations={LAYOUT_VERSION: lambda _root: None},
    )
    with (
        pytest.raises(CacheUnusable, match=f"version {LAYOUT_VERSION + 1}"),
        open_cache(tmp_path, now=time.time),
    ):
        pass


def test_the_directory_of_the_first_release_is_opened_as_it_is(tmp_path: Path) -> None:
    """It had blobs, manifests, trees and one table; all that came later is made or found out."""
    made = sample({"a": b"alpha", "d/b": b"beta" * 1000})
    with open_cache(tmp_path, now=time.time) as cache:
        store_all(cache, made)
        cache.publish(made.manifest, store="memory://store", now=1.0)
    for later in ("receipts", "leases", "repairs", "orders", "quarantine"):
        shutil.rmtree(tmp_path / later)
    connection = sqlite3.connect(tmp_path / "index.sqlite3")
    connection.executescript("DROP TABLE blobs; DROP TABLE scrub;")
    connection.close()
    with open_cache(tmp_path, now=time.time) as cache:
        found = cache.complete(made.id)
        assert found is not None
        assert found.store == "memory://store"
        assert_tree(Path(found.tree), made.manifest)
        assert cache.orders.all() == {}
