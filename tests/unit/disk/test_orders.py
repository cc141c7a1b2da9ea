from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapd.disk.cache import open_cache
from snapd.disk.orders import Orders
from snapd.model.ids import SnapshotId
from snapd.model.jobs import PullRequest

REQUEST = PullRequest(SnapshotId("a" * 64), "s3://bucket/prefix", "prefetch", wait_for_space=True)


@pytest.fixture
def orders(tmp_path: Path) -> Iterator[Orders]:
    with open_cache(tmp_path, now=time.time) as cache:
        yield cache.orders


def test_an_order_is_read_as_it_was_kept(orders: Orders) -> None:
    orders.keep("0123456789ab", REQUEST)
    orders.keep("0123456789ab", REQUEST)
    assert orders.all() == {"0123456789ab": REQUEST}
    orders.forget("0123456789ab")
    orders.forget("0123456789ab")
    assert orders.all() == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"id": "x"}', "[" * 60_000, '{"id": 1e999}'])
def test_what_can_not_be_read_is_dropped_and_told(
    orders: Orders, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    orders.keep("0123456789ab", REQUEST)
    (orders.root / "ba9876543210.json").write_text(text)
    with caplog.at_level(logging.WARNING):
        assert orders.all() == {"0123456789ab": REQUEST}
    assert "ba9876543210.json" in caplog.text
    assert not (orders.root / "ba9876543210.json").exists()


def test_files_of_others_are_left_alone(orders: Orders) -> None:
    for name in ("README", "0123456789ab.json.new", "../x.json".replace("/", "_")):
        (orders.root / name).write_text("not mine")
    assert orders.all() == {}
    assert len(list(orders.root.iterdir())) == 3


def test_a_link_is_not_followed(orders: Orders, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("{}")
    (orders.root / "0123456789ab.json").symlink_to(tmp_path / "elsewhere")
    assert orders.all() == {}
    assert (tmp_path / "elsewhere").exists()
