from __future__ import annotations

import dataclasses
import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from snapd.disk.index import Index, ScrubState
from snapd.model.errors import CacheUnusable, NoSpace
from snapd.model.ids import SnapshotId
from snapd.model.jobs import SnapshotView

ONE, TWO = SnapshotId("1" * 64), SnapshotId("2" * 64)


def view(snapshot_id: SnapshotId = ONE, used_at: float = 5.0) -> SnapshotView:
    return SnapshotView(
        snapshot_id=snapshot_id,
        store="s3://b/p",
        tree=f"/trees/{snapshot_id}",
        files=3,
        objects=2,
        size_bytes=10,
        completed_at=4.0,
        used_at=used_at,
    )


def open_index(tmp_path: Path) -> Index:
    return Index.open(tmp_path / "index.sqlite3", Path("/trees"))


def test_rows_are_read_back_the_last_used_first(tmp_path: Path) -> None:
    index = open_index(tmp_path)
    assert index.snapshots() == []
    assert index.find(ONE) is None
    index.record_complete(view(ONE, 5.0))
    index.record_complete(view(TWO, 6.0))
    assert index.snapshots() == [view(TWO, 6.0), view(ONE, 5.0)]
    index.touch(ONE, 9.0)
    index.touch(ONE, 8.0)
    assert index.snapshots() == [view(ONE, 9.0), view(TWO, 6.0)]
    index.forget(ONE)
    index.forget(ONE)
    index.close()
    again = open_index(tmp_path)
    assert again.find(TWO) == view(TWO, 6.0)
    assert again.find(ONE) is None
    again.close()


def test_many_threads_and_two_openings_get_along(tmp_path: Path) -> None:
    first, second = open_index(tmp_path), open_index(tmp_path)
    ids = [SnapshotId(f"{n:064x}") for n in range(100)]
    with ThreadPoolExecutor(4) as threads:
        for index in (first, second):
            threads.map(lambda each, index=index: index.record_complete(view(each)), ids)
    assert len(first.snapshots()) == len(second.snapshots()) == 100
    first.close()
    second.close()


def test_a_sum_beyond_what_sqlite_can_hold_is_cut(tmp_path: Path) -> None:
    index = open_index(tmp_path)
    index.record_complete(dataclasses.replace(view(), size_bytes=2**70))
    found = index.find(ONE)
    assert found is not None
    assert found.size_bytes == 2**63 - 1
    index.close()


@pytest.mark.parametrize("damage", ["not a database", "torn", "newer"])
def test_a_damaged_index_is_moved_aside(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite3"
    index = open_index(tmp_path)
    for n in range(500):
        index.record_complete(view(SnapshotId(f"{n:064x}")))
    index.close()
    if damage == "not a database":
        path.write_bytes(b"something else entirely, and long enough to be a page" * 100)
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 20000)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
    again = open_index(tmp_path)
    assert again.snapshots() == []
    again.record_complete(view())
    assert (tmp_path / "index.sqlite3.damaged").exists()
    again.close()


def test_a_place_where_sqlite_cannot_work_is_named(tmp_path: Path) -> None:
    with pytest.raises(CacheUnusable, match=r"absent/index\.sqlite3"):
        Index.open(tmp_path / "absent" / "index.sqlite3", Path("/trees"))


def test_a_full_database_is_no_space(tmp_path: Path) -> None:
    index = open_index(tmp_path)
    index._connection.execute("PRAGMA max_page_count = 4")
    with pytest.raises(NoSpace, match=str(tmp_path)):
        for n in range(1000):
            index.record_complete(view(SnapshotId(f"{n:064x}")))
    index.close()


def test_records_of_blobs_are_read_back_by_key(tmp_path: Path) -> None:
    index = open_index(tmp_path)
    rows = [(key, 1, 2**60, 3, 4, 5) for key in (0, 7, 2**63 - 1, 2**63, 2**64 - 1)]
    index.record_blobs(iter(rows))
    index.record_blobs([])
    assert sorted(index.blobs([row[0] for row in rows] + [9])) == rows
    index.record_blobs([(7, 9, 9, 9, 9, 9)])
    assert index.blobs([7]) == [(7, 9, 9, 9, 9, 9)]
    index.close()


def test_a_batch_that_fails_leaves_nothing_of_itself(tmp_path: Path) -> None:
    index = open_index(tmp_path)
    with pytest.raises(CacheUnusable):
        index.record_blobs([(1, 1, 1, 1, 1, 1), (2, 1, 1, 1, 1, None)])  # type: ignore[list-item]
    assert index.blobs([1, 2]) == []
    index.record_complete(view())
    index.close()


def test_the_state_of_the_scrub_is_kept(tmp_path: Path) -> None:
    index = open_index(tmp_path)
    assert index.scrub_state() == ScrubState("", 0.0, 0.0)
    index.record_scrub(ScrubState("ab", 1.5, 0.0))
    index.record_scrub(ScrubState("cd", 1.5, 2.5))
    index.close()
    again = open_index(tmp_path)
    assert again.scrub_state() == ScrubState("cd", 1.5, 2.5)
    again.close()


def test_an_index_that_is_damaged_while_in_use_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite3"
    index = open_index(tmp_path)
    for n in range(2000):
        index.record_complete(view(SnapshotId(f"{n:064x}")))
    index._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    index._connection.execute("PRAGMA cache_size = 1")
    index._connection.execute("PRAGMA shrink_memory")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    assert index.find(SnapshotId("f" * 64)) is None
    assert index.lost_rows
    index.record_complete(view())
    assert index.snapshots() == [view()]
    assert path.with_name("index.sqlite3.damaged").exists()
    index.close()
