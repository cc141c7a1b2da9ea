"""Push to a real S3 server: all of a dataset into an empty store, then ten changed files."""

from __future__ import annotations

import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.compare import Measured, Samples, compare
from benchmarks.daemons import BIN, client_environment
from benchmarks.measure import Figures, run
from benchmarks.results import Result, Verdict, ratio
from benchmarks.server import forwarding
from benchmarks.workshop import SNAPDIR_PUSH, Workshop
from tests.servers.seaweed import Seaweed, running_seaweed

OURS, SNAPDIR = "ours", "snapdir"
AT_MOST, AGAIN_AT_MOST = 1 / 2, 1 / 5
CHANGED_FILES = 10
REQUESTS_FOR_EACH_AT_MOST = 5
BUCKET = "bench"


def whole(name: str, workshop: Workshop) -> Result:
    """Push a dataset into a store that has nothing: a new server for every run."""
    made = workshop.made(name)
    title = f"push of {name} to an empty store"
    with workshop.row_room() as room:

        def once(tool: str) -> Figures:
            with (
                workshop.run_room(room, large=True) as scratch,
                running_seaweed(scratch / "seaweed") as seaweed,
            ):
                seaweed.make_bucket(BUCKET)
                environment = _environment(scratch, seaweed, seaweed.endpoint_url)
                command = _command(tool, made.source)
                return run(command, environment, log=room / f"{tool}.log")

        tools: dict[str, Measured] = {OURS: lambda: once(OURS), SNAPDIR: lambda: once(SNAPDIR)}
        samples = compare(title, workshop.rounds, tools)
    result = Result(f"{title}: {made.manifest.total_bytes >> 20} MiB, SeaweedFS", samples)
    result.verdicts = [ratio(title, samples[OURS], SNAPDIR, samples[SNAPDIR], AT_MOST)]
    return result


def again(workshop: Workshop) -> Result:
    """Push S, change ten files, push it again: time, and requests counted in front of the store."""
    made = workshop.made("S")
    title = f"push of S after {CHANGED_FILES} changed files"
    asked: dict[str, Counter[str]] = {}
    with workshop.row_room() as room, running_seaweed(room / "seaweed") as seaweed:
        seaweed.make_bucket(BUCKET)
        tools: dict[str, Measured] = {}
        for tool in (OURS, SNAPDIR):
            own = room / tool
            own.mkdir()
            source = Path(shutil.copytree(made.source, own / "source"))
            with forwarding(seaweed.endpoint_url, own / "nginx", own / "asked") as endpoint:
                environment = _environment(own, seaweed, endpoint)
                run(_command(tool, source), environment, log=own / "first.log")
            tools[tool] = _repush(tool, own, seaweed, asked)
        samples = compare(title, workshop.rounds, tools)
    return _judged(title, samples, asked)


def _repush(
    tool: str, own: Path, seaweed: Seaweed, asked: dict[str, Counter[str]]
) -> Callable[[], Figures]:
    chooser = random.Random(0)

    def once() -> Figures:
        _change(own / "source", chooser)
        log = own / "asked"
        log.unlink(missing_ok=True)
        with forwarding(seaweed.endpoint_url, own / "nginx", log) as endpoint:
            environment = _environment(own, seaweed, endpoint)
            figures = run(_command(tool, own / "source"), environment, log=own / "again.log")
        lines = log.read_text(encoding="utf-8").splitlines()
        asked[tool] = Counter(line.split()[0] for line in lines)
        return figures

    return once


def _change(source: Path, chooser: random.Random) -> None:
    """Write ten files anew; the same ones with the same bytes for every tool."""
    files = sorted(path for path in source.rglob("*") if path.is_file())
    for path in chooser.sample(files, CHANGED_FILES):
        path.write_bytes(chooser.randbytes(path.stat().st_size))


def _judged(title: str, samples: Samples, asked: dict[str, Counter[str]]) -> Result:
    result = Result(title, samples)
    result.facts = [
        (f"requests of {tool}", ", ".join(f"{count} {verb}" for verb, count in counted.items()))
        for tool, counted in asked.items()
    ]
    result.notes = ["Both go through nginx, which counts and forwards."]
    requests = sum(asked[OURS].values()) if OURS in asked else 0
    limit = REQUESTS_FOR_EACH_AT_MOST * CHANGED_FILES
    result.verdicts = [
        ratio(title, samples[OURS], SNAPDIR, samples[SNAPDIR], AGAIN_AT_MOST),
        Verdict(
            title,
            "-",
            f"{requests} requests",
            f"at most {limit} requests",
            met=0 < requests <= limit,
        ),
    ]
    return result


def _command(tool: str, source: Path) -> list[str]:
    store = f"s3://{BUCKET}/{tool}"
    if tool == SNAPDIR:
        return [sys.executable, "-c", SNAPDIR_PUSH, str(source), store]
    return [str(BIN / "snapctl"), "push", str(source), "--store", store]


def _environment(scratch: Path, seaweed: Seaweed, endpoint: str) -> dict[str, str]:
    credentials = {
        "AWS_ACCESS_KEY_ID": seaweed.access_key,
        "AWS_SECRET_ACCESS_KEY": seaweed.secret_key,
    }
    return client_environment(scratch, endpoint, credentials=credentials)
