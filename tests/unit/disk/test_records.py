from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from snapd.disk import records as records_module
from snapd.disk.index import Index
from snapd.disk.records import Facts, Records, Seen
from snapd.model.eviction import blob_key
from snapd.model.ids import Digest, digest_of
from snapd.model.plan import ObjectRef

DIGEST = Digest("ab" * 32)
SECOND_NS = 1_000_000_000


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    opened = Index.open(tmp_path / "index.sqlite3", tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def records(index: Index) -> Records:
    return Records(index, clock_ns=lambda: 100 * SECOND_NS, now=lambda: 42.5)


def test_a_note_is_found_before_and_after_it_is_written_down(
    records: Records, index: Index, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    found = Facts.of((tmp_path / "file").stat())
    records.note(DIGEST, 0o644, found)
    key = blob_key(DIGEST, 0o644)
    wanted = {key: (*found, 42)}
    assert records.find([key, 7]) == wanted
    assert records.noted([key, 7]) == [wanted[key], None]
    assert index.blobs([key]) == []
    records.flush()
    assert records.noted([key]) == [None]
    assert records.find([key, 7]) == wanted
    again = Records(index, clock_ns=lambda: 0, now=lambda: 0.0)
    assert again.find([key]) == wanted


def test_notes_are_bounded(records: Records, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "_NOTES_MAX", 10)
    for number in range(25):
        records.remember(number, (1, 2, 3, 4, 5))
    assert len(index.blobs(range(25))) == 20
    assert len(records.find(range(25))) == 25


def test_notes_of_what_arrived_wait_for_somebody_who_may_block(
    records: Records, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records_module, "_NOTES_MAX", 3)
    refs = [ObjectRef(digest_of(bytes([number])), 0o644, 1, "x") for number in range(4)]
    keys = [blob_key(ref.digest, ref.mode) for ref in refs]
    assert not records.note_arrived((ref, (1, 2, 3, 4)) for ref in refs[:2])
    assert records.note_arrived((ref, (1, 2, 3, 4)) for ref in refs[2:])
    assert index.blobs(keys) == []
    assert records.noted(keys) == [(1, 2, 3, 4, 42)] * 4


def test_a_note_may_come_while_the_notes_are_written_down(records: Records, index: Index) -> None:
    notes = records._notes

    class Late(tuple[int, ...]):
        """A record during whose writing another thread, which had seen the old notes, adds one."""

        def __iter__(self) -> Iterator[int]:
            notes[99] = (1, 1, 1, 1, 1)
            return super().__iter__()

    records.remember(7, cast("records_module.Record", Late((1, 1, 1, 1, 1))))
    records.remember(8, (1, 1, 1, 1, 1))
    records.flush()
    assert len(index.blobs([7, 8])) == 2


def test_what_is_written_takes_the_place_of_a_note(records: Records) -> None:
    records.remember(7, (1, 1, 1, 1, 1))
    records.write([(7, 2, 2, 2, 2, 2)])
    assert records.noted([7]) == [None]
    assert records.find([7]) == {7: (2, 2, 2, 2, 2)}


def test_a_record_that_cannot_be_written_or_read_is_no_failure(
    records: Records, index: Index, caplog: pytest.LogCaptureFixture
) -> None:
    index.close()
    records.write([(7, 2, 2, 2, 2, 2)])
    assert records.find([7]) == {}
    assert "can't write down what was verified" in caplog.text


def test_facts_that_may_change_unseen_fit_nothing() -> None:
    facts = Facts(1, 2, 3, ctime_ns=50)
    assert facts.if_settled(51) == facts
    assert facts.if_settled(50) == Facts(1, 2, 3, 0) != facts


def test_the_clock_of_files_may_be_coarse(records: Records) -> None:
    assert 100 * SECOND_NS - records.settled_ns() == 10_000_000


def test_stale_rows_go_by_directory(records: Records) -> None:
    keys = [0x00 << 56, 0x00 << 56 | 5, 0x01 << 56, 0xFF << 56 | 0xFFFFFF]
    records.write([(key, 1, 1, 1, 1, at) for key, at in zip(keys, (10, 20, 10, 10), strict=True)])
    records.forget_stale(0, 15.0)
    assert set(records.find(keys)) == set(keys[1:])
    records.forget_stale(255, 15.0)
    assert set(records.find(keys)) == set(keys[1:3])


def test_what_was_seen_is_kept_in_columns() -> None:
    seen = Seen()
    seen.extend([(1, 2, 3, 4, 5), (6, 7, 8, 9, 10)])
    seen.extend([(2**40, 2**60, 2**62, 1, 2**31)])
    assert len(seen) == 3
    assert list(seen.sizes) == [1, 6, 2**40]
    assert list(seen.inodes) == [2, 7, 2**60]
    assert list(seen.mtimes_ns) == [3, 8, 2**62]
    assert list(seen.verified_at) == [5, 10, 2**31]


def test_a_million_records_stay_quick(records: Records) -> None:
    """Not a benchmark: a lookup or a write that looks at every row would take minutes here."""
    rows = [(number << 44 | os.getpid(), 1, number, 1, 1, 1) for number in range(1_000_000)]
    for start in range(0, len(rows), 50_000):
        records.write(rows[start : start + 50_000])
    keys = [row[0] for row in rows[::250]]
    for _ in range(10):
        assert len(records.find(keys)) == len(keys)
        records.write(rows[::250])
