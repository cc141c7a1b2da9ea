from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from snapd.disk.cache import Cache, open_cache
from snapd.disk.proving import prove_tree
from snapd.model.care import ProofProgress
from tests.caching import store_all
from tests.samples import sample

ONE = sample(
    {"a/deep/x": b"1", "a/y": b"2", "a/z": b"2", "b": b"3" * 3_000_000, "suid": b"4"},
    modes={"": 0o555, "a/deep/": 0o500, "suid": 0o4755},
)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with open_cache(tmp_path / "cache", now=lambda: 7.0) as opened:
        store_all(opened, ONE)
        opened.publish(ONE.manifest, store="", now=9.0)
        yield opened


def problems(
    cache: Cache, on_progress: Callable[[ProofProgress], None] = lambda _: None
) -> list[tuple[str, str]]:
    found = prove_tree(cache.trees, ONE.manifest, on_progress)
    return [(each.path, each.kind) for each in found]


def test_a_right_tree_has_no_problems_and_its_progress_ends_at_all_of_it(cache: Cache) -> None:
    seen: list[ProofProgress] = []
    before = len(os.listdir("/proc/self/fd"))
    assert problems(cache, seen.append) == []
    assert seen[-1] == ProofProgress(5, 5, ONE.manifest.total_bytes, ONE.manifest.total_bytes)
    assert len(os.listdir("/proc/self/fd")) == before


def damage_bytes(tree: Path) -> None:
    (tree / "a" / "y").write_bytes(b"X")


def damage_names(tree: Path) -> None:
    (tree / "a" / "deep" / "x").unlink()
    (tree / "a" / "deep" / "other").write_bytes(b"")
    (tree / "new").mkdir()


def damage_modes(tree: Path) -> None:
    (tree / "a" / "deep").chmod(0o700)
    (tree / "b").chmod(0o600)


def damage_types(tree: Path) -> None:
    (tree / "b").unlink()
    (tree / "b").symlink_to("a/y")
    (tree / "a" / "deep" / "x").unlink()
    (tree / "a" / "deep").rmdir()
    (tree / "a" / "deep").write_bytes(b"")


def damage_a_directory(tree: Path) -> None:
    (tree / "a" / "deep").rename(tree / "elsewhere")


@pytest.mark.parametrize(
    ("damage", "wanted"),
    [
        (damage_bytes, [("./a/y", "bytes"), ("./a/z", "bytes")]),
        (
            damage_names,
            [("./a/deep/x", "missing"), ("./a/deep/other", "extra"), ("./new", "extra")],
        ),
        (damage_modes, [("./a/deep/", "mode"), ("./b", "mode")]),
        (damage_types, [("./a/deep/", "type"), ("./a/deep/x", "missing"), ("./b", "type")]),
        (
            damage_a_directory,
            [("./a/deep/", "missing"), ("./a/deep/x", "missing"), ("./elsewhere", "extra")],
        ),
    ],
)
def test_each_kind_of_problem_is_named(
    cache: Cache, damage: Callable[[Path], None], wanted: list[tuple[str, str]]
) -> None:
    damage(cache.trees.path(ONE.id))
    assert problems(cache) == wanted


def test_a_link_in_the_place_of_a_directory_is_not_followed(cache: Cache, tmp_path: Path) -> None:
    tree = cache.trees.path(ONE.id)
    (tree / "a" / "deep").rename(tmp_path / "outside")
    (tree / "a" / "deep").symlink_to(tmp_path / "outside")
    assert problems(cache) == [("./a/deep/", "type"), ("./a/deep/x", "missing")]


def test_it_can_be_stopped_in_the_middle_of_a_file(cache: Cache) -> None:
    def stop(progress: ProofProgress) -> None:
        if progress.files_done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        problems(cache, stop)
