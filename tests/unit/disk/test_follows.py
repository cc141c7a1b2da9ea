from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapd.disk.cache import Cache, open_cache
from snapd.model.follow_records import FollowRecord
from snapd.model.follows import follow_id_of
from snapd.model.settings import FollowSettings


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with open_cache(tmp_path, now=time.time) as opened:
        yield opened


def record(dest: str) -> FollowRecord:
    return FollowRecord(FollowSettings("iris@production", dest, "s3://a"))


def test_records_are_kept_replaced_and_forgotten(cache: Cache) -> None:
    one, two = record("/srv/one"), record("/srv/two")
    cache.follows.keep(one)
    cache.follows.keep(two)
    later = FollowRecord(one.follow, hook_due=True)
    cache.follows.keep(later)
    assert cache.follows.all() == {"/srv/one": later, "/srv/two": two}
    cache.follows.forget("/srv/one")
    cache.follows.forget("/srv/one")
    assert cache.follows.all() == {"/srv/two": two}


def test_what_can_not_be_read_is_put_aside(cache: Cache) -> None:
    cache.follows.keep(record("/srv/one"))
    root = cache.follows.root
    name = f"{follow_id_of('/srv/one')}.json"
    (root / f"{'0' * 12}.json").write_bytes((root / name).read_bytes())
    (root / f"{'1' * 12}.json").write_text("[" * 10_000)
    (root / f"{'2' * 12}.json").symlink_to("/etc/passwd")
    (root / "else").write_text("{}")
    assert list(cache.follows.all()) == ["/srv/one"]
    assert sorted(path.name for path in root.iterdir()) == sorted(
        [name, "else", *(f"{str(n) * 12}.json.damaged" for n in range(3))]
    )
