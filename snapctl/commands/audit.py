"""`snapctl audit`."""

from __future__ import annotations

import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import click

from snapctl.context import Context
from snapctl.frame import config_option, store_option, verb
from snapctl.registering import one_line, with_registry
from snapd.model.datasets import version_not_found
from snapd.model.errors import InvalidReference, NothingThen, RegistryUnreadable
from snapd.model.lineage import Names
from snapd.model.model_history import Event
from snapd.model.models import Model, ModelVersion
from snapd.model.receipts import format_moment
from snapd.model.references import Reference, parse_reference
from snapd.model.run_parts import Use
from snapd.model.runs import Run
from snapd.model.stage_history import StageHistory, Stood, Then, parse_time
from snapd.model.versions import parse_version
from snapd.registry.lineage import read_names
from snapd.registry.names import Registry
from snapd.registry.runs import Runs


@dataclass(frozen=True, slots=True)
class _Answer:
    """A version that stood there, and the run that made it, or why that can't be told."""

    stood: Stood
    version: ModelVersion
    run: Run | None
    problem: str
    names: Names


@verb(
    "audit",
    examples=[
        "snapctl audit iris_clf@production --at 2026-03-01T09:00:00Z --store s3://models/prod",
        "snapctl audit iris_clf@production --at '2026-03-01 09:00+01:00' --json",
        "snapctl audit iris_clf@champion",
    ],
)
@click.argument("reference", metavar="NAME@STAGE|NAME@ALIAS")
@click.option(
    "--at",
    "moment",
    metavar="TIME",
    help="2026-03-01T09:00:00Z, or with another zone; without one it is UTC.  [default: now]",
)
@store_option()
@config_option
def command(context: Context, reference: str, moment: str | None, store: str) -> None:
    """Tell which version of a model was in a stage at a time, and what it was made of.

    It is told from the model's history, which is only ever added to: who put the version there,
    when and why, until when it stayed; and from the run that made it: data, code, environment. Exit
    10 if nothing was there.
    """
    named = parse_reference(reference)
    if named.kind == "dataset" or not isinstance(named.selector, str):
        raise InvalidReference(
            f"{reference} names no stage of a model",
            hint=f"Say which: {named.name}@production. `snapctl model show` shows a version.",
        )
    at, has_zone = _read_moment(moment)
    if not has_zone:
        context.output.note(f"no zone is given: {format_moment(at)} is meant, in UTC")

    async def look(registry: Registry) -> tuple[Model, list[_Answer]]:
        model = await registry.model(named.name)
        then = await _read_history(registry, model, named, at)
        if not then.stood:
            raise _nothing(model, named, at, then)
        names = await read_names(registry)
        return model, [await _answer(registry, model, names, stood) for stood in then.stood]

    model, answers = with_registry(context, store, look)
    if context.output.as_json:
        documents = [_to_json(each) for each in answers]
        context.output.print_json(
            {"reference": str(named), "at": format_moment(at), "store": store, "found": documents}
        )
        return
    for number, answer in enumerate(answers):
        if number:
            context.output.line("")
        _print(context, model, answer)


def _read_moment(text: str | None) -> tuple[float, bool]:
    if text is None or text.strip().lower() == "now":
        return time.time(), True  # noqa: TID251 - what is asked about is now
    return parse_time(text)


async def _read_history(registry: Registry, model: Model, named: Reference, at: float) -> Then:
    selector = str(named.selector)
    is_alias = selector not in model.stages
    history = StageHistory(selector, at, is_alias=is_alias)
    aliases = set(model.aliases)
    async with aclosing(registry.history(model)) as events:
        async for event in events:
            history.take(event)
            aliases |= {event.alias} if event.alias else set()
    if is_alias and selector not in aliases:
        raise version_not_found(model.name, selector, [*model.stages, *sorted(aliases)])
    return history.then()


