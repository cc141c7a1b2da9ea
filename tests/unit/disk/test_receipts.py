from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from snapd.disk.cache import Cache, MakeReceipt, open_cache
from snapd.disk.receipts import read_receipt
from snapd.model.errors import AccessDenied, SnapsyncError
from snapd.model.receipts import Receipt, Share, Span
from tests.caching import staged, store_all
from tests.samples import sample

ONE = sample({"a/b": b"1"})
TWO = sample({"a": b"2"})
RECEIPT = Receipt(
    snapshot_id=ONE.id,
    store="memory://store",
    pulled_at=5.0,
    version="1",
    host="node",
    files=1,
    directories=2,
    size_bytes=1,
    verified=Share(1, 1),
    cached=Share(0, 0),
    cached_when=Span(None, None, 0),
)


def given(receipt: Receipt) -> MakeReceipt:
    return lambda _wanted, _verified_at: receipt


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with open_cache(tmp_path / "cache", now=lambda: 7.0) as opened:
        yield opened


def test_a_saved_receipt_is_read_back_and_replaced(cache: Cache) -> None:
    assert cache.receipts.load(ONE.id) is None
    assert not cache.receipts.has(ONE.id)
    cache.receipts.save(replace(RECEIPT, host="earlier"))
    cache.receipts.save(RECEIPT)
    assert cache.receipts.has(ONE.id)
    assert cache.receipts.load(ONE.id) == RECEIPT
    assert read_receipt(cache.root, ONE.id) == RECEIPT
    path = cache.root / "receipts" / f"{ONE.id}.json"
    assert path.stat().st_mode & 0o777 == 0o644
    assert staged(cache.root) == []
    for _ in range(2):
        cache.receipts.remove(ONE.id)
    assert not path.exists()


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff", b"[1]"])
def test_a_damaged_receipt_or_one_of_another_snapshot_is_none(damage: bytes, cache: Cache) -> None:
    path = cache.root / "receipts" / f"{ONE.id}.json"
    path.write_bytes(damage)
    assert cache.receipts.load(ONE.id) is None
    cache.receipts.save(replace(RECEIPT, snapshot_id=TWO.id))
    path.write_bytes((cache.root / "receipts" / f"{TWO.id}.json").read_bytes())
    assert cache.receipts.load(ONE.id) is None


def test_a_receipt_appears_with_its_tree_and_goes_without_it(tmp_path: Path) -> None:
    with open_cache(tmp_path / "c", now=lambda: 7.0) as cache:
        store_all(cache, ONE)
        cache.publish(ONE.manifest, store="memory://store", now=5.0, receipt=given(RECEIPT))
        cache.publish(
            ONE.manifest, store="x", now=6.0, receipt=given(replace(RECEIPT, host="later"))
        )
        cache.receipts.save(replace(RECEIPT, snapshot_id=TWO.id))
        (cache.root / "receipts" / "README").write_text("not a receipt")
        assert cache.receipts.load(ONE.id) == RECEIPT
        assert set(cache.receipts.iterate()) == {ONE.id, TWO.id}
    with open_cache(tmp_path / "c", now=lambda: 7.0) as cache:
        assert list(cache.receipts.iterate()) == [ONE.id]
        assert (cache.root / "receipts" / "README").exists()


def test_no_receipt_of_a_snapshot_that_can_not_be_published(cache: Cache) -> None:
    with pytest.raises(SnapsyncError):
        cache.publish(ONE.manifest, store="x", now=5.0, receipt=given(RECEIPT))
    assert list(cache.receipts.iterate()) == []


def test_a_receipt_that_can_not_be_written_leaves_nothing_behind(cache: Cache) -> None:
    blocked = cache.root / "receipts" / f"{ONE.id}.json"
    blocked.mkdir()
    with pytest.raises(SnapsyncError) as caught:
        cache.receipts.save(RECEIPT)
    assert not isinstance(caught.value, AccessDenied)
    assert ONE.id in caught.value.message
    assert staged(cache.root) == []
