"""From a manifest of a million entries to the plan: in one process, and through the daemon."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.compare import compare
from benchmarks.daemons import BIN, client_environment, running_daemon
from benchmarks.large_manifest import manifest_lines
from benchmarks.measure import Figures, cpu_seconds_of, peak_rss_bytes_of, run
from benchmarks.results import Result, below
from benchmarks.server import serving
from benchmarks.workshop import BUCKET, Workshop
from snapd.model.ids import SnapshotId, digest_of
from snapd.model.layout import manifest_key

ENTRIES, QUICK_ENTRIES = 1_000_000, 100_000
SECONDS_LIMIT, LIMIT_MIB = 4.0, 400
PROCESS, DAEMON = "ours, one process that parses and plans", "ours, `snapctl plan` and daemon"


def measure(workshop: Workshop) -> Result:
    """Plan with an empty cache: nothing is fetched but the manifest."""
    entries = QUICK_ENTRIES if workshop.quick else ENTRIES
    title = f"manifest of {entries:,} entries to plan"
    with workshop.row_room() as room:
        text = "".join(manifest_lines(entries)).encode()
        snapshot_id = SnapshotId(digest_of(text))
        path = room / "served" / BUCKET / manifest_key(snapshot_id)
        path.parent.mkdir(parents=True)
        path.write_bytes(text)
        del text
        with serving(room / "served", room / "nginx") as endpoint:
            samples = compare(
                title,
                workshop.rounds,
                {
                    PROCESS: lambda: _in_one_process(workshop, room, path),
                    DAEMON: lambda: _through_the_daemon(workshop, room, endpoint, snapshot_id),
                },
            )
    result = Result(title, samples)
    for name in (PROCESS, DAEMON):
        if samples[name].runs:
            work = f"{title}: {name}"
            peak_mib = samples[name].peak_rss_bytes / 2**20
            result.verdicts.append(below(work, samples[name].wall_seconds, SECONDS_LIMIT, "s"))
            result.verdicts.append(below(work, peak_mib, LIMIT_MIB, "MiB", 0))
    return result


def _in_one_process(workshop: Workshop, room: Path, manifest: Path) -> Figures:
    with workshop.run_room(room) as scratch:
        environment = client_environment(scratch, "http://127.0.0.1:9")
        folder = str(Path(__file__).parent.parent.parent)
        command = [sys.executable, "-m", "benchmarks.large_manifest", "--text", str(manifest)]
        return run(command, {**environment, "PYTHONPATH": folder}, log=room / "plan.log")


def _through_the_daemon(
    workshop: Workshop, room: Path, endpoint: str, snapshot_id: SnapshotId
) -> Figures:
    with workshop.run_room(room) as scratch:
        environment = client_environment(scratch, endpoint)
        with running_daemon(scratch, environment) as daemon:
            before = cpu_seconds_of(daemon.process_id)
            command = [str(BIN / "snapctl"), "plan", "--id", snapshot_id]
            command += ["--store", f"s3://{BUCKET}"]
            figures = run(command, environment, log=room / "daemon.log")
            after = cpu_seconds_of(daemon.process_id)
            return figures.plus(after - before, peak_rss_bytes_of(daemon.process_id))
