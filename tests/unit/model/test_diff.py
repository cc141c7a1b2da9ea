from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from snapd.model.diff import diff
from snapd.model.ids import EMPTY_DIGEST, digest_of
from snapd.model.manifest import Manifest
from tests.unit.model.manifests import TREES, entries_of

A, B = digest_of(b"a"), digest_of(b"b")


def manifest_of(*lines: str) -> Manifest:
    """`F 644 a ./f` and `D 755 ./d/`, below a root."""
    rendered = [f"D 755 {EMPTY_DIGEST} 0 ./\n"]
    for line in lines:
        kind, mode, *content, path = line.split(" ")
        checksum = digest_of(content[0].encode()) if content else EMPTY_DIGEST
        rendered.append(f"{kind} {mode} {checksum} 1 {path}\n")
    return Manifest.parse("".join(rendered).encode())


def changes(old: Manifest, new: Manifest, *, include_equal: bool = False) -> list[str]:
    return [f"{c.status} {c.path}" for c in diff(old, new, include_equal=include_equal)]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([], ["F 644 a ./f"], ["A ./f"]),
        (["F 644 a ./f"], [], ["D ./f"]),
        (["F 644 a ./f"], ["F 644 b ./f"], ["M ./f"]),
        (["F 644 a ./f"], ["F 755 a ./f"], ["M ./f"]),
        (["F 644 a ./f"], ["F 644 a ./f"], []),
        (["D 755 ./d/"], ["D 700 ./d/"], ["M ./d/"]),
        (["D 755 ./d/", "F 644 a ./d/f"], ["D 700 ./d/", "F 644 a ./d/f"], ["M ./d/"]),
        (["D 755 ./d/"], ["D 755 x ./d/", "F 644 a ./d/f"], ["A ./d/f"]),
        ([], ["D 755 ./d/"], ["A ./d/"]),
        (["D 755 ./d/"], [], ["D ./d/"]),
        ([], ["D 755 ./d/", "D 755 ./d/e/"], ["A ./d/e/"]),
        ([], ["D 755 ./d/", "F 644 a ./d/f"], ["A ./d/f"]),
        (["F 644 a ./x"], ["D 755 ./x/", "F 644 a ./x/y"], ["D ./x", "A ./x/y"]),
        (["F 644 a ./x"], ["D 755 ./x/"], ["D ./x", "A ./x/"]),
    ],
)
def test_changes(old: list[str], new: list[str], expected: list[str]) -> None:
    assert changes(manifest_of(*old), manifest_of(*new)) == expected


def test_equal_paths_are_reported_when_asked_for() -> None:
    old = manifest_of("D 755 ./d/", "F 644 a ./d/f", "D 755 ./e/", "F 644 a ./g")
    new = manifest_of("D 755 x ./d/", "F 644 a ./d/f", "D 755 ./e/", "F 644 b ./g")
    assert changes(old, new, include_equal=True) == ["= ./d/f", "= ./e/", "M ./g"]


def test_a_change_carries_both_entries() -> None:
    old, new = manifest_of("F 644 a ./f"), manifest_of("F 600 a ./f", "F 600 b ./g")
    modified, added = diff(old, new)
    assert modified == ("M", "./f", old[1], new[1])
    assert added == ("A", "./g", None, new[2])


@given(TREES, TREES)
def test_a_diff_turns_the_old_files_into_the_new_ones(
    old_tree: dict[str, Any], new_tree: dict[str, Any]
) -> None:
    old = Manifest.from_entries(entries_of(old_tree))
    new = Manifest.from_entries(entries_of(new_tree))
    files = {entry.path: entry for entry in old if entry.kind == "F"}
    paths = []
    for status, path, before, after in diff(old, new):
        paths.append(path.encode())
        assert (before is None, after is None) == (status == "A", status == "D")
        files.pop(path, None)
        if after is not None and after.kind == "F":
            files[path] = after
    assert files == {entry.path: entry for entry in new if entry.kind == "F"}
    assert paths == sorted(set(paths))


@given(TREES)
def test_nothing_differs_from_itself(tree: dict[str, Any]) -> None:
    manifest = Manifest.from_entries(entries_of(tree))
    assert list(diff(manifest, manifest)) == []
