"""Where the rows are measured: datasets, stores, the compiled floor, and room for each run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks import datasets
from benchmarks.compare import Rounds
from benchmarks.native import Floor, build_floor
from snapd.model.manifest import Manifest

BUCKET = "bench"
QUICK_DIVISORS = {"T": 20, "S": 20, "L": 4}

SNAPDIR_PUSH = """
import asyncio, sys, snapdir
async def main(source, store):
    print(await snapdir.push(source, snapdir.StoreUri(store)), flush=True)
asyncio.run(main(*sys.argv[1:]))
print("BENCH-OK", flush=True)
"""


@dataclass(frozen=True)
class Made:
    """A dataset on disk, and its manifest."""

    source: Path
    manifest: Manifest


class Workshop:
    """Makes what rows need when the first of them needs it."""

    def __init__(self, root: Path, rounds: Rounds, *, quick: bool, patient: bool) -> None:
        self.root = root
        self.rounds = rounds
        self.quick = quick
        self.patient = patient
        self.served = root / "served"
        self.daemon_peaks: dict[str, int] = {}
        self._made: dict[tuple[str, int], Made] = {}

    @cached_property
    def floor(self) -> Floor:
        """The compiled C program."""
        return build_floor(self.root / "build")

    @cached_property
    def in_memory(self) -> bool:
        """Whether the scratch is memory: then nothing may pile up in it."""
        return os.major(self.root.stat().st_dev) == 0

    def made(self, name: str, *, divisor: int = 1) -> Made:
        """Make the dataset T, S or L, or a part of it, and its store below `served`, once."""
        if (name, divisor) not in self._made:
            (dataset,) = [each for each in datasets.ALL if each.name == name]
            scaled = dataset.scaled((QUICK_DIVISORS[name] if self.quick else 1) * divisor)
            source = scaled.make(self.root / "data")
            self._made[name, divisor] = Made(source, _pushed(source, self.served / BUCKET))
        return self._made[name, divisor]

    @contextmanager
    def row_room(self) -> Iterator[Path]:
        """Give a directory for one row, gone when it ends."""
        with tempfile.TemporaryDirectory(dir=self.root, prefix="row-") as directory:
            yield Path(directory)

    @contextmanager
    def run_room(self, row_room: Path, *, large: bool = False) -> Iterator[Path]:
        """Give an empty directory for one run.

        On a disk the files of small objects stay until the row ends: ext4 makes files several
        times more slowly for half a minute after many were removed, and would punish whoever
        comes next.
        """
        room = Path(tempfile.mkdtemp(dir=row_room))
        yield room
        if large or self.in_memory:
            shutil.rmtree(room)


def _pushed(source: Path, store: Path) -> Manifest:
    """Write the store with the reference tool, which everybody can read."""
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store.parent) as home:
        done = subprocess.run(
            [sys.executable, "-c", SNAPDIR_PUSH, str(source), f"file://{store}"],
            env={"PATH": os.environ["PATH"], "HOME": home, "XDG_CACHE_HOME": home},
            capture_output=True,
            text=True,
            check=False,
        )
    if not done.stdout:
        raise SystemExit(f"snapdir could not write the store:\n{done.stderr}")
    snapshot_id = done.stdout.splitlines()[0]
    parts = (snapshot_id[0:3], snapshot_id[3:6], snapshot_id[6:9], snapshot_id[9:])
    return Manifest.parse(store.joinpath(".manifests", *parts).read_bytes())
