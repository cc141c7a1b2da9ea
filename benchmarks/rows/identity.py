"""`snapctl id`: walk and hash a directory, the whole process, the page cache warm."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.compare import Measured, compare
from benchmarks.daemons import BIN, client_environment
from benchmarks.measure import Failed, Figures, run
from benchmarks.results import Result, ratio
from benchmarks.workshop import Workshop

OURS, AGAIN, SNAPDIR = "ours, --no-stat-cache", "ours, with the stat cache", "snapdir"
AT_MOST = {"T": 1.3, "S": 1.3, "L": 1.0}
AGAIN_AT_MOST = 0.5

SNAPDIR_ID = """
import asyncio, sys, snapdir
async def main(source):
    print(await snapdir.id(source), flush=True)
asyncio.run(main(*sys.argv[1:]))
print("BENCH-OK", flush=True)
"""


def measure(name: str, workshop: Workshop) -> Result:
    """Hash one dataset: all of it, what the stat cache does not know, and with snapdir."""
    made = workshop.made(name)
    title = f"id of {name}"
    source = str(made.source)
    with workshop.row_room() as room:
        environment = client_environment(room, "http://127.0.0.1:9")
        words = [str(BIN / "snapctl"), "id", source]

        def hashed(log: str, command: list[str]) -> Figures:
            figures = run(command, environment, log=room / log)
            _check(room / log, made.manifest.id)
            return figures

        hashed("first.log", words)
        tools: dict[str, Measured] = {
            OURS: lambda: hashed("ours.log", [*words, "--no-stat-cache"]),
            AGAIN: lambda: hashed("again.log", words),
            SNAPDIR: lambda: hashed("snapdir.log", [sys.executable, "-c", SNAPDIR_ID, source]),
        }
        samples = compare(title, workshop.rounds, tools)
    result = Result(f"{title}: {made.manifest.file_count} files", samples)
    result.verdicts = [
        ratio(title, samples[OURS], SNAPDIR, samples[SNAPDIR], AT_MOST[name]),
        ratio(f"{title}, second", samples[AGAIN], SNAPDIR, samples[SNAPDIR], AGAIN_AT_MOST),
    ]
    return result


def _check(log: Path, snapshot_id: str) -> None:
    if snapshot_id not in log.read_text(encoding="utf-8"):
        raise Failed(f"another ID: {log.read_text(encoding='utf-8')[:200]}")
