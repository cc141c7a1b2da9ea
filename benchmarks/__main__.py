"""`python -m benchmarks [--quick] [--rounds N] [--dataset T] [--scratch DIR] [--write]`."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks import datasets
from benchmarks.contenders import CONTENDERS, Task, fresh
from benchmarks.measure import Figures
from benchmarks.server import serving
from snapd.model.manifest import Manifest

RESULTS = Path(__file__).parent / "RESULTS.md"

SNAPDIR_PUSH = """
import asyncio, sys, snapdir
async def main(source, store):
    print(await snapdir.push(source, snapdir.StoreUri(store)), flush=True)
asyncio.run(main(*sys.argv[1:]))
"""

Runs = dict[str, list[Figures]]

MANY_FILES = 1000
"""From here on the files of a run stay until the last one: ext4 makes files several times more
slowly for half a minute after so many were removed, and would punish whoever comes next."""


def main() -> None:
    """Pull every dataset with every contender, in turn, some rounds; print medians and ratios."""
    options = _options()
    chosen = [each for each in datasets.ALL if each.name in options.dataset]
    lines = [f"# Cold pulls, {datetime.now(UTC):%Y-%m-%d}", "", _machine(), ""]
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="snapsync-bench-") as directory:
        root = Path(directory)
        for dataset in chosen:
            scaled = dataset.scaled(20 if dataset.name != "L" else 4) if options.quick else dataset
            lines += [*_measure(root, scaled, options.rounds, options.contender), ""]
    text = "\n".join(lines)
    print(text)
    if options.write:
        RESULTS.write_text(text, encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small datasets, under 3 minutes")
    parser.add_argument("--rounds", type=int, default=3, help="how often each contender runs")
    parser.add_argument("--dataset", nargs="+", default=["T", "S", "L"], help="T, S or L")
    parser.add_argument("--contender", nargs="+", default=list(CONTENDERS), help="whom to run")
    parser.add_argument("--scratch", default=None, help="directory for data and caches")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} as well")
    return parser.parse_args()


def _measure(
    root: Path, dataset: datasets.Dataset, rounds: int, contenders: list[str]
) -> list[str]:
    source = dataset.make(root / "data")
    served = root / "served"
    manifest = _push(source, served / "bench")
    runs: Runs = defaultdict(list)
    with serving(served, root / "nginx") as endpoint:
        for number in range(rounds):
            for name in _rotated(contenders, number):
                keep = dataset.files >= MANY_FILES and _is_on_disk(root)
                scratch = fresh(root / "scratch", keep_others=keep)
                task = Task(manifest, endpoint, "bench", scratch)
                runs[name].append(CONTENDERS[name](task))
                print(
                    f"  {dataset.name} round {number + 1}: {name} {runs[name][-1]}", file=sys.stderr
                )
    shutil.rmtree(root / "scratch")
    return _table(dataset, manifest, runs)


def _is_on_disk(directory: Path) -> bool:
    """Tell a block device from memory, which must not fill with the files of earlier runs."""
    return os.major(directory.stat().st_dev) != 0


def _rotated(names: list[str], by: int) -> list[str]:
    """Start each round with another contender, so that nobody always follows the same one."""
    return names[by % len(names) :] + names[: by % len(names)]


def _push(source: Path, store: Path) -> Manifest:
    """Write the store with the reference tool, which everybody can read."""
    store.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", SNAPDIR_PUSH, str(source), f"file://{store}"],
        capture_output=True,
        text=True,
        check=False,
    )
    snapshot_id = done.stdout.strip()
    parts = (snapshot_id[0:3], snapshot_id[3:6], snapshot_id[6:9], snapshot_id[9:])
    return Manifest.parse(store.joinpath(".manifests", *parts).read_bytes())


def _table(dataset: datasets.Dataset, manifest: Manifest, runs: Runs) -> list[str]:
    base = statistics.median(each.wall_seconds for each in runs[next(iter(runs))])
    lines = [
        f"## {dataset.name}: {manifest.file_count} files, {manifest.total_bytes / 2**20:.0f} MiB",
        "",
        "| | wall s, median (min-max) | times ours | CPU s | peak RSS MiB |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, figures in runs.items():
        walls = [each.wall_seconds for each in figures]
        cpu = statistics.median(each.cpu_seconds for each in figures)
        rss = max(each.peak_rss_bytes for each in figures) / 2**20
        wall = statistics.median(walls)
        spread = f"{wall:.2f} ({min(walls):.2f}-{max(walls):.2f})"
        lines.append(f"| {name} | {spread} | {wall / base:.2f} | {cpu:.2f} | {rss:.0f} |")
    return lines


def _machine() -> str:
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in ("snapsync", "snapdir", "pycurl"))
    return (
        f"{os.cpu_count()} cores, {memory_gib:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}; {packages}. Server: nginx on loopback. "
        "Medians of interleaved runs."
    )


if __name__ == "__main__":
    main()
