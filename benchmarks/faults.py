"""What a pull does when the store fails: ours beside the real `snapdir`, as a table.

    python -m benchmarks.faults [--patience 20]

Each runs in a process of its own with an empty cache, against a real S3 server behind a proxy that
fails once, or always, on one object. Ours has the patience that the fault tests configure.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from snapd.model.layout import object_key
from tests.crash.faulty import CASES, PATIENCE, Case
from tests.e2e.installed import BIN, SNAPDIR, Host, files_below
from tests.samples import sample
from tests.servers.faultproxy import FaultProxy
from tests.servers.seaweed import running_seaweed

MADE = sample({f"d/f{number}": os.urandom(3000) for number in range(8)})
VICTIM = min(MADE.objects)


@dataclass(frozen=True)
class Bench:
    """Where a run reads from and writes to."""

    root: Path
    variables: dict[str, str]
    store: str
    patience_seconds: float

    def run(self, tool: Callable[[Host, str, Path], list[list[str]]]) -> str:
        """Run the commands of one tool, and say how it ended and after how long."""
        host = Host(self.root / "host", self.variables)
        dest = self.root / "dest"
        began = time.monotonic()
        try:
            for command in tool(host, self.store, dest):
                done = subprocess.run(
                    command,
                    env=host.environment(),
                    cwd=host.root,
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=self.patience_seconds,
                )
                # The reference may crash at its exit, after the right result.
                if done.returncode != 0 and not done.stdout.strip():
                    return f"error after {time.monotonic() - began:.1f} s: {_reason(done.stderr)}"
            right = {entry.path[2:] for entry in MADE.manifest if entry.kind == "F"}
            found = files_below(dest)
            if set(found) != right or set(found.values()) != set(MADE.objects.values()):
                return "**wrong files, and says nothing**"
            return f"ok after {time.monotonic() - began:.1f} s"
        except subprocess.TimeoutExpired:
            return f"**hangs** (more than {self.patience_seconds:.0f} s)"
        finally:
            shutil.rmtree(host.root)
            shutil.rmtree(dest, ignore_errors=True)


def ours(host: Host, store: str, dest: Path) -> list[list[str]]:
    """`snapctl pull --standalone` into a directory."""
    host.environment()
    config = host.root / "config.toml"
    config.write_text(PATIENCE, encoding="utf-8")
    words = ["pull", "--standalone", "--quiet", "--json", "--config", str(config)]
    return [[str(BIN / "snapctl"), *words, "--id", MADE.id, "--store", store, str(dest)]]


def snapdir(_host: Host, store: str, dest: Path) -> list[list[str]]:
    """The reference: `pull` into a directory."""
    return [[sys.executable, "-c", SNAPDIR, "pull", MADE.id, store, str(dest)]]


def _reason(stderr: str) -> str:
    last = (stderr.strip().splitlines() or ["?"])[-1]
    try:
        return str(json.loads(last)["code"])
    except (ValueError, KeyError, TypeError):
        return last.rpartition("Error: ")[2][-70:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patience", type=float, default=20.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="snapsync-faults-") as scratch:
        root = Path(scratch)
        with (
            running_seaweed(root / "seaweed") as seaweed,
            FaultProxy.running(seaweed.endpoint_url) as proxy,
        ):
            bucket = seaweed.make_bucket("faults")
            with closing(seaweed.client()) as client:
                for key, body in MADE.keys().items():
                    client.put_object(Bucket=bucket, Key=f"p/{key}", Body=body)
            variables = {
                **seaweed.environment(),
                "AWS_ENDPOINT_URL_S3": proxy.url,
                "SNAPDIR_S3_STORE_ENDPOINT_URL": proxy.url,
            }
            bench = Bench(root / "run", variables, f"s3://{bucket}/p", arguments.patience)
            print("| fault of one object | | ours | snapdir |\n| --- | --- | --- | --- |")
            for case in CASES:
                _compare(bench, proxy, case)


def _compare(bench: Bench, proxy: FaultProxy, case: Case) -> None:
    path = f"{object_key(VICTIM)}"
    for times, plan in (("once", case.once), ("always", case.always)):
        ended = []
        for tool in (ours, snapdir):
            proxy.plan(plan(path))
            ended.append(bench.run(tool))
        print(f"| {case.name} | {times} | {' | '.join(ended)} |", flush=True)


if __name__ == "__main__":
    main()
