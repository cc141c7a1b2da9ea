from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from snapd.disk.cache import Cache, open_cache
from snapd.model.errors import DigestMismatch
from snapd.model.ids import SnapshotId, digest_of
from tests.caching import staged
from tests.samples import sample

ONE = sample({"a/b": b"1"}, modes={"": 0o750})


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with open_cache(tmp_path / "cache", now=lambda: 7.0) as opened:
        yield opened


def test_a_saved_manifest_is_read_back(cache: Cache) -> None:
    assert cache.manifests.load(ONE.id) is None
    assert cache.manifests.root_mode(ONE.id) is None
    for _ in range(2):
        cache.manifests.save(ONE.id, ONE.manifest.text)
    assert cache.manifests.load(ONE.id) == ONE.manifest.text
    assert cache.manifests.root_mode(ONE.id) == 0o750
    assert list(cache.manifests.iterate()) == [ONE.id]
    assert (cache.root / "manifests" / ONE.id).stat().st_mode & 0o777 == 0o644
    assert staged(cache.root) == []
    for _ in range(2):
        cache.manifests.remove(ONE.id)
    assert list(cache.manifests.iterate()) == []


def test_a_text_of_another_id_is_refused(cache: Cache) -> None:
    with pytest.raises(DigestMismatch) as caught:
        cache.manifests.save(ONE.id, b"something")
    assert caught.value.details["actual"] == digest_of(b"something")
    assert list(cache.manifests.iterate()) == []


@pytest.mark.parametrize("damage", [b"", b"F", b"D x y z"])
def test_a_damaged_manifest_counts_as_absent_and_is_kept_for_a_look(
    damage: bytes, cache: Cache
) -> None:
    cache.manifests.save(ONE.id, ONE.manifest.text)
    (cache.root / "manifests" / ONE.id).write_bytes(damage)
    assert cache.manifests.root_mode(ONE.id) is None
    assert cache.manifests.load(ONE.id) is None
    assert list(cache.manifests.iterate()) == []
    (kept,) = (path for path in cache.quarantine.path.iterdir() if path.suffix != ".json")
    assert kept.read_bytes() == damage


def test_foreign_names_are_not_walked(cache: Cache) -> None:
    (cache.root / "manifests" / "x").write_text("")
    assert list(cache.manifests.iterate()) == []
    assert cache.manifests.load(SnapshotId("0" * 64)) is None
