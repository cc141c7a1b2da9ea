from __future__ import annotations

import pytest

from snapd.model import manifest as manifests
from snapd.model.eviction import blob_key
from snapd.model.ids import EMPTY_DIGEST, Digest
from snapd.model.manifest import Entry, Manifest

ROOT = Entry("D", 0o755, EMPTY_DIGEST, 0, "./")
A, B = Digest("a" * 64), Digest("b" * 64)
A_TWIN = Digest("a" * 13 + "0" * 51)
"""Has the number of A, and is another object."""


def listing(*files: tuple[Digest, int, int]) -> Manifest:
    """Make a manifest of files in that order with such digests, modes and sizes."""
    entries = [
        Entry("F", mode, digest, size, f"./{at:03}")
        for at, (digest, mode, size) in enumerate(files)
    ]
    return Manifest.from_entries([ROOT, *entries])


def test_objects_that_differ_are_listed_as_they_stand() -> None:
    objects = listing((B, 0o644, 5), (A, 0o7755, 2**64 - 1)).objects()
    assert list(objects.firsts) == [1, 2]
    assert list(objects.keys()) == [blob_key(B, 0o644), blob_key(A, 0o7755)]
    assert list(objects.sizes) == [5, 2**64 - 1]
    assert list(objects.ordered) == sorted(objects.numbers)
    assert (len(objects), objects.count, objects.size_bytes) == (2, 2, 2**64 + 4)


def test_a_pair_counts_once_and_another_mode_repeats_its_object() -> None:
    objects = listing((A, 0o644, 3), (A, 0o644, 3), (B, 0o600, 1), (A, 0o755, 3)).objects()
    assert list(objects.firsts) == [1, 3, 4]
    assert list(objects.repeats) == [0, 0, 1]
    assert (objects.count, objects.size_bytes) == (2, 4)
    assert len(objects.ordered) == 2


def test_two_objects_of_one_number_are_not_mixed_up() -> None:
    objects = listing((A, 0o644, 3), (A_TWIN, 0o644, 4), (A, 0o644, 3)).objects()
    assert list(objects.firsts) == [1, 2]
    assert list(objects.repeats) == [0, 0]
    assert (objects.count, objects.size_bytes) == (2, 7)


def test_some_of_them_repeat_only_what_is_among_them() -> None:
    objects = listing((A, 0o600, 3), (A, 0o644, 3), (B, 0o600, 1), (A, 0o755, 3)).objects()
    some = objects.only({1: A, 2: B, 3: A})
    assert list(some.firsts) == [2, 3, 4]
    assert list(some.repeats) == [0, 0, 1]
    assert (some.count, some.size_bytes) == (2, 4)
    assert list(objects.only({3: A}).repeats) == [0]


def test_a_long_text_is_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [(Digest(f"{at:064x}"[::-1]), 0o644, at) for at in range(50)]
    whole = listing(*files, *files).objects()
    monkeypatch.setattr(manifests, "_BLOCK_BYTES", 200)
    assert listing(*files, *files).objects() == whole
    assert list(whole.sizes) == list(range(50))


def test_a_snapshot_without_files_has_none() -> None:
    objects = listing().objects()
    assert (len(objects), objects.count, list(objects.ordered)) == (0, 0, [])
