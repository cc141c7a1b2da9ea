"""Checkout of a cached snapshot beside `cp`: hard links in the scratch, reflinks on a volume."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from benchmarks.compare import Measured, compare
from benchmarks.contenders import Task, standalone
from benchmarks.daemons import BIN
from benchmarks.measure import Figures, run
from benchmarks.results import Result, ratio, unmeasured
from benchmarks.server import serving
from benchmarks.volumes import XFS, Unavailable, mounted
from benchmarks.workshop import BUCKET, Workshop

AT_MOST = 1.0
VOLUME_BYTES = 4 * 2**30


def by_hardlink(workshop: Workshop) -> Result:
    """`--mode hardlink` beside `cp -rl`, in the scratch."""
    with workshop.row_room() as room:
        return _measure(workshop, room, room, "hardlink", ["cp", "-rl"])


def by_reflink(workshop: Workshop) -> Result:
    """`--mode reflink` beside `cp -r --reflink=auto`, on a volume that has reflinks."""
    try:
        with workshop.row_room() as room, mounted(room, XFS, VOLUME_BYTES) as volume:
            result = _measure(workshop, room, volume, "reflink", ["cp", "-r", "--reflink=auto"])
    except Unavailable as why:
        return unmeasured("checkout of S by reflink", f"No volume with reflinks: {why}")
    result.notes.append(f"On {XFS.name}, mounted by loop.")
    return result


def _measure(workshop: Workshop, room: Path, at: Path, mode: str, copy: list[str]) -> Result:
    made = workshop.made("S")
    scratch = at / "scratch"
    scratch.mkdir()
    with serving(workshop.served, room / "nginx") as endpoint:
        task = Task(made.manifest, endpoint, BUCKET, scratch, workshop.floor.program)
        standalone(task)
    environment = task.environment()
    ours = [str(BIN / "snapctl"), "checkout", "--mode", mode, "--id", made.manifest.id]
    tree = scratch / "state" / "trees" / made.manifest.id
    title = f"checkout of S by {mode}"
    name = " ".join(copy)
    tools: dict[str, Measured] = {
        "ours": _into(at, lambda dest: run([*ours, dest], environment, log=room / "ours.log")),
        name: _into(
            at, lambda dest: run([*copy, str(tree), dest], environment, log=room / "cp.log")
        ),
    }
    samples = compare(title, workshop.rounds, tools)
    result = Result(f"{title}: {made.manifest.file_count} files", samples)
    result.verdicts = [ratio(title, samples["ours"], name, samples[name], AT_MOST)]
    return result


def _into(at: Path, work: Callable[[str], Figures]) -> Measured:
    """Give each run a new destination; all stay to the end, so that no run follows a removal."""

    def once() -> Figures:
        dest = at / f"dest-{len(os.listdir(at))}"
        return work(str(dest))

    return once
