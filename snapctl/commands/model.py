"""`snapctl model`: what it lists and shows; `model_adding` and `model_moving` change it."""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from typing import Any

import click

from snapctl.commands.model_adding import add
from snapctl.commands.model_moving import alias, archive, deprecate, promote, rollback
from snapctl.context import Context
from snapctl.frame import config_option, store_option, verb
from snapctl.registering import (
    VerbGroup,
    limit_option,
    listed,
    one_line,
    print_listed,
    with_registry,
)
from snapd.model.model_history import Event
from snapd.model.models import Model, ModelVersion
from snapd.model.references import Reference, parse_name_or_reference
from snapd.model.stages import summary
from snapd.registry.names import Registry


@click.group(
    "model",
    cls=VerbGroup,
    examples=[
        "snapctl model add iris_clf@v0.2.0 --id ID --store s3://models/prod",
        "snapctl model promote iris_clf@v0.2.0 --to production --note 'passed review'",
        "snapctl model rollback iris_clf --note 'accuracy fell'",
    ],
)
def command() -> None:
    """Give snapshots names: versions of models, their stages and their history."""


@verb(
    "show",
    examples=[
        "snapctl model show iris_clf --store s3://models/prod",
        "snapctl model show iris_clf@production --json",
    ],
)
@click.argument("reference", metavar="NAME[@VERSION|@STAGE|@ALIAS]")
@store_option()
@config_option
def show(context: Context, reference: str, store: str) -> None:
    """Show the versions of a model and where each stands, or all that is known of one."""
    named = parse_name_or_reference(reference, "model")
    name = named.name if isinstance(named, Reference) else named
    model = with_registry(context, store, partial(Registry.model, name=name))
    if isinstance(named, Reference):
        _print_version(context, model, model.find(named.selector))
    else:
        _print_model(context, model)


def _print_model(context: Context, model: Model) -> None:
    if context.output.as_json:
        document = model.to_json()
        for unshown in ("schema", "history", "archived"):
            del document[unshown]
        context.output.print_json(document | {"production": summary(model)["production"]})
        return
    aliases: dict[str, list[str]] = {}
    for name, version in model.aliases.items():
        aliases.setdefault(version, []).append(name)
    columns = ("VERSION", "STAGE", "ALIASES", "SNAPSHOT", "AT", "BY", "NOTE")
    rows = [
        (
            each.version,
            each.stage,
            ",".join(aliases.get(each.version, [])) or "-",
            each.snapshot_id,
            _short(each.at),
            each.by,
            _note(each),
        )
        for each in model.versions
    ]
    context.output.table(columns, rows)


def _note(version: ModelVersion) -> str:
    note = one_line(version.note)
    if version.deprecated is None:
        return note
    return f"DEPRECATED {one_line(version.deprecated.note)} ({note})".replace(" ()", "")


def _print_version(context: Context, model: Model, found: ModelVersion) -> None:
    aliases = [name for name, version in model.aliases.items() if version == found.version]
    if context.output.as_json:
        context.output.print_json({"name": model.name, **found.to_json(), "aliases": aliases})
        return
    lines: list[tuple[str, str]] = [
        ("version", f"{model.name}@{found.version}"),
        ("stage", found.stage),
        ("aliases", ", ".join(aliases)),
        ("snapshot", found.snapshot_id),
        ("run", found.run),
        ("added", f"{_short(found.at)} by {found.by}"),
        ("note", _note(found)),
        *((f"metric {name}", str(value)) for name, value in found.metrics.items()),
        *((f"param {name}", str(value)) for name, value in found.parameters.items()),
    ]
    shown = [(name, value) for name, value in lines if value]
    width = max(len(name) for name, _ in shown) + 2
    for name, value in shown:
        context.output.line(f"{name:<{width}}{value}")
    if found.card:
        context.output.line("")
        context.output.line(found.card.rstrip("\n"))


@verb("ls", examples=["snapctl model ls --store s3://models/prod --json"])
@store_option()
@limit_option
@config_option
def ls(context: Context, store: str, limit: int) -> None:
    """List the models of a store, and what of each is in production."""

    async def describe(registry: Registry, name: str) -> dict[str, Any]:
        return summary(await registry.model(name))

    print_listed(
        context,
        "model",
        listed(context, store, "model", limit, describe),
        ("NAME", "VERSIONS", "PRODUCTION", "CHANGED"),
        lambda row: (
            row["name"],
            str(row["versions"]),
            row["production"] or "-",
            _short(row["changed_at"] or "-"),
        ),
    )


@verb(
    "history",
    examples=[
        "snapctl model history iris_clf --store s3://models/prod",
        "snapctl model history iris_clf --limit 20 --json",
    ],
)
@click.argument("name")
@store_option()
@limit_option
@config_option
def history(context: Context, name: str, store: str, limit: int) -> None:
    """Tell what happened to a model, the latest first: when, who, from where to where, why."""
    named = parse_name_or_reference(name, "model")
    wanted = named.name if isinstance(named, Reference) else named

    async def read(registry: Registry) -> tuple[list[Event], int]:
        model = await registry.model(wanted)
        found: list[Event] = []
        async with aclosing(registry.history(model)) as events:
            async for event in events:
                if isinstance(named, str) or event.version == model.find(named.selector).version:
                    found.append(event)
                if len(found) == limit:
                    break
        return found, model.last_number

    events, total = with_registry(context, store, read)
    if context.output.as_json:
        document = {"name": wanted, "events": [event.to_json() for event in events]}
        context.output.print_json(document)
        return
    rows = [
        (str(event.number), _short(event.at), event.by, _what(event), one_line(event.note))
        for event in events
    ]
    context.output.table(("#", "AT", "BY", "WHAT", "NOTE"), rows)
    if len(events) == limit and total > limit:
        context.output.note(f"{total} events in all; show more with --limit")


def _what(event: Event) -> str:
    if event.action == "alias":
        way = f"{event.from_ or 'nothing'} -> {event.to or 'nothing'}"
        return f"alias {event.alias}: {way}"
    if event.from_ and event.from_ != event.to:
        return f"{event.action} {event.version}: {event.from_} -> {event.to}"
    return f"{event.action} {event.version} in {event.to}"


def _short(moment: str) -> str:
    return f"{moment[:19]}Z" if len(moment) > 19 else moment


command.add_command(add)
command.add_command(show)
command.add_command(ls)
command.add_command(promote)
command.add_command(rollback)
command.add_command(archive)
command.add_command(deprecate)
command.add_command(alias)
command.add_command(history)
