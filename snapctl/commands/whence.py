"""`snapctl whence`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from snapctl.asking import Answer, Subject, ask
from snapctl.catalog import Catalog, catalog_option
from snapctl.context import Context
from snapctl.frame import config_option, store_option, verb
from snapctl.querying import own_pushes
from snapctl.registering import one_line
from snapctl.tracing import note_gaps
from snapctl.walking import WalkFlags, walk_options
from snapd.actions.whence import Holding
from snapd.model.errors import NothingKnown
from snapd.model.lineage import NamedVersion
from snapd.model.names import in_one_line
from snapd.model.pushes import Push

_SNAPSHOTS = 200
_SHOWN_PATHS = 5
_TOLD = 3


@verb(
    "whence",
    examples=[
        "snapctl whence ./model --store s3://models/prod",
        "snapctl whence ./model/weights.bin --store s3://models/prod",
        "snapctl whence ID --store s3://models/prod --json",
    ],
)
@click.argument("what", metavar="PATH|ID")
@store_option(required=False)
@click.option(
    "--snapshots",
    type=click.IntRange(0, 10_000),
    default=_SNAPSHOTS,
    show_default=True,
    help="Look for a file in the manifests of so many snapshots, the latest names first.",
)
@catalog_option
@walk_options
@config_option
def command(
    context: Context,
    what: str,
    store: str | None,
    snapshots: int,
    catalog: str | None,
    **walk: Any,
) -> None:
    """Tell where bytes are from when nobody remembers their name.

    Of a directory, or of a snapshot's ID: which versions it is, which runs made it and used it, who
    pushed it where and when. Of a file, or of a directory of which nothing is known: which of the
    named snapshots, and of those in this node's caches, hold it, and at which paths. Exit 10 if
    nothing is known.
    """
    subject = Subject.of(context, what, WalkFlags(**walk))
    here = own_pushes(context, Catalog.chosen(context, catalog))
    answer = ask(context, subject, store, here, snapshots)
    note_gaps(context, answer.names)
    _note_limits(context, answer, snapshots)
    if not answer.is_known and not answer.holding:
        raise NothingKnown(f"nothing is known of {subject}", id=subject.digest)
    if context.output.as_json:
        context.output.print_json(_to_json(subject, answer))
        return
    if subject.path:
        path = in_one_line(subject.path)
        context.output.line(f"{path} is {subject.snapshot_id or subject.digest}")
    for line in _lines(answer):
        context.output.line(line)


def _note_limits(context: Context, answer: Answer, limit: int) -> None:
    for said in answer.problems[:_TOLD]:
        context.output.note(f"left out: {said}")
    if len(answer.problems) > _TOLD:
        context.output.note(f"and {len(answer.problems) - _TOLD} more that can't be read")
    if answer.more:
        context.output.note(f"only {limit} snapshots were looked through; --snapshots takes more")
    for name in answer.known.more:
        context.output.note(f"there is more than is shown of {name.replace('_', ' ')}")


def _lines(answer: Answer) -> Iterator[str]:
    yield from (_version_line("is", version) for version in answer.known.versions)
    yield from (f"made by   run {run_id}" for run_id in answer.known.made_by)
    yield from (f"used by   run {run_id}" for run_id in answer.known.used_by)
    yield from (f"pushed    {_push_line(push)}" for push in answer.known.pushes)
    told = {(push.at_ms, push.location) for push in answer.known.pushes}
    here = [push for push in answer.here if (push.at_ms, push.location) not in told]
    yield from (f"seen here {_push_line(push)}" for push in here)
    for holding in answer.holding:
        yield f"part of   {holding.snapshot_id}{_names(answer, holding)}"
        yield from (
            f"          {in_one_line(found.path)}" for found in holding.found[:_SHOWN_PATHS]
        )
        if holding.more or len(holding.found) > _SHOWN_PATHS:
            yield "          ..."


def _version_line(word: str, version: NamedVersion) -> str:
    words = [version.kind, version.title]
    words += [f"({version.stage})"] if version.stage else []
    words += ["DEPRECATED"] if version.deprecated else []
    note = f": {one_line(version.note)}" if version.note else ""
    return f"{word:<10}{' '.join(words)}, {version.at} by {version.by}{note}"


def _push_line(push: Push) -> str:
    by = f" by {push.by}" if push.by else ""
    return f"{push.created_at} to {in_one_line(push.location)}{by}"


def _names(answer: Answer, holding: Holding) -> str:
    names = [version.title for version in answer.names.of(holding.snapshot_id)]
    names += ["cached here"] if holding.snapshot_id in answer.cached else []
    return f" ({', '.join(names)})" if names else ""


def _to_json(subject: Subject, answer: Answer) -> dict[str, Any]:
    return {
        "kind": subject.kind,
        "path": subject.path or None,
        "id": subject.snapshot_id,
        "digest": subject.digest,
        "versions": [version.to_json() for version in answer.known.versions],
        "made_by": list(answer.known.made_by),
        "used_by": list(answer.known.used_by),
        "pushes": [push.to_json() for push in answer.known.pushes],
        "recorded_here": [push.to_json() for push in answer.here],
        "part_of": [_holding_json(answer, holding) for holding in answer.holding],
        "snapshots_looked_through": answer.looked_through,
        "unreadable": answer.problems,
        "complete": not any(
            (
                *(answer.more, answer.known.more, answer.problems),
                *(answer.names.more, answer.names.unreadable),
            )
        ),
    }


def _holding_json(answer: Answer, holding: Holding) -> dict[str, Any]:
    return {
        "snapshot_id": holding.snapshot_id,
        "versions": [version.title for version in answer.names.of(holding.snapshot_id)],
        "cached": holding.snapshot_id in answer.cached,
        "paths": [found.path for found in holding.found],
        "more_paths": holding.more,
    }
