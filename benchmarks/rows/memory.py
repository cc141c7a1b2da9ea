"""Peak memory of the daemon: over all cold pulls, and with one object of 20 GB."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from blake3 import blake3

from benchmarks.contenders import Task, pulled
from benchmarks.daemons import Daemon
from benchmarks.measure import Figures
from benchmarks.results import Result, below
from benchmarks.server import serving
from benchmarks.volumes import BTRFS_COMPRESSED, Unavailable, mounted
from benchmarks.workshop import BUCKET, Workshop
from snapd.model.ids import Digest
from snapd.model.layout import manifest_key, object_key
from snapd.model.manifest import Entry, Manifest, directory_checksum

LIMIT_MIB = 300
LARGE_BYTES, QUICK_LARGE_BYTES = 20 * 10**9, 10**9
SPARE_BYTES = 4 * 2**30
BLOCK_BYTES = 64 * 2**20


def measure(workshop: Workshop) -> Result:
    """Pull a sparse object of zeros; the other rows have left their peaks in the workshop."""
    size_bytes = QUICK_LARGE_BYTES if workshop.quick else LARGE_BYTES
    title = "peak RSS of the daemon"
    result = Result(title)
    with ExitStack() as stack:
        room = stack.enter_context(workshop.row_room())
        manifest = _store_of_zeros(room / "served" / BUCKET, size_bytes)
        scratch = _roomy(stack, workshop, room, size_bytes, result)
        endpoint = stack.enter_context(serving(room / "served", room / "nginx"))
        task = Task(manifest, endpoint, BUCKET, scratch, Path())
        daemon = stack.enter_context(task.daemon())
        figures = pulled(task, daemon)
        _check(daemon, manifest, size_bytes)
    large = f"one object of {size_bytes / 10**9:.0f} GB, http"
    workshop.daemon_peaks[large] = figures.peak_rss_bytes
    result.facts = [
        (f"{name}, MiB", f"{peak / 2**20:.0f}") for name, peak in workshop.daemon_peaks.items()
    ]
    result.facts.append((f"{large}: {_rate(figures, size_bytes)}", f"{figures.wall_seconds:.1f} s"))
    where, peak = max(workshop.daemon_peaks.items(), key=lambda pair: pair[1])
    result.verdicts = [below(f"{title}; most: {where}", peak / 2**20, LIMIT_MIB, "MiB", 0)]
    return result


def _store_of_zeros(store: Path, size_bytes: int) -> Manifest:
    """Lay out a store whose one object is a file without blocks."""
    digest = _digest_of_zeros(size_bytes)
    top = directory_checksum([digest])
    entries = [
        Entry("D", 0o755, top, size_bytes, "./"),
        Entry("F", 0o644, digest, size_bytes, "./large"),
    ]
    manifest = Manifest.from_entries(entries)
    for key in (object_key(digest), manifest_key(manifest.id)):
        (store / key).parent.mkdir(parents=True, exist_ok=True)
    with (store / object_key(digest)).open("wb") as file:
        file.truncate(size_bytes)
    (store / manifest_key(manifest.id)).write_bytes(manifest.text)
    return manifest


def _digest_of_zeros(size_bytes: int) -> Digest:
    hasher = blake3(max_threads=blake3.AUTO)
    zeros = bytes(BLOCK_BYTES)
    for begin in range(0, size_bytes, BLOCK_BYTES):
        hasher.update(zeros[: min(BLOCK_BYTES, size_bytes - begin)])
    return Digest(hasher.hexdigest())


def _roomy(
    stack: ExitStack, workshop: Workshop, room: Path, size_bytes: int, result: Result
) -> Path:
    """Find room for the cache: a volume that compresses, else the scratch itself."""
    try:
        volume = mounted(room, BTRFS_COMPRESSED, size_bytes + SPARE_BYTES)
        scratch = stack.enter_context(volume) / "scratch"
    except Unavailable as why:
        result.notes.append(f"The cache took {size_bytes / 10**9:.0f} GB of the scratch: {why}")
        return stack.enter_context(workshop.run_room(room, large=True))
    result.notes.append("The cache of the largest object was on btrfs, which compressed its zeros.")
    scratch.mkdir()
    return scratch


def _check(daemon: Daemon, manifest: Manifest, size_bytes: int) -> None:
    assert (daemon.state / "trees" / manifest.id / "large").stat().st_size == size_bytes


def _rate(figures: Figures, size_bytes: int) -> str:
    return f"{size_bytes / figures.wall_seconds / 10**6:.0f} MB/s"
