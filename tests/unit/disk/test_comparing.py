"""What a dry run says of each entry."""

from __future__ import annotations

import os
from pathlib import Path

from snapd.disk.comparing import Comparison
from snapd.disk.destination import look_at_destination
from snapd.disk.tree_source import open_tree
from snapd.model.checkouts import CheckoutOptions
from tests.trees import Files, make_tree

FILES: Files = {
    "closed/": (0o700, b""),
    "dir/in": (0o644, b"in"),
    "file": (0o644, b"file"),
    "linked": (0o644, b"linked"),
    "su": (0o4755, b"su"),
}


def statuses(tree: Path, dest: Path, options: CheckoutOptions) -> dict[str, str]:
    manifest = make_tree(tree, FILES)
    with open_tree(tree) as source, look_at_destination(dest) as target:
        compare = Comparison(source, target, options)
        return {entry.path: compare.status(entry) for entry in manifest}


def test_nothing_there(tmp_path: Path) -> None:
    found = statuses(tmp_path / "tree", tmp_path / "none", CheckoutOptions())

    assert set(found.values()) == {"A"}


def test_everything_in_another_way(tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    (dest / "closed").mkdir(parents=True)
    (dest / "dir").symlink_to("closed")
    (dest / "file").mkdir()
    (dest / "linked").symlink_to("file")
    os.mkfifo(dest / "su")

    found = statuses(tmp_path / "tree", dest, CheckoutOptions())

    assert found == {
        "./": "",
        "./closed/": "M",
        "./dir/": "M",
        "./dir/in": "A",
        "./file": "M",
        "./linked": "M",
        "./su": "M",
    }


def test_a_hard_linked_checkout_compares_inodes(tmp_path: Path) -> None:
    dest, tree = tmp_path / "dest", tmp_path / "tree"
    manifest = make_tree(tree, FILES)
    (dest / "dir").mkdir(parents=True)
    (dest / "closed").mkdir()
    (dest / "dir" / "in").write_bytes(b"in")
    (dest / "linked").hardlink_to(tree / "linked")
    with open_tree(tree) as source, look_at_destination(dest) as target:
        compare = Comparison(source, target, CheckoutOptions(mode="hardlink"))
        found = {entry.path: compare.status(entry) for entry in manifest}

    assert (found["./linked"], found["./dir/in"], found["./file"]) == ("", "M", "A")
