"""`snapctl run record`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from snapctl.context import Context
from snapctl.file_hash import hash_of
from snapctl.frame import config_option, store_option, verb
from snapctl.recorded_runs import (
    author_of_written,
    chosen_run_id,
    data_options,
    in_data_store,
    read_data,
    record_here,
)
from snapctl.registering import author_options, read_values
from snapd.model.errors import UsageError
from snapd.model.run_parts import Code, Environment, parse_commit
from snapd.model.run_texts import read_run_text
from snapd.model.runs import RUN_MAX_BYTES
from snapd.model.values import read_number, read_seed, read_value
from snapd.model.written_runs import WrittenRun, read_named, run_as_written


@verb(
    "record",
    examples=[
        "snapctl run record run.yaml --store s3://models/prod",
        "snapctl run record --commit 9f3c5e01 --data imagenet@v1.2.0 --output ID --metric acc=0.93",
        "python train.py --print-run | snapctl run record - --store s3://models/prod --json",
    ],
)
@click.argument("file", metavar="[FILE|-]", required=False)
@store_option()
@click.option("--run-id", metavar="RUN", help="Its ID; one that sorts by time if not given.")
@click.option("--commit", metavar="COMMIT", help="The code: as `git rev-parse HEAD` prints it.")
@data_options
@click.option(
    "--output",
    "outputs",
    metavar="[NAME=]REF",
    multiple=True,
    help="A snapshot that the run made, which is in the store. May be repeated.",
)
@click.option("--param", "parameters", metavar="NAME=VALUE", multiple=True, help="Likewise.")
@click.option("--metric", "metrics", metavar="NAME=NUMBER", multiple=True, help="Likewise.")
@click.option("--seed", metavar="SEED", help="What random numbers began with.")
@click.option("--image", metavar="IMAGE", help="The container image, best by its digest.")
@click.option("--lock", metavar="FILE", type=click.Path(), help="The file that pins the packages.")
@click.option("--deep", is_flag=True, help="Read and hash every object first, not only look.")
@author_options
@config_option
def record(
    context: Context,
    file: str | None,
    store: str,
    run_id: str | None,
    data: tuple[str, ...],
    data_store: str | None,
    deep: bool,
    by: str | None,
    note: str,
    **options: Any,
) -> None:
    """Record a run for good: which code made which snapshots of which data.

    FILE is YAML or JSON, in the form that `run show` prints or as people write it: run_id,
    code_commit, data_snapshot, params, env, outputs, metrics. Options win over FILE. References are
    looked up once; data and outputs have to be whole in the store. The same record again is fine.
    """
    written = WrittenRun() if file is None else run_as_written(read_run_text(_read(file)))
    if file is None and not any((run_id, data, *options.values())):
        raise UsageError("nothing to record", hint="Name a FILE, or say it with options.")
    written = _merged(written, read_data(data), options)
    written = replace(written, data=in_data_store(written.data, data_store))
    written, author = author_of_written(written, by, note)
    chosen = chosen_run_id(run_id or written.run_id)
    run = record_here(context, store, written, chosen, author, deep=deep)
    if context.output.as_json:
        context.output.print_json(run.to_json())
    else:
        context.output.line(run.run_id)


def _merged(written: WrittenRun, data: tuple[Any, ...], options: Mapping[str, Any]) -> WrittenRun:
    """Let options win; of parameters and metrics, each by its name."""
    known = dict(written.known)
    if options["commit"]:
        known["code"] = replace(
            known.get("code") or Code(""), commit=parse_commit(options["commit"])
        )
    for name, option, read in (
        ("parameters", "--param", lambda _, text: read_value(text)),
        ("metrics", "--metric", read_number),
    ):
        given = read_values(options[name], option)
        more = {key: read(f"{option} {key[:80]}", text) for key, text in given.items()}
        known[name] = {**known.get(name, {}), **more}
    environment = known.get("environment") or Environment()
    if options["image"]:
        environment = replace(environment, image=options["image"])
    if options["lock"]:
        digest = hash_of(Path(options["lock"]))
        environment = replace(environment, lock_file=options["lock"], lock_hash=digest)
    known["environment"] = environment
    if options["seed"] is not None:
        known["seed"] = read_seed(options["seed"])
    outputs = tuple(read_named(each, "--output") for each in options["outputs"])
    return replace(
        written, data=data or written.data, outputs=outputs or written.outputs, known=known
    )


def _read(file: str) -> bytes:
    try:
        if file == "-":
            return sys.stdin.buffer.read(RUN_MAX_BYTES + 1)
        with Path(file).open("rb") as opened:
            return opened.read(RUN_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"can't read the run {file!r}: {error.strerror}") from error
