"""`snapctl run show` and `snapctl run ls`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

import click

from snapctl.context import Context
from snapctl.frame import config_option, store_option, verb
from snapctl.references import resolve_here
from snapctl.registering import limit_option, one_line, with_registry
from snapd.model.errors import RegistryUnreadable, UsageError
from snapd.model.names import parse_name
from snapd.model.receipts import parse_moment
from snapd.model.run_parts import Use
from snapd.model.run_texts import render_yaml
from snapd.model.runs import Run, time_in_run_id
from snapd.model.units import parse_duration_seconds
from snapd.model.uris import parse_store_uri
from snapd.registry.names import LISTED_MAX, Registry
from snapd.registry.runs import Runs
from snapd.registry.side_by_side import side_by_side

_IDS_MAX = 1_000_000


@verb(
    "show",
    examples=[
        "snapctl run show 20260301T090000Z-3f2a91c0 --store s3://models/prod",
        "snapctl run show iris-7 --yaml",
        "snapctl run show iris-7 --openlineage",
    ],
)
@click.argument("run_id", metavar="RUN")
@store_option()
@click.option("--yaml", "as_yaml", is_flag=True, help="The record as YAML.")
@click.option(
    "--openlineage", is_flag=True, help="As events of OpenLineage, one a line: start and end."
)
@config_option
def show(context: Context, run_id: str, store: str, as_yaml: bool, openlineage: bool) -> None:
    """Show the record of a run: code, data, environment, outputs, metrics.

    With --yaml or --json it is the record itself, which `run record` reads.
    """
    parse_name(run_id)
    run = with_registry(context, store, lambda registry: Runs(registry).run(run_id))
    if openlineage:
        from snapd.model.openlineage import events_of

        events = events_of(run, str(parse_store_uri(store)))
        if context.output.as_json and not context.output.events:
            context.output.print_json(events)
        else:
            for event in events:
                context.output.event(event)
    elif context.output.as_json:
        context.output.print_json(run.to_json())
    elif as_yaml:
        context.output.line(render_yaml(run.to_json()).rstrip("\n"))
    else:
        for line in _lines(run):
            context.output.line(line)


def _lines(run: Run) -> list[str]:
    code, environment = run.code, run.environment
    dirty = {True: ", with changes that are not in it", False: "", None: ""}
    pairs: list[tuple[str, object]] = [
        ("run", run.run_id),
        ("recorded", f"{run.at} by {run.by}"),
        ("note", one_line(run.note)),
        ("commit", f"{code.commit}{dirty[code.dirty]}" if code else ""),
        ("repository", code.repository if code else ""),
        ("directory", code.directory if code else ""),
        *(("data", _use_line(each)) for each in run.data),
        *(("output", _use_line(each)) for each in run.outputs),
        *((f"param {name}", value) for name, value in run.parameters.items()),
        *((f"metric {name}", value) for name, value in run.metrics.items()),
        ("seed", run.seed),
        *(
            (name, getattr(environment, name))
            for name in ("python", "lock_file", "lock_hash", "image", "platform")
        ),
        *((f"env {name}", value) for name, value in environment.extra.items()),
        ("command", _command_line(run)),
        ("exit status", run.exit_status),
        ("host", run.host),
        ("started", run.started_at),
        ("ended", run.ended_at),
    ]
    known = [(name, value) for name, value in pairs if value not in (None, "")]
    width = max(len(name) for name, _ in known)
    return [f"{name:<{width}}  {one_line(str(value))}" for name, value in known]


def _use_line(use: Use) -> str:
    return "  ".join(filter(None, (use.snapshot_id, use.reference, use.path, use.store)))


def _command_line(run: Run) -> str:
    import shlex

    return shlex.join(run.command)


@verb(
    "ls",
    examples=[
        "snapctl run ls --store s3://models/prod",
        "snapctl run ls --since 7d --limit 20 --json",
        "snapctl run ls --data imagenet@v1.2.0",
    ],
)
@store_option()
@click.option(
    "--since", metavar="WHEN", help="Only runs since then: a time with its offset, or 90m, 12h, 7d."
)
@click.option("--data", metavar="REF", help="Only runs that used this snapshot.")
@click.option("--output", "made", metavar="REF", help="Only runs that made this snapshot.")
@limit_option
@config_option
def ls(
    context: Context,
    store: str,
    since: str | None,
    data: str | None,
    made: str | None,
    limit: int,
) -> None:
    """List the runs of a store, the latest first.

    IDs that `snapctl` chose tell the time and cost nothing to sort; of others, up to 5000 are read.
    """
    after = None if since is None else _since(since)
    used_id = None if data is None else resolve_here(context, data, store)
    made_id = None if made is None else resolve_here(context, made, store)

    async def look(registry: Registry) -> _Listed:
        runs = Runs(registry)
        if used_id is not None and made_id is not None:
            ids = _in_both(runs.using(used_id), runs.making(made_id))
        elif used_id is not None:
            ids = runs.using(used_id)
        else:
            ids = runs.ids() if made_id is None else runs.making(made_id)
        listed = _Listed(runs)
        await listed.find(ids, limit, after)
        return listed

    _print(context, with_registry(context, store, look))


async def _in_both(
    first: AsyncGenerator[str, None], second: AsyncGenerator[str, None]
) -> AsyncGenerator[str, None]:
    """Walk what two listings in byte order have in common."""
    async with aclosing(first) as firsts, aclosing(second) as seconds:
        other = await anext(seconds, None)
        async for run_id in firsts:
            while other is not None and other < run_id:
                other = await anext(seconds, None)
            if other == run_id:
                yield run_id


class _Listed:
    """The latest runs of those that have such IDs."""

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._read: dict[str, Run | RegistryUnreadable] = {}
        self.ids: list[str] = []
        self.more = False
        self.unread = 0

    async def find(self, ids: AsyncGenerator[str, None], limit: int, after: float | None) -> None:
        """Sort IDs by time, as far as it can be told, and read the records to be shown."""
        ours: list[str] = []
        others: list[str] = []
        async with aclosing(ids):
            async for run_id in ids:
                (others if time_in_run_id(run_id) is None else ours).append(run_id)
                if len(ours) + len(others) >= _IDS_MAX:
                    break
        self.unread = max(0, len(others) - LISTED_MAX)
        others = others[:LISTED_MAX]
        await self._read_all(others)
        times = {run_id: time_in_run_id(run_id) or self._time(run_id) for run_id in ours + others}
        chosen = [each for each in times if after is None or times[each] >= after]
        chosen.sort(key=lambda run_id: (times[run_id], run_id), reverse=True)
        self.more = len(chosen) > limit
        self.ids = chosen[:limit]
        await self._read_all([each for each in self.ids if each not in self._read])

    def rows(self) -> list[dict[str, Any]]:
        """Give what is known of each run, in order; of an unreadable one, the error."""
        return [self._row(run_id) for run_id in self.ids if run_id in self._read]

    def _row(self, run_id: str) -> dict[str, Any]:
        run = self._read[run_id]
        return run.to_json() if isinstance(run, Run) else {"run_id": run_id, "error": run.to_json()}

    def _time(self, run_id: str) -> float:
        run = self._read.get(run_id)
        return run.happened_at() if isinstance(run, Run) else 0.0

    async def _read_all(self, run_ids: list[str]) -> None:
        async def read(run_id: str) -> Run | RegistryUnreadable | None:
            try:
                return await self._runs.find(run_id)
            except RegistryUnreadable as error:
                return error

        for start in range(0, len(run_ids), 1000):
            some = run_ids[start : start + 1000]
            found = await side_by_side([partial(read, run_id) for run_id in some])
            known = zip(some, found, strict=True)
            self._read |= {run_id: run for run_id, run in known if run is not None}


def _print(context: Context, listed: _Listed) -> None:
    output, rows = context.output, listed.rows()
    if output.as_json:
        output.print_json({"runs": rows, "more": listed.more, "unread": listed.unread})
        return
    good = [each for each in rows if "error" not in each]
    columns = ("RUN", "STARTED", "COMMIT", "DATA", "OUTPUTS", "EXIT", "METRICS")
    output.table(columns, [_cells(each) for each in good])
    for each in rows:
        if "error" in each:
            output.note(f"{each['run_id']}: {each['error']['message']}")
    if listed.more:
        output.note(f"there are more than {len(rows)}; show more with --limit")
    if listed.unread:
        output.note(f"{listed.unread} runs were not looked at, for there are too many")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    uses = [
        ",".join(each.get("reference") or each["snapshot_id"][:12] for each in row.get(name, []))
        for name in ("data", "outputs")
    ]
    code = row.get("code", {})
    commit = code.get("commit", "-")[:12] + ("+" if code.get("dirty") else "")
    metrics = ", ".join(
        f"{name}={_short(value)}"
        for name, value in row.get("metrics", {}).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    )
    started = (row.get("started_at") or row["at"])[:19] + "Z"
    exit_status = str(row.get("exit_status", "-"))
    return (row["run_id"], started, commit, *(each or "-" for each in uses), exit_status, metrics)


def _short(number: float) -> str:
    try:
        return f"{number:.6g}"
    except OverflowError:
        # A whole number of JSON may be of any size.
        return f"{str(number)[:6]}... ({len(str(number))} digits)"


def _since(text: str) -> float:
    if text[-1:].isalpha() and text[:1].isdecimal() and "T" not in text:
        import time

        now = time.time()  # noqa: TID251 - the clock that the duration counts back from
        return now - parse_duration_seconds(text)
    try:
        return parse_moment(text)
    except UsageError as error:
        raise UsageError(
            f"--since: {error.message}", hint="Write 2026-03-01T00:00:00Z, or 90m, 12h, 7d."
        ) from error
