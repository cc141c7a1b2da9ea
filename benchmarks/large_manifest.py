"""`python -m benchmarks.large_manifest [--entries N] [--rounds N]`: from a manifest to the plan.

Each round is a process of its own, which opens an empty cache, reads the text from a file, parses
it and plans the pull, as the daemon does before it fetches the first object.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from snapd.disk.cache import open_cache
from snapd.model.ids import SnapshotId, digest_of
from snapd.model.manifest import Manifest
from snapd.model.plan import plan_pull

FILES_IN_A_DIRECTORY = 1000
LARGE_OBJECT_BYTES = 8 * 1024 * 1024


def main() -> None:
    """Write a manifest, plan it some times, print medians and the peak of memory."""
    parser = argparse.ArgumentParser(prog="benchmarks.large_manifest", description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--text", help="plan this manifest and print what it took (a round)")
    options = parser.parse_args()
    if options.text:
        _plan(Path(options.text))
        return
    with tempfile.TemporaryDirectory(prefix="snapsync-bench-") as directory:
        text = Path(directory) / "manifest"
        text.write_text("".join(manifest_lines(options.entries)), encoding="utf-8")
        rounds = [_round(text) for _ in range(options.rounds)]
    seconds = [each[0] for each in rounds]
    peak_mib = max(each[1] for each in rounds) / 2**20
    print(
        f"{options.entries} entries: {statistics.median(seconds):.2f} s"
        f" ({min(seconds):.2f}-{max(seconds):.2f}), peak RSS {peak_mib:.0f} MiB"
    )


def manifest_lines(entries: int) -> Iterator[str]:
    """List files of a few kilobytes in directories of a thousand; no object exists anywhere."""
    digest = "0" * 64
    yield f"D 755 {digest} 0 ./\n"
    for number in range(entries - 1):
        directory = f"./shard-{number // FILES_IN_A_DIRECTORY:06}/"
        if number % FILES_IN_A_DIRECTORY == 0:
            yield f"D 755 {digest} 0 {directory}\n"
        else:
            digest = hashlib.sha256(b"%d" % number).hexdigest()
            yield f"F 644 {digest} {4000 + number % 1000} {directory}sample-{number:09}.bin\n"


def _round(text: Path) -> tuple[float, int]:
    command = [sys.executable, "-m", "benchmarks.large_manifest", "--text", str(text)]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return time.perf_counter() - began, int(done.stdout.split()[-1])


def _plan(path: Path) -> None:
    raw = path.read_bytes()
    snapshot_id = SnapshotId(digest_of(raw))
    with (
        tempfile.TemporaryDirectory(prefix="snapsync-bench-") as directory,
        open_cache(Path(directory) / "cache", now=time.monotonic) as cache,
    ):
        marks = [time.perf_counter()]
        manifest = Manifest.parse(raw, expected_id=snapshot_id)
        marks.append(time.perf_counter())
        objects = manifest.objects()
        marks.append(time.perf_counter())
        held = cache.trust.check(manifest, objects)
        plan = plan_pull(manifest, objects, held, large_object_bytes=LARGE_OBJECT_BYTES)
        marks.append(time.perf_counter())
    steps = [after - before for before, after in pairwise(marks)]
    print(f"parse {steps[0]:.2f} s, objects {steps[1]:.2f} s, plan {steps[2]:.2f} s;", end=" ")
    print(f"{len(plan.small)} to fetch, peak {_peak_rss_bytes()}")


def _peak_rss_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    main()
