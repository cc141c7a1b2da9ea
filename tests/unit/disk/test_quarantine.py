from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapd.disk.quarantine import Exhibit, Quarantine


@pytest.fixture
def quarantine(tmp_path: Path) -> Iterator[Quarantine]:
    held = Quarantine(tmp_path, max_bytes=2000, now=lambda: 5.0)
    yield held
    held.close()


def keep(quarantine: Quarantine, name: str, body: bytes) -> Path | None:
    def place(kept: str) -> None:
        (quarantine.path / kept).write_bytes(body)

    return quarantine.keep(Exhibit(name * 64, "b" * 64, len(body), "./a/b", "s3://x"), place)


def test_wrong_bytes_are_kept_with_a_note(quarantine: Quarantine) -> None:
    kept = keep(quarantine, "a", b"wrong")
    assert kept is not None
    assert kept.read_bytes() == b"wrong"
    assert kept.name.startswith("a" * 64 + ".")
    assert json.loads(Path(f"{kept}.json").read_text()) == {
        "expected": "a" * 64,
        "actual": "b" * 64,
        "size_bytes": 5,
        "path": "./a/b",
        "source": "s3://x",
        "at": 5.0,
    }


def test_it_is_counted_by_notes(quarantine: Quarantine) -> None:
    assert quarantine.count() == 0
    keep(quarantine, "a", b"wrong")
    keep(quarantine, "b", b"x" * 5000)
    assert quarantine.count() == 2


def test_the_oldest_go_first(quarantine: Quarantine) -> None:
    kept = [keep(quarantine, name, b"x" * 600) for name in "abcd"]
    there = [path is not None and path.exists() for path in kept]
    assert sum(there) < 3
    assert there[-1]
    assert there == sorted(there)
    assert sum(path.stat().st_size for path in quarantine.path.iterdir()) <= 2000
    assert len(list(quarantine.path.glob("*.json"))) == sum(there)


def test_bytes_over_the_bound_are_noted_but_not_kept(quarantine: Quarantine) -> None:
    assert keep(quarantine, "a", b"x" * 2001) is None
    (note,) = quarantine.path.iterdir()
    assert json.loads(note.read_text())["size_bytes"] == 2001


def test_a_full_disk_is_no_second_failure(quarantine: Quarantine) -> None:
    def fail(name: str) -> None:
        (quarantine.path / name).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    assert quarantine.keep(Exhibit("a" * 64, "b" * 64, 5, "", ""), fail) is None
    assert list(quarantine.path.iterdir()) == []
