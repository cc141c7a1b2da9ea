"""`snapctl model promote`, `rollback`, `archive`, `deprecate` and `alias`: one write each."""

from __future__ import annotations

from collections.abc import Callable

import click

from snapctl.context import Context
from snapctl.frame import config_option, store_option, verb
from snapctl.registering import author_of, author_options, with_registry
from snapd.model import stages
from snapd.model.errors import UsageError
from snapd.model.models import Model, ModelVersion
from snapd.model.references import Reference, parse_name_or_reference
from snapd.model.registry import Author
from snapd.model.versions import Version, parse_version
from snapd.registry.names import Registry

_REFERENCE = "NAME@VERSION|@STAGE|@ALIAS"


@verb(
    "promote",
    examples=[
        "snapctl model promote iris_clf@v0.2.0 --store s3://models/prod",
        "snapctl model promote iris_clf@v0.2.0 --to production --note 'passed review'",
        "snapctl model promote iris_clf@staging --to production --by ann@example.org",
    ],
)
@click.argument("reference", metavar=_REFERENCE)
@click.option("--to", "stage", metavar="STAGE", default="", help="The next stage if not given.")
@store_option()
@author_options
@config_option
def promote(
    context: Context, reference: str, stage: str, store: str, by: str | None, note: str
) -> None:
    """Promote a version to the next stage, or move it to a named one.

    What is in production then is archived by the same write, so that there is one at any time.
    Nodes that follow the reference switch by themselves.
    """

    def rule(model: Model, selector: Version | str, author: Author) -> Model:
        return stages.move(model, selector, stage, author)

    _print_moved(context, *_change_version(context, store, reference, by, note, rule))


@verb(
    "rollback",
    examples=[
        "snapctl model rollback iris_clf --note 'accuracy fell' --store s3://models/prod",
        "snapctl model rollback iris_clf --to v0.1.0",
    ],
)
@click.argument("name")
@click.option("--to", "to", metavar="VERSION", help="Another version than the one before.")
@store_option()
@author_options
@config_option
def rollback(
    context: Context, name: str, to: str | None, store: str, by: str | None, note: str
) -> None:
    """Put the version that was in production before back there, and archive the present one.

    Versions that were themselves rolled back, archived by hand or deprecated are passed over.
    """
    named = parse_name_or_reference(name, "model")
    if isinstance(named, Reference):
        raise UsageError(
            f"a rollback takes the model's name: {named.name}", hint="Say with --to where to."
        )
    version = None if to is None else parse_version(to)
    author = author_of(by, note)
    model = _change(
        context, store, named, lambda model: stages.roll_back(model, version, author), author
    )
    _print_moved(context, model, author, model.production)


@verb("archive", examples=["snapctl model archive iris_clf@v0.1.0 --note 'superseded'"])
@click.argument("reference", metavar=_REFERENCE)
@store_option()
@author_options
@config_option
def archive(context: Context, reference: str, store: str, by: str | None, note: str) -> None:
    """Archive a version. If it is in production, nothing is there until the next promotion."""

    def rule(model: Model, selector: Version | str, author: Author) -> Model:
        return stages.move(model, selector, model.archive, author)

    _print_moved(context, *_change_version(context, store, reference, by, note, rule))


@verb("deprecate", examples=["snapctl model deprecate iris_clf@v0.1.0 --note 'licence of data'"])
@click.argument("reference", metavar=_REFERENCE)
@store_option()
@author_options
@config_option
def deprecate(context: Context, reference: str, store: str, by: str | None, note: str) -> None:
    """Say that a version should not be used any more. It can't be promoted then; that stays."""
    model, author, selector = _change_version(context, store, reference, by, note, stages.deprecate)
    changed = _changed(model, author) or model.find(selector)
    if context.output.as_json:
        context.output.print_json({"name": model.name, **changed.to_json()})
    else:
        context.output.line(f"{model.name}@{changed.version} is deprecated")


@verb(
    "alias",
    examples=[
        "snapctl model alias iris_clf@v0.2.0 champion --store s3://models/prod",
        "snapctl model alias iris_clf champion --remove",
    ],
)
@click.argument("reference", metavar=f"NAME|{_REFERENCE}")
@click.argument("alias")
@click.option("--remove", is_flag=True, help="Take the alias away.")
@store_option()
@author_options
@config_option
def alias(
    context: Context,
    reference: str,
    alias: str,
    remove: bool,
    store: str,
    by: str | None,
    note: str,
) -> None:
    """Let an alias lead to a version, whatever it led to before."""
    author = author_of(by, note)
    named = parse_name_or_reference(reference, "model")
    if remove:
        name = named.name if isinstance(named, Reference) else named

        def rule(model: Model) -> Model:
            return stages.remove_alias(model, alias, author)
    else:
        chosen = _reference(reference)
        name = chosen.name

        def rule(model: Model) -> Model:
            return stages.set_alias(model, alias, chosen.selector, author)

    model = _change(context, store, name, rule, author)
    version = model.aliases.get(alias)
    if context.output.as_json:
        context.output.print_json({"name": name, "alias": alias, "version": version})
    elif version is None:
        context.output.line(f"{name}@{alias} is no more")
    else:
        context.output.line(f"{name}@{alias} is {version}")


def _reference(text: str) -> Reference:
    named = parse_name_or_reference(text, "model")
    if isinstance(named, str):
        raise UsageError(f"{named} has versions: say which, as {named}@v1.2.0 or {named}@staging")
    return named


def _change_version(
    context: Context,
    store: str,
    reference: str,
    by: str | None,
    note: str,
    rule: Callable[[Model, Version | str, Author], Model],
) -> tuple[Model, Author, Version | str]:
    """Change the version that a reference names; gives it back with who did it and the selector."""
    named = _reference(reference)
    author = author_of(by, note)
    model = _change(
        context, store, named.name, lambda model: rule(model, named.selector, author), author
    )
    return model, author, named.selector


def _change(
    context: Context, store: str, name: str, rule: Callable[[Model], Model], author: Author
) -> Model:
    async def change(registry: Registry) -> Model:
        return await registry.change_model(name, rule, author)

    return with_registry(context, store, change)


def _changed(model: Model, author: Author) -> ModelVersion | None:
    """Find the version that the change was about: its last event names it."""
    events = [event for event in model.history if event.change == author.token]
    return model.find(parse_version(events[-1].version)) if events else None


def _print_moved(context: Context, model: Model, author: Author, selector: Version | str) -> None:
    changed = _changed(model, author)
    moved = changed or model.find(selector)
    events = [event for event in model.history if event.change == author.token]
    replaced = next((event.version for event in events if event.version != moved.version), None)
    if context.output.as_json:
        document = {
            "name": model.name,
            "version": moved.version,
            "stage": moved.stage,
            "snapshot_id": moved.snapshot_id,
            "changed": changed is not None,
            "archived": replaced,
        }
        context.output.print_json(document)
        return
    if changed is None:
        context.output.note("nothing to change")
    context.output.line(f"{model.name}@{moved.version} is in {moved.stage}")
    if replaced:
        context.output.line(f"{model.name}@{replaced} is in {model.archive}")
