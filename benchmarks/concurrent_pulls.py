"""A hundred pulls of one cold snapshot at once, and how long a warm pull takes.

    python -m benchmarks.concurrent_pulls [--callers 100] [--quick]

Every object must be asked for exactly once. Figures of the machine it runs on, as Markdown.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks import datasets
from benchmarks.server import serving
from snapd.model.ids import SnapshotId
from snapd.model.layout import manifest_key
from snapd.model.manifest import Manifest
from tests.crash.living import starting
from tests.e2e.installed import Host

WARM_PULLS = 30
QUICK_DIVISOR = 10
PATIENCE_SECONDS = 300.0
BUCKET = "bench"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "AWS_REGION": "us-east-1",
}


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="snapsync-bench-") as scratch:
        root = Path(scratch)
        dataset = datasets.S.scaled(QUICK_DIVISOR if arguments.quick else 1)
        source = dataset.make(root / "data")
        served, asked = root / "served", root / "asked"
        host = Host(root / "host", dict(CREDENTIALS))
        manifest = _push(host, source, served / BUCKET)
        with serving(served, root / "nginx", asked=asked) as endpoint:
            host.variables["AWS_ENDPOINT_URL_S3"] = endpoint
            with starting(host, "") as living:
                cold = _cold(host, manifest, arguments.callers)
                counted = Counter(asked.read_text(encoding="utf-8").splitlines())
                warm = sorted(_warm(host, manifest) for _ in range(WARM_PULLS))
                assert sum(counted.values()) == len(asked.read_text().splitlines()), "warm asks"
                assert living.process.poll() is None
    _report(manifest, arguments.callers, cold, counted, warm)


def _push(host: Host, source: Path, store: Path) -> Manifest:
    pushed = host.snapctl("push", source, "--store", f"file://{store}")
    assert pushed.code == 0, pushed.stderr
    snapshot_id = SnapshotId(pushed.stdout.strip())
    return Manifest.parse((store / manifest_key(snapshot_id)).read_bytes())


def _words(manifest: Manifest) -> tuple[str, ...]:
    return ("pull", "--quiet", "--id", manifest.id, "--store", f"s3://{BUCKET}")


def _cold(host: Host, manifest: Manifest, callers: int) -> list[float]:
    """Start all callers at once; give the seconds after which each had its path."""
    began = time.monotonic()
    running = [host.start("snapctl", *_words(manifest)) for _ in range(callers)]
    seconds = []
    for each in running:
        out, err = each.communicate(timeout=PATIENCE_SECONDS)
        seconds.append(time.monotonic() - began)
        assert each.returncode == 0, err
        assert manifest.id in out
    return seconds


def _warm(host: Host, manifest: Manifest) -> float:
    """Time one process from its start to its end, with the path printed."""
    began = time.monotonic()
    ran = host.snapctl(*_words(manifest))
    assert ran.code == 0, ran.stderr
    return time.monotonic() - began


def _report(
    manifest: Manifest, callers: int, cold: list[float], counted: Counter[str], warm: list[float]
) -> None:
    objects = {entry.checksum for entry in manifest if entry.kind == "F"}
    gets = {line: count for line, count in counted.items() if line.startswith("GET ")}
    asked = [count for line, count in gets.items() if "/.objects/" in line]
    manifests = sum(count for line, count in gets.items() if "/.manifests/" in line)
    print(
        f"{manifest.file_count} files, {len(objects)} objects, {manifest.total_bytes >> 20} MiB\n"
    )
    print("| | |\n| --- | --- |")
    print(f"| callers of the cold snapshot | {callers} |")
    print(f"| distinct objects | {len(objects)} |")
    print(f"| objects requested | {sum(asked)} |")
    print(f"| manifests requested | {manifests} |")
    print(f"| last caller had its path after | {max(cold):.2f} s |")
    print(f"| warm pull, cold process to printed path, median | {_ms(warm, 0.5)} |")
    print(f"| ... 95 of 100 within | {_ms(warm, 0.95)} |")
    if sum(asked) != len(objects):
        raise SystemExit("every object must be requested exactly once")


def _ms(ordered: list[float], share: float) -> str:
    return f"{1000 * ordered[int(share * (len(ordered) - 1))]:.0f} ms"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="a tenth of the files")
    return parser.parse_args()


if __name__ == "__main__":
    main()
