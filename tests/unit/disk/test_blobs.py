from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapd.disk import blobs
from snapd.disk.cache import Cache, open_cache
from snapd.model.errors import ActionFailed
from snapd.model.ids import EMPTY_DIGEST
from snapd.model.objects import ABSENT
from tests.caching import ref_of, staged, store
from tests.ordinary_user import as_ordinary_user, nobodys_directory
from tests.samples import sample


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with open_cache(tmp_path / "cache", now=lambda: 7.0) as opened:
        yield opened


def test_objects_are_found_under_their_very_mode(cache: Cache) -> None:
    here, other, absent = ref_of(b"a"), ref_of(b"a", 0o600), ref_of(b"b")
    store(cache, here, b"a")
    assert cache.blobs.has(here.digest, 0o644)
    assert cache.blobs.present([here, other, absent]) == [True, False, False]
    assert cache.blobs.other_mode([here.digest, absent.digest]) == {here.digest: 0o644}
    assert cache.blobs.path(here.digest, 0o644).parent.name == here.digest[:2]


def test_all_objects_are_walked_and_foreign_names_are_not(cache: Cache) -> None:
    wanted = {(ref_of(bytes([n])).digest, mode) for n in range(20) for mode in (0, 0o4755)}
    for n in range(20):
        for mode in (0, 0o4755):
            store(cache, ref_of(bytes([n]), mode), bytes([n]))
    digest = ref_of(b"x").digest
    shard = cache.root / "blobs" / digest[:2]
    for name in (digest, f"{digest}.09", f"{digest}.644.tmp", f"{digest[::-1]}.644", "x"):
        (shard / name).write_text("foreign")
    assert digest[:2] != digest[::-1][:2]
    assert set(cache.blobs.iterate()) == wanted


@pytest.mark.parametrize("mode", [0, 0o444, 0o755, 0o4755, 0o2644, 0o7777])
def test_only_permission_bits_reach_the_disk(mode: int, cache: Cache) -> None:
    ref = ref_of(b"x", mode)
    store(cache, ref, b"x")
    path = cache.blobs.path(ref.digest, mode)
    assert path.stat().st_mode & 0o7777 == mode & 0o777
    assert path.name.endswith(f".{mode:o}")


def test_a_second_mode_is_derived_from_the_first(cache: Cache) -> None:
    body = os.urandom(100_000)
    ref = ref_of(body, 0o644)
    store(cache, ref, body)
    cache.blobs.derive(ref.digest, from_mode=0o644, to_mode=0o555)
    cache.blobs.derive(ref.digest, from_mode=0o644, to_mode=0o555)
    assert cache.blobs.verify(ref.digest, 0o555)
    first, second = (cache.blobs.path(ref.digest, mode).stat() for mode in (0o644, 0o555))
    assert first.st_ino != second.st_ino
    assert (first.st_mode & 0o777, second.st_mode & 0o777) == (0o644, 0o555)
    assert staged(cache.root) == []


def test_deriving_from_what_is_not_here_names_the_object(cache: Cache) -> None:
    with pytest.raises(ActionFailed, match=EMPTY_DIGEST):
        cache.blobs.derive(EMPTY_DIGEST, from_mode=0o644, to_mode=0o600)


def test_verify_tells_wrong_bytes_and_puts_modes_right(cache: Cache) -> None:
    ref = ref_of(b"abc")
    assert not cache.blobs.verify(ref.digest, 0o644)
    store(cache, ref, b"abc")
    path = cache.blobs.path(ref.digest, 0o644)
    path.chmod(0o666)
    assert cache.blobs.verify(ref.digest, 0o644)
    assert path.stat().st_mode & 0o777 == 0o644
    path.write_bytes(b"abd")
    assert not cache.blobs.verify(ref.digest, 0o644)


def test_a_damaged_object_is_taken_out(cache: Cache) -> None:
    ref = ref_of(b"abc")
    store(cache, ref, b"abc")
    cache.blobs.path(ref.digest, 0o644).write_bytes(b"damaged")
    cache.blobs.quarantine(ref.digest, 0o644)
    cache.blobs.quarantine(ref.digest, 0o644)
    assert not cache.blobs.has(ref.digest, 0o644)
    (kept,) = (path for path in cache.quarantine.path.iterdir() if path.suffix != ".json")
    assert kept.read_bytes() == b"damaged"


def test_an_ordinary_user_manages_modes_that_lock_himself_out() -> None:
    with nobodys_directory() as directory:

        def use() -> None:
            with open_cache(directory / "cache", now=lambda: 7.0) as cache:
                for mode in (0, 0o200, 0o444):
                    ref = ref_of(b"secret", mode)
                    store(cache, ref, b"secret")
                    cache.blobs.derive(ref.digest, from_mode=mode, to_mode=mode | 0o100)
                    for each in (mode, mode | 0o100):
                        assert cache.blobs.verify(ref.digest, each)
                        found = cache.blobs.path(ref.digest, each).stat()
                        assert found.st_mode & 0o777 == each

        as_ordinary_user(use)


@pytest.mark.parametrize("few", [True, False])
def test_a_survey_tells_the_mode_of_what_is_here(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, few: bool
) -> None:
    monkeypatch.setattr(blobs, "CENSUS_OBJECTS", 100 if few else 0)
    store(cache, ref_of(b"here"), b"here")
    store(cache, ref_of(b"odd", 0o123), b"odd")
    manifest = sample({"1": b"here", "2": b"odd", "3": b"absent"}).manifest
    surveyed = cache.blobs.survey(manifest, manifest.objects())
    assert list(surveyed) == [0o644, 0o123, ABSENT]
