from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snapd.disk.source import Source, SourceObject, open_source
from snapd.disk.walk import walk
from snapd.model.errors import SourceChanged
from snapd.model.ids import Digest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "r/d").mkdir(parents=True)
    (tmp_path / "r/d/f").write_bytes(b"content")
    (tmp_path / "target").write_bytes(b"linked")
    (tmp_path / "r/link").symlink_to("../target")
    (tmp_path / "r/z").touch()
    return tmp_path / "r"


@pytest.fixture
def source(root: Path) -> Iterator[Source]:
    with open_source(walk(root)) as source:
        yield source


@pytest.fixture
def items(root: Path) -> dict[str, SourceObject]:
    tree = walk(root)
    files = [entry for entry in tree.manifest if entry.kind == "F"]
    return {
        entry.path: SourceObject(entry.checksum, tree.facts.sizes[number], number, entry.path)
        for number, entry in enumerate(files)
    }


def test_unchanged_files_are_read(source: Source, items: dict[str, SourceObject]) -> None:
    source.check_unchanged()
    read = {path: source.read(item) for path, item in items.items()}
    assert read == {"./d/f": b"content", "./link": b"linked", "./z": b""}


def test_file_is_read_in_pieces(source: Source, items: dict[str, SourceObject]) -> None:
    reader = source.reader(items["./d/f"])
    assert (reader.read(3), reader.left_bytes) == (b"con", 4)
    with pytest.raises(SourceChanged):
        reader.check_end()
    assert (reader.read(3), reader.read(3), reader.left_bytes) == (b"ten", b"t", 0)
    reader.check_end()
    reader.close()
    reader.close()


def write_same_size(root: Path) -> None:
    (root / "d/f").write_bytes(b"CONTENT")


def grow(root: Path) -> None:
    (root / "d/f").write_bytes(b"content and more")


def remove(root: Path) -> None:
    (root / "d/f").unlink()


def change_mode(root: Path) -> None:
    (root / "d/f").chmod(0o600)


def replace_by_copy(root: Path) -> None:
    (root / "d/f").rename(root / "aside")
    (root / "d/f").write_bytes(b"content")


def replace_by_directory(root: Path) -> None:
    (root / "d/f").unlink()
    (root / "d/f").mkdir()


def remove_directory(root: Path) -> None:
    (root / "d").rename(root / "gone")


CHANGES = [
    write_same_size,
    grow,
    remove,
    change_mode,
    replace_by_copy,
    replace_by_directory,
    remove_directory,
]


@pytest.mark.parametrize("change", CHANGES)
def test_change_is_noticed_and_named(
    root: Path, source: Source, items: dict[str, SourceObject], change: Callable[[Path], None]
) -> None:
    change(root)
    for check in (source.check_unchanged, lambda: source.read(items["./d/f"])):
        with pytest.raises(SourceChanged) as changed:
            check()
        assert repr(f"{root}/d/f") in changed.value.message


@pytest.mark.parametrize("target", ["d/f", "gone", "../target2"])
def test_link_that_leads_elsewhere_is_noticed(root: Path, source: Source, target: str) -> None:
    os.link(root.parent / "target", root.parent / "target2")
    (root / "link").unlink()
    (root / "link").symlink_to(target)
    with pytest.raises(SourceChanged) as changed:
        source.check_unchanged()
    assert repr(f"{root}/link") in changed.value.message


def test_wrong_content_behind_right_facts_is_noticed(
    source: Source, items: dict[str, SourceObject]
) -> None:
    lie = items["./d/f"]._replace(digest=Digest("0" * 64))
    with pytest.raises(SourceChanged):
        source.read(lie)


def test_no_descriptor_is_left(root: Path, source: Source, items: dict[str, SourceObject]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    source.check_unchanged()
    for item in items.values():
        source.read(item)
    grow(root)
    for check in (source.check_unchanged, lambda: source.read(items["./d/f"])):
        with pytest.raises(SourceChanged):
            check()
    assert len(os.listdir("/proc/self/fd")) == before
