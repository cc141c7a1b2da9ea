"""Measure the whole table: `python -m benchmarks [--quick] [--only ROW...] [--rounds N]`.

A full run writes RESULTS.md and results.svg beside this file; `--quick` and `--only` print the
report, and write it into `--output DIR` if that is given.
"""

from __future__ import annotations

import argparse
import math
import shutil
import signal
import sys
import tempfile
import time
import traceback
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import machine, plot, report, requirements
from benchmarks.compare import Rounds
from benchmarks.results import Result, unmeasured
from benchmarks.table import ROWS, chosen
from benchmarks.workshop import Workshop

HERE = Path(__file__).parent
MEMORY = Path("/dev/shm")
MEMORY_NEEDED_BYTES = 16 * 2**30
ROUNDS, QUICK_ROUNDS = 5, 2
BUDGET_SECONDS, QUICK_BUDGET_SECONDS = 30.0, 2.0


def main() -> None:
    """Measure the chosen rows one after the other; a row that fails does not end the others."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # Whoever is stopped takes servers, volumes and data along; also where a shell's background
        # job is born deaf to Ctrl-C.
        signal.signal(number, signal.default_int_handler)
    options = _options()
    rows = chosen(options.only)
    requirements.check()
    output = options.output or (None if options.quick or options.only else HERE)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    budget = QUICK_BUDGET_SECONDS if options.quick else BUDGET_SECONDS
    rounds = Rounds(
        options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS),
        math.inf if options.patient else budget,
    )
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="snapsync-bench-") as scratch:
        workshop = Workshop(Path(scratch), rounds, quick=options.quick, patient=options.patient)
        described = machine.describe(workshop.root)
        results = [_measured(row, workshop) for row in rows]
    text = report.markdown(results, described, datetime.now(UTC), _remarks(options, workshop))
    print(text)
    if output is not None:
        (output / "RESULTS.md").write_text(text, encoding="utf-8")
        plot.draw(results, output / "results.svg")
    if any(each.failed for each in results):
        sys.exit(1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks",
        description=__doc__,
        epilog="rows: " + " ".join(ROWS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small datasets, under 3 minutes")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="ROW", help="rows that begin with one of these"
    )
    parser.add_argument(
        "--rounds", type=int, default=0, help=f"{ROUNDS}, or {QUICK_ROUNDS} with --quick"
    )
    parser.add_argument(
        "--patient", action="store_true", help="all rounds and all files for slow peers too"
    )
    parser.add_argument(
        "--scratch",
        type=Path,
        default=_scratch(),
        help="directory for data and caches: %(default)s",
    )
    parser.add_argument("--output", type=Path, help="directory to write the report to")
    return parser.parse_args()


def _scratch() -> Path:
    """Choose memory if there is enough: a shared disk would tell more of its other users."""
    roomy = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= MEMORY_NEEDED_BYTES
    return MEMORY if roomy else Path(tempfile.gettempdir())


def _measured(row: str, workshop: Workshop) -> Result:
    print(f"{row} ...", file=sys.stderr, flush=True)
    began = time.monotonic()
    try:
        result = ROWS[row](workshop)
    except Exception as failed:  # noqa: BLE001  # one row must not cost the others
        traceback.print_exc()
        result = unmeasured(row, f"This row failed: {failed}")
        result.failed = True
    result.took_seconds = time.monotonic() - began
    return result


def _remarks(options: argparse.Namespace, workshop: Workshop) -> list[str]:
    remarks = [f"Medians of {workshop.rounds.count} interleaved rounds, each in another order."]
    if not options.patient:
        remarks.append(
            f"A tool that needs more than {workshop.rounds.budget_seconds:.0f} s for its runs of a "
            "row gets fewer of them (column runs), but at least one."
        )
    if options.quick:
        remarks.append("Scaled down (`--quick`): good for a look, not for a verdict.")
    return remarks


if __name__ == "__main__":
    main()
