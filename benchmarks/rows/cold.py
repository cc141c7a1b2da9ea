"""Cold pull: an empty cache, every object over the wire, a usable tree at the end."""

from __future__ import annotations

from functools import partial

from benchmarks.compare import Measured, compare
from benchmarks.contenders import CONTENDERS, FLOOR, OURS, S5CMD, SNAPDIR, Task
from benchmarks.measure import Figures
from benchmarks.results import Result, ratio
from benchmarks.server import Wire, ca_file, serving
from benchmarks.workshop import BUCKET, Workshop
from snapd.model.manifest import Manifest

FLOOR_AT_MOST = 1.8
SNAPDIR_AT_MOST = {"T": 1 / 3, "S": 1 / 3, "L": 1 / 4}
SNAPDIR_LATE_AT_MOST = {"T": 1 / 20, "S": 1 / 20}
S5CMD_AT_MOST, S5CMD_LATE_AT_MOST = 1 / 3, 1 / 5
S5CMD_DATASETS = ("T", "S")
LATE_DIVISOR = 10
LATE_SNAPDIR = f"snapdir, 1/{LATE_DIVISOR} of the files, times {LATE_DIVISOR}"
"""With latency it takes minutes, and as much longer as there are more files."""


def measure(wire: Wire, name: str, workshop: Workshop) -> Result:
    """Pull one dataset over one kind of wire with everybody, in turn."""
    made = workshop.made(name)
    manifest = made.manifest
    title = f"cold pull of {name}, {wire}"
    peer = LATE_SNAPDIR if _is_too_slow(wire, name, workshop) else SNAPDIR
    with (
        workshop.row_room() as room,
        serving(workshop.served, room / "nginx", wire=wire) as endpoint,
    ):
        trusted = ca_file(room / "nginx") if wire.tls else None

        def once(tool: str, wanted: Manifest) -> Figures:
            with workshop.run_room(room, large=name == "L") as scratch:
                floor = workshop.floor.program
                task = Task(wanted, endpoint, BUCKET, scratch, floor, wire, trusted)
                return CONTENDERS[tool](task)

        def part(tool: str, wanted: Manifest) -> Figures:
            return once(tool, wanted).times(LATE_DIVISOR)

        tools: dict[str, Measured] = {tool: partial(once, tool, manifest) for tool in CONTENDERS}
        if peer != SNAPDIR:
            tenth = workshop.made(name, divisor=LATE_DIVISOR).manifest
            tools = {each: tools[each] for each in tools if each != SNAPDIR}
            tools[peer] = partial(part, SNAPDIR, tenth)
        samples = compare(title, workshop.rounds, tools)
    result = Result(f"{title}: {manifest.file_count} files, {manifest.total_bytes >> 20} MiB")
    result.samples = samples
    ours = samples[OURS]
    if ours.runs:
        workshop.daemon_peaks[title] = ours.peak_rss_bytes
    result.verdicts = [
        ratio(title, ours, against, samples[peer if against == SNAPDIR else against], at_most)
        for against, at_most in _targets(wire, name)
    ]
    return result


def _is_too_slow(wire: Wire, name: str, workshop: Workshop) -> bool:
    return wire.delay_seconds > 0 and name != "L" and not workshop.patient


def _targets(wire: Wire, name: str) -> list[tuple[str, float]]:
    late = wire.delay_seconds > 0
    targets = [(FLOOR, FLOOR_AT_MOST)]
    snapdir = (SNAPDIR_LATE_AT_MOST if late else SNAPDIR_AT_MOST).get(name)
    if snapdir is not None:
        targets.insert(0, (SNAPDIR, snapdir))
    if name in S5CMD_DATASETS:
        targets.insert(1, (S5CMD, S5CMD_LATE_AT_MOST if late else S5CMD_AT_MOST))
    return targets
