"""IDs of random trees are the real tool's, which runs in a process of its own."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from snapd.disk.walk import WalkOptions, walk
from snapd.model.exclude import Excludes

REFERENCE = """
import asyncio, json, os, sys
import snapdir

async def main():
    told = []
    for path, options in json.load(sys.stdin):
        manifest = await snapdir.manifest(path, **options)
        told.append([snapdir.id_from_manifest(manifest), manifest.raw])
    json.dump(told, sys.stdout)
    sys.stdout.flush()

asyncio.run(main())
# The binding can crash while the interpreter ends, after the answer.
os._exit(0)
"""

NAMES = (
    *(
        "a",
        "a b",
        " a",
        "a ",
        "a-b",
        "a.b",
        "a0",
        "A",
        "#x",
        "-rf",
        "..x",
        "\u00fc",
        "u\u0308",
        "e\u0301",
    ),
    *(
        "\u2028",
        "\x85",
        "\x0b",
        "\x1c",
        "tab\tname",
        "\\",
        '"',
        "'",
        "%41",
        "😀",
        "\uffee",
        "x" * 255,
    ),
    *("cr\rinside", "*", "~", "$HOME", "\ufeffbom", ".hidden", "\x7f", "  "),
)
FILE_MODES = (0o644, 0o600, 0o755, 0o444, 0o4755, 0o2755, 0o1644, 0o7777, 0o400)
DIRECTORY_MODES = (0o755, 0o700, 0o555, 0o1777, 0o2755)
SIZES = (0, 1, 63, 64, 1024, 1025, 65_536, 262_145, 1_100_000)


def hash_in_workers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the worker processes after the first batch, however little there is to do."""
    monkeypatch.setattr("snapd.disk.tree_hash._INLINE_SECONDS", 0)
    monkeypatch.setattr("snapd.disk.tree_hash.WORKERS_FROM_SECONDS", 0)


def reference(asked: Sequence[tuple[Path, dict[str, object]]]) -> list[tuple[str, str]]:
    run = subprocess.run(
        [sys.executable, "-c", REFERENCE],
        input=json.dumps([[str(path), options] for path, options in asked]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout, run.stderr
    return [(snapshot_id, text) for snapshot_id, text in json.loads(run.stdout)]


class RandomTree:
    """A tree with odd names, modes, duplicates and links that do not form cycles."""

    def __init__(self, root: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.contents = [self.random.randbytes(size) for size in SIZES]
        self.files: list[Path] = []
        self.finished: list[Path] = []
        self.fill(root, 3)

    def fill(self, directory: Path, depth: int) -> None:
        directory.mkdir()
        names = self.random.sample(NAMES, self.random.randint(0, 12))
        for name in names:
            path = directory / name
            kind = self.random.random()
            if kind < 0.25 and depth:
                self.fill(path, depth - 1)
            elif kind < 0.45:
                self.link(path)
            elif kind < 0.48:
                os.mkfifo(path)
            else:
                path.write_bytes(self.random.choice(self.contents))
                path.chmod(self.random.choice(FILE_MODES))
                self.files.append(path)
        directory.chmod(self.random.choice(DIRECTORY_MODES))
        # Only what is finished is linked to: so no link leads back to where it lies in.
        self.finished.append(directory)

    def link(self, path: Path) -> None:
        targets = [*self.files[-5:], *self.finished[-2:], Path("/dev/null"), Path("missing")]
        target = self.random.choice(targets)
        absolute = self.random.random() < 0.3 or not target.is_absolute()
        path.symlink_to(target if absolute else os.path.relpath(target, path.parent))


@pytest.mark.parametrize("follow", [True, False])
def test_random_trees_have_the_same_manifest(tmp_path: Path, follow: bool) -> None:
    roots = [tmp_path / f"tree{seed}" for seed in range(25)]
    for seed, root in enumerate(roots):
        RandomTree(root, seed + 1000 * follow)
    told = reference([(root, {"no_follow": not follow}) for root in roots])
    for root, (snapshot_id, text) in zip(roots, told, strict=True):
        tree = walk(root, WalkOptions(follow=follow))
        assert tree.manifest.text.decode() == text + "\n"
        assert tree.manifest.id == snapshot_id


@pytest.mark.parametrize(
    "pattern",
    [
        "a",
        r"\.",
        "/a",
        "/a/",
        "/[[:upper:]]$",
        "(?i)HOME",
        "ü$",
        r"\s",
        r"[\s]",
        r"/\S$",
        r"[^\S]$",
        "^/x",
        "[0-9]/",
        "e.$",
    ],
)
def test_excludes_leave_out_the_same(tmp_path: Path, pattern: str) -> None:
    root = tmp_path / "0"
    RandomTree(root, 7)
    ((_, text),) = reference([(root, {"exclude": [pattern]})])
    excludes = Excludes.compile([pattern], home="/root", cache_dir="/nowhere")
    assert walk(root, WalkOptions(excludes=excludes)).manifest.text.decode() == text + "\n"


def test_many_files_by_workers_have_the_same_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hash_in_workers_at_once(monkeypatch)
    root = tmp_path / "many"
    for number in range(2000):
        path = root / f"{number % 13}/{number % 7}/{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number * (number % 200))
    ((snapshot_id, _),) = reference([(root, {})])
    assert walk(root, WalkOptions(jobs=2)).manifest.id == snapshot_id
