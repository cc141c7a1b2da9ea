"""`snapctl dataset`."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from snapctl.context import Context
from snapctl.frame import config_option, id_option, store_option, verb
from snapctl.references import resolve_here
from snapctl.registering import (
    VerbGroup,
    author_of,
    author_options,
    certified,
    limit_option,
    listed,
    one_line,
    print_listed,
    with_registry,
)
from snapd.actions.publish import Certifier, publish_dataset
from snapd.model.datasets import Dataset, DatasetVersion
from snapd.model.references import (
    Reference,
    parse_name_or_reference,
    parse_version_reference,
)
from snapd.registry.names import Registry


@click.group(
    "dataset",
    cls=VerbGroup,
    examples=[
        "snapctl dataset add imagenet@v1.2.0 --id ID --store s3://datasets/imagenet",
        "snapctl dataset ls --store s3://datasets/imagenet",
    ],
)
def command() -> None:
    """Give snapshots names: versions of datasets, which never change."""


@verb(
    "add",
    examples=[
        "snapctl dataset add imagenet@v1.2.0 --id ID --store s3://datasets/imagenet",
        "snapctl dataset add imagenet@v1.2.0 --id ID --note 'labels of March' --deep",
    ],
)
@click.argument("version", metavar="NAME@VERSION")
@id_option()
@store_option()
@click.option("--deep", is_flag=True, help="Read and hash every object first, not only look.")
@author_options
@config_option
def add(
    context: Context,
    version: str,
    snapshot_id: str,
    store: str,
    deep: bool,
    by: str | None,
    note: str,
) -> None:
    """Publish a snapshot as a version of a dataset, which it is from then on for good.

    The snapshot has to be in the same store: its manifest intact, and all its objects there. NAME
    need not exist yet. Versions are semantic: v1.2.0.
    """
    name, number = parse_version_reference(version, "dataset")
    author = author_of(by, note)
    wanted = resolve_here(context, snapshot_id, store)

    async def publish(registry: Registry, certifier: Certifier) -> Dataset:
        return await publish_dataset(registry, name, number, wanted, author, certifier)

    dataset = certified(context, store, version, deep, publish)
    added = dataset.find(number)
    if context.output.as_json:
        context.output.print_json({"name": name, "store": store, **added.to_json()})
    else:
        context.output.line(f"{name}@{added.version} is {added.snapshot_id}")


@verb(
    "show",
    examples=[
        "snapctl dataset show imagenet --store s3://datasets/imagenet",
        "snapctl dataset show imagenet@v1.2.0 --json",
    ],
)
@click.argument("reference", metavar="NAME[@VERSION]")
@store_option()
@config_option
def show(context: Context, reference: str, store: str) -> None:
    """Show the versions of a dataset, or one of them."""
    named = parse_name_or_reference(reference, "dataset")
    name = named.name if isinstance(named, Reference) else named
    dataset = with_registry(context, store, partial(Registry.dataset, name=name))
    versions = list(dataset.versions)
    if isinstance(named, Reference):
        found = dataset.resolve(named)
        versions = [each for each in versions if each.version == found.version]
    if context.output.as_json:
        document = {"name": name, "versions": [each.to_json() for each in versions]}
        one = {"name": name, **versions[0].to_json()} if isinstance(named, Reference) else None
        context.output.print_json(one or document)
        return
    columns = ("VERSION", "SNAPSHOT", "AT", "BY", "NOTE")
    context.output.table(columns, [_row(each) for each in versions])


def _row(version: DatasetVersion) -> tuple[str, ...]:
    note = one_line(version.note)
    if version.deprecated:
        note = f"DEPRECATED {one_line(version.deprecated.note)} ({note})".replace(" ()", "")
    return version.version, version.snapshot_id, version.at[:19] + "Z", version.by, note


@verb("ls", examples=["snapctl dataset ls --store s3://datasets/imagenet --json"])
@store_option()
@limit_option
@config_option
def ls(context: Context, store: str, limit: int) -> None:
    """List the datasets of a store."""
    print_listed(
        context,
        "dataset",
        listed(context, store, "dataset", limit, _describe),
        ("NAME", "VERSIONS", "LATEST", "SNAPSHOT"),
        lambda row: (
            row["name"],
            str(row["versions"]),
            row["latest"] or "-",
            row["snapshot_id"] or "-",
        ),
    )


async def _describe(registry: Registry, name: str) -> dict[str, Any]:
    dataset = await registry.dataset(name)
    latest = dataset.latest()
    return {
        "name": name,
        "versions": len(dataset.versions),
        "latest": latest.version if latest else None,
        "snapshot_id": latest.snapshot_id if latest else None,
    }


@verb(
    "deprecate",
    examples=["snapctl dataset deprecate imagenet@v1.1.0 --note 'labels of class 7 are wrong'"],
)
@click.argument("version", metavar="NAME@VERSION")
@store_option()
@author_options
@config_option
def deprecate(context: Context, version: str, store: str, by: str | None, note: str) -> None:
    """Say that a version should not be used any more. It can still be pulled; that stays."""
    name, number = parse_version_reference(version, "dataset")
    author = author_of(by, note)

    async def change(registry: Registry) -> Dataset:
        return await registry.change_dataset(
            name, lambda dataset: dataset.deprecate(number, author), author
        )

    changed = with_registry(context, store, change).find(number)
    if context.output.as_json:
        context.output.print_json({"name": name, **changed.to_json()})
    else:
        context.output.line(f"{name}@{changed.version} is deprecated")


command.add_command(add)
command.add_command(show)
command.add_command(ls)
command.add_command(deprecate)
