from __future__ import annotations

import time

import pytest

from snapd.disk.tally import PROGRESS_SECONDS, Tally
from snapd.model.checkouts import CheckoutProgress
from tests.samples import sample

MANIFEST = sample({"a": b"12345", "b": b"1234567"}).manifest


def test_all_ways_of_counting_add_up() -> None:
    told: list[CheckoutProgress] = []
    tally = Tally(MANIFEST, told.append)
    tally.bytes_moved(4)
    tally.files_done(2, 8)
    tally.tell(last=True)
    assert told == [CheckoutProgress(2, 2, 12, 12)]


def test_it_is_told_again_only_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    told: list[CheckoutProgress] = []
    tally = Tally(MANIFEST, told.append)
    tally.tell()
    tally.tell()
    assert len(told) == 1
    now[0] += PROGRESS_SECONDS
    tally.tell()
    assert len(told) == 2
    tally.tell(last=True)
    assert len(told) == 3
