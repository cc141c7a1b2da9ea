"""`snapctl push`."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from snapctl.catalog import Catalog, PushRecord, catalog_option
from snapctl.context import Context
from snapctl.frame import config_option, store_option, verb
from snapctl.naming import Naming, name_options
from snapctl.references import resolve_here
from snapctl.stores import with_store
from snapctl.walking import (
    ShowProgress,
    WalkFlags,
    describe_walk,
    late_meter,
    stat_cache_option,
    walk_options,
)
from snapd.actions.push import PushOptions, PushProgress, PushReport, push
from snapd.disk.walk import WalkOptions
from snapd.model.errors import Interrupted, SnapsyncError, UsageError
from snapd.model.units import format_duration, format_size
from snapd.model.uris import parse_store_uri
from snapd.remote.base import RemoteStore

_EVENT_SECONDS = 0.5


@verb(
    "push",
    examples=[
        "snapctl push ./dataset --store s3://datasets/imagenet",
        "snapctl push ./dataset --store file:///mnt/store --exclude %common%",
        "snapctl push ./dataset --store s3://datasets/imagenet --dataset imagenet@v1.2.0",
        "snapctl push ./model --store s3://models/prod --model iris_clf@v0.2.0 --note 'more data'",
        "snapctl push ./model --store s3://models/prod --parent ID --json",
        "snapctl push ./dataset --store s3://datasets/imagenet --verify",
    ],
)
@click.argument("path", default=".", type=click.Path())
@store_option()
@click.option(
    "--parent",
    metavar="ID",
    help="A snapshot in the store: what it has in common is not asked for. By default the last "
    "one pushed from this directory.",
)
@click.option("--verify", is_flag=True, help="Read what the store has; repair what is damaged.")
@click.option("--dryrun", is_flag=True, help="Tell what would be uploaded, and write nothing.")
@name_options
@catalog_option
@walk_options
@stat_cache_option
@config_option
def command(
    context: Context,
    path: str,
    store: str,
    parent: str | None,
    verify: bool,
    dryrun: bool,
    dataset: str | None,
    model: str | None,
    by: str | None,
    note: str,
    catalog: str | None,
    **walk: Any,
) -> None:
    """Put the directory PATH into a store and print the snapshot's ID, which is all that a pull
    needs.

    Only what the store lacks is uploaded; the manifest comes last, so that an ID that can be found
    is complete. PATH is the working directory by default. With --dataset or --model it also gets a
    name, which must not be taken; --note says why.

    The push is recorded in the store and in a record of your own, which `snapctl revisions` reads;
    --catalog none keeps it from both.
    """
    naming = Naming.parse(dataset, model, by, note)
    options = PushOptions(
        walk=WalkFlags(**walk).options(context),
        parent=None if parent is None else resolve_here(context, parent, store),
        verify=verify,
        dryrun=dryrun,
        pushed_directory=_pushed_directory(context),
        transfer=context.settings().transfer,
    )
    _refuse_store_within(Path(path), store, options.walk)
    record = PushRecord.of(
        Catalog.chosen(context, catalog),
        store,
        naming.author.by,
        named_parent=options.parent,
        source=(options.pushed_directory, Path(path)),
    )
    try:
        with late_meter(context, f"push {path}") as show:
            run = partial(
                push, source=Path(path), options=options, on_progress=_receiver(context, show)
            )
            report = with_store(
                context, store, partial(_push_named, context, naming, options, record, run)
            )
    except KeyboardInterrupt:
        raise Interrupted("interrupted: no manifest was written") from None
    _print(context, report, naming, dryrun=dryrun)


async def _push_named(
    context: Context,
    naming: Naming,
    options: PushOptions,
    record: PushRecord,
    run: Callable[[RemoteStore], Awaitable[PushReport]],
    store: RemoteStore,
) -> PushReport:
    """Push, and give names only to what is in the store then."""
    await naming.check(store)
    report = await run(store)
    if not options.dryrun:
        await record.write(context, store, report.snapshot_id)
        try:
            await naming.give(store, report.snapshot_id, options.transfer)
        except SnapsyncError:
            context.output.note(f"{report.snapshot_id} is in the store, but was not named")
            raise
    return report


def _refuse_store_within(source: Path, store: str, walk: WalkOptions) -> None:
    """Refuse a store that would become part of what is pushed, and change it with every push."""
    uri = parse_store_uri(store)
    top, place = Path(os.path.realpath(source)), Path(os.path.realpath(uri.path))
    if uri.scheme != "file" or not place.is_relative_to(top):
        return
    way = (place, *place.parents[: len(place.relative_to(top).parts)])
    if walk.excludes is None or not any(walk.excludes.matches(str(step)) for step in way):
        raise UsageError(
            f"the store lies in the directory that is pushed: {uri.path}",
            hint="Choose a store elsewhere, or leave it out with --exclude.",
        )


def _pushed_directory(context: Context) -> Path | None:
    """Give the user's own place for what was pushed, which is no daemon's business."""
    for variable, below in (("XDG_CACHE_HOME", ""), ("HOME", ".cache")):
        base = context.environment.get(variable, "")
        if base.startswith("/"):
            return Path(base) / below / "snapsync" / "pushed"
    return None


def _receiver(context: Context, show: ShowProgress) -> Callable[[PushProgress], None]:
    due_at = time.monotonic()

    def on_progress(progress: PushProgress) -> None:
        nonlocal due_at
        if not context.events:
            show(_describe(progress), *_fraction(progress))
        elif time.monotonic() >= due_at:
            due_at = time.monotonic() + _EVENT_SECONDS
            context.output.event({"event": "progress", **asdict(progress)})

    return on_progress


def _fraction(progress: PushProgress) -> tuple[int, int]:
    if progress.step == "walking" or not progress.bytes_total:
        return progress.walk.files_hashed, progress.walk.files_total
    return progress.bytes_done, progress.bytes_total


def _describe(progress: PushProgress) -> str:
    if progress.step == "walking":
        return describe_walk(progress.walk)
    if progress.step == "looking":
        return f"looking for {progress.objects_total} objects in the store"
    if progress.step == "finishing":
        return "writing the manifest"
    if progress.step == "uploading" and not progress.objects_total:
        # What the store lacks goes there while the rest is hashed.
        sent = format_size(progress.bytes_done)
        return f"{describe_walk(progress.walk)}; uploaded {progress.objects_done} objects, {sent}"
    done, total = format_size(progress.bytes_done), format_size(progress.bytes_total)
    objects = f"{progress.objects_done} of {progress.objects_total} objects"
    return f"{progress.step} {done} of {total}, {objects}"


def _print(context: Context, report: PushReport, naming: Naming, *, dryrun: bool) -> None:
    document = {"id": report.snapshot_id, "dryrun": dryrun, **asdict(report), **naming.given()}
    del document["snapshot_id"]
    if context.events:
        context.output.event({"event": "done", **document})
    elif context.as_json:
        context.output.print_json(document)
    else:
        context.output.note(_summary(report, dryrun=dryrun))
        for name in naming.given().values():
            context.output.note(f"{name} {'would be' if dryrun else 'is'} {report.snapshot_id}")
        context.output.line(report.snapshot_id)


def _summary(report: PushReport, *, dryrun: bool) -> str:
    verb_said = "would upload" if dryrun else "uploaded"
    repaired = f" ({report.objects_repaired} of them repaired)" if report.objects_repaired else ""
    return (
        f"{verb_said} {report.objects_uploaded} objects{repaired},"
        f" {format_size(report.bytes_uploaded)}; the store had {report.objects_present};"
        f" {report.files} files, {format_duration(report.seconds)}"
    )