def _nothing(model: Model, named: Reference, at: float, then: Then) -> NothingThen:
    when = format_moment(at)
    if then.first is None:
        said = "it has no history"
    elif at < _moment(then.first):
        said = f"its history begins at {then.first.at}"
    else:
        said = f"no version was in {named.selector} then"
        if str(named.selector) not in model.stages:
            said = f"{named.selector} led to no version then"
    return NothingThen(
        f"{model.name} at {when}: {said}",
        name=model.name,
        at=when,
        history_begins=None if then.first is None else then.first.at,
    )


def _moment(event: Event) -> float:
    return parse_time(event.at)[0]


async def _answer(registry: Registry, model: Model, names: Names, stood: Stood) -> _Answer:
    version = model.find(parse_version(stood.version))
    if not version.run:
        return _Answer(stood, version, None, "no run was named when it was added", names)
    try:
        run = await Runs(registry).find(version.run)
    except RegistryUnreadable as error:
        return _Answer(stood, version, None, error.message, names)
    problem = "" if run else f"run {version.run} was never recorded"
    return _Answer(stood, version, run, problem, names)


def _to_json(answer: _Answer) -> dict[str, Any]:
    until = answer.stood.until
    version = answer.version.to_json()
    # Where it stands now is no part of the answer.
    for unasked in ("stage", "moved", "produced", "withdrawn"):
        version.pop(unasked, None)
    return {
        "version": answer.version.version,
        "snapshot_id": answer.version.snapshot_id,
        "since": answer.stood.since.to_json(),
        "until": None if until is None else until.to_json(),
        "added": version,
        "run": None if answer.run is None else answer.run.to_json(),
        "data": [
            {"snapshot_id": each.snapshot_id, "called": _called(answer, each) or None}
            for each in (answer.run.data if answer.run else ())
        ],
        "run_problem": answer.problem or None,
    }


def _print(context: Context, model: Model, answer: _Answer) -> None:
    version, since, until = answer.version, answer.stood.since, answer.stood.until
    lines = [
        ("version", f"{model.name}@{version.version}"),
        ("snapshot", version.snapshot_id),
        ("since", f"{since.at} by {since.by} ({since.action})"),
        ("why", one_line(since.note)),
        ("until", f"{until.at} by {until.by} ({until.action})" if until else "now"),
        ("because", one_line(until.note) if until else ""),
        ("added", f"{version.at} by {version.by}"),
        ("deprecated", f"{version.deprecated.at}" if version.deprecated else ""),
        *((f"metric {name}", str(value)) for name, value in version.metrics.items()),
        *((f"param {name}", str(value)) for name, value in version.parameters.items()),
        *_run_lines(answer),
    ]
    shown = [(name, value) for name, value in lines if value]
    width = max(len(name) for name, _ in shown) + 2
    for name, value in shown:
        context.output.line(f"{name:<{width}}{value}")


def _called(answer: _Answer, use: Use) -> str:
    """Name a run's data as the record does, else as the store's datasets and models do now."""
    return use.reference or ", ".join(each.title for each in answer.names.of(use.snapshot_id))


def _run_lines(answer: _Answer) -> list[tuple[str, str]]:
    run = answer.run
    if run is None:
        return [("run", f"unknown: {answer.problem}")]
    lines = [("run", f"{run.run_id}, {run.started_at or run.at}")]
    lines += [("data", f"{_called(answer, each)} {each.snapshot_id}".strip()) for each in run.data]
    if run.code is not None:
        state = {True: ", with changes that were not committed", False: "", None: ""}
        lines.append(("code", f"{run.code.commit}{state[run.code.dirty]}"))
        lines.append(("repository", run.code.repository or ""))
    environment = {**run.environment.to_json(), **run.environment.extra}
    environment.pop("extra", None)
    lines += [(f"env {name}", one_line(str(value))) for name, value in environment.items()]
    return [*lines, ("seed", "" if run.seed is None else str(run.seed)), ("host", run.host or "")]
