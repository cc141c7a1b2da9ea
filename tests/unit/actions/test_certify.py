"""A snapshot is whole or not: by listing and by asking, the same answer."""

from __future__ import annotations

from collections import Counter

import pytest

from snapd.actions import certify, presence
from snapd.actions.certify import certify_snapshot
from snapd.actions.verify import PROBLEMS_SHOWN_MAX, VerifyProgress
from snapd.model.errors import (
    DigestMismatch,
    ManifestRefused,
    ObjectMissing,
    SnapshotNotFound,
    StoreFailing,
)
from snapd.model.ids import SnapshotId, digest_of
from snapd.model.layout import manifest_key, object_key
from snapd.remote.base import Operation
from snapd.remote.memory import Fault, MemoryStore
from tests.samples import Sample, sample

FILES = {f"d{number % 7}/{number:04}": b"%d" % number for number in range(300)}


@pytest.fixture
def made() -> Sample:
    return sample(FILES)


@pytest.fixture
def store(made: Sample) -> MemoryStore:
    store = MemoryStore()
    store.objects.update(made.keys())
    # What other snapshots brought, before, between and behind.
    for number in range(200):
        data = b"other %d" % number
        store.objects[object_key(digest_of(data))] = data
    return store


@pytest.fixture(params=["asked", "listed", "listed in part"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Look in each of the ways that there are for large and small snapshots."""
    limit = {"asked": 0, "listed": 10_000, "listed in part": 123}[request.param]
    monkeypatch.setattr(certify, "listed_keys_max", lambda _: limit)
    monkeypatch.setattr(certify, "_LOOKS_AT_ONCE", 50)
    return str(request.param)


def quiet(_: VerifyProgress) -> None:
    pass


async def test_a_whole_snapshot_is_told_as_such(way: str, store: MemoryStore, made: Sample) -> None:
    seen: list[VerifyProgress] = []
    report = await certify_snapshot(store, made.id, seen.append)
    assert (report.files, report.size_bytes) == (300, sum(map(len, FILES.values())))
    assert report.snapshot_id == made.id
    assert seen[-1] == VerifyProgress(300, 300)
    assert [one.files_done for one in seen] == sorted(one.files_done for one in seen)


@pytest.mark.parametrize("lost", [1, 150, 300])
async def test_what_is_missing_is_counted_and_the_first_is_named(
    way: str, store: MemoryStore, made: Sample, lost: int
) -> None:
    paths = sorted(FILES)[-lost:]
    for path in paths:
        del store.objects[object_key(digest_of(FILES[path]))]
    with pytest.raises(ObjectMissing, match=f"lacks {lost} of 300") as missing:
        await certify_snapshot(store, made.id, quiet)
    details = missing.value.details
    assert details["problems_total"] == lost
    assert len(details["problems"]) == min(lost, PROBLEMS_SHOWN_MAX)
    assert {each["path"].removeprefix("./") for each in details["problems"]} <= set(paths)
    if lost == 1:
        assert details["path"] == f"./{paths[0]}"


async def test_an_object_of_another_size_is_read_before_it_is_called_damaged(
    way: str, store: MemoryStore, made: Sample
) -> None:
    digest = digest_of(FILES["d0/0007"])
    store.objects[object_key(digest)] = b"something else"
    with pytest.raises(DigestMismatch, match=digest):
        await certify_snapshot(store, made.id, quiet)


async def test_a_size_in_the_manifest_is_only_a_hint(way: str) -> None:
    """The reference tool writes the length of the link for what a link leads to."""
    made = sample({"a": b"0123456789", "b": b"b"})
    text = made.manifest.text.replace(b" 10 ./a\n", b" 3 ./a\n").replace(b" 11 ./\n", b" 4 ./\n")
    assert text != made.manifest.text
    snapshot_id = SnapshotId(digest_of(text))
    store = MemoryStore()
    store.objects.update(made.keys())
    store.objects[manifest_key(snapshot_id)] = text
    assert (await certify_snapshot(store, snapshot_id, quiet)).files == 2


async def test_a_manifest_that_is_not_there_or_not_intact(store: MemoryStore, made: Sample) -> None:
    with pytest.raises(SnapshotNotFound):
        await certify_snapshot(store, SnapshotId("ab" * 32), quiet)
    store.objects[manifest_key(made.id)] += b"x"
    with pytest.raises((DigestMismatch, ManifestRefused)):
        await certify_snapshot(store, made.id, quiet)


async def test_a_store_that_fails_is_not_a_snapshot_that_is_not_whole(
    way: str, store: MemoryStore, made: Sample
) -> None:
    failing = StoreFailing("it burns")
    operations: tuple[Operation, ...] = ("head", "list")
    for operation in operations:
        store.faults.add(Fault(operation, error=failing))
    with pytest.raises(StoreFailing, match="burns"):
        await certify_snapshot(store, made.id, quiet)


def test_a_large_snapshot_is_listed_and_a_small_one_asked_for() -> None:
    limits = Counter(presence.listed_keys_max(objects) > 0 for objects in (1, 100, 5000))
    assert limits == {False: 2, True: 1}
