"""Cold pull: an empty cache, every object over the wire, a usable tree at the end."""

from __future__ import annotations

from functools import partial

from benchmarks.compare import Measured, compare
from benchmarks.contenders import CONTENDERS, FLOOR, OURS, S5CMD, SNAPDIR, Task
from benchmarks.measure import Figures
from benchmarks.results import Result, ratio
from benchmarks.server import Wire, ca_file, serving
from benchmarks.workshop import BUCKET, Workshop

FLOOR_AT_MOST = 1.8
SNAPDIR_AT_MOST = {"T": 1 / 3, "S": 1 / 3, "L": 1 / 4}
SNAPDIR_LATE_AT_MOST = {"T": 1 / 20, "S": 1 / 20}
S5CMD_AT_MOST, S5CMD_LATE_AT_MOST = 1 / 3, 1 / 5
S5CMD_DATASETS = ("T", "S")


def measure(wire: Wire, name: str, workshop: Workshop) -> Result:
    """Pull one dataset over one kind of wire with everybody, in turn."""
    made = workshop.made(name)
    manifest = made.manifest
    title = f"cold pull of {name}, {wire}"
    with (
        workshop.row_room() as room,
        serving(workshop.served, room / "nginx", wire=wire) as endpoint,
    ):
        trusted = ca_file(room / "nginx") if wire.tls else None

        def once(tool: str) -> Figures:
            with workshop.run_room(room, large=name == "L") as scratch:
                floor = workshop.floor.program
                task = Task(manifest, endpoint, BUCKET, scratch, floor, wire, trusted)
                return CONTENDERS[tool](task)

        tools: dict[str, Measured] = {tool: partial(once, tool) for tool in CONTENDERS}
        samples = compare(title, workshop.rounds, tools)
    result = Result(f"{title}: {manifest.file_count} files, {manifest.total_bytes >> 20} MiB")
    result.samples = samples
    result.daemon_peak_bytes = max((run.peak_rss_bytes for run in samples[OURS].runs), default=0)
    ours = samples[OURS]
    result.verdicts = [
        ratio(title, ours, peer, samples[peer], at_most) for peer, at_most in _targets(wire, name)
    ]
    return result


def _targets(wire: Wire, name: str) -> list[tuple[str, float]]:
    late = wire.delay_seconds > 0
    targets = [(FLOOR, FLOOR_AT_MOST)]
    snapdir = (SNAPDIR_LATE_AT_MOST if late else SNAPDIR_AT_MOST).get(name)
    if snapdir is not None:
        targets.insert(0, (SNAPDIR, snapdir))
    if name in S5CMD_DATASETS:
        targets.insert(1, (S5CMD, S5CMD_LATE_AT_MOST if late else S5CMD_AT_MOST))
    return targets
