"""`snapctl ancestors`."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import click

from snapctl.catalog import read_stores
from snapctl.context import Context
from snapctl.frame import config_option, id_option, verb
from snapctl.querying import QueryFlags, print_lines, query_options
from snapctl.references import resolve_here
from snapd.model.pushes import Push, ancestor_line, location_text, united
from snapd.registry.pushes import Pushes


@verb(
    "ancestors",
    examples=[
        "snapctl ancestors --id ID --store s3://datasets/imagenet",
        "snapctl ancestors --id imagenet@v1.2.0 --location s3://datasets/imagenet",
    ],
)
@id_option()
@click.option("--location", metavar="STORE|DIR", help="Only what was the newest at this location.")
@query_options
@config_option
def command(context: Context, snapshot_id: str, location: str | None, **flags: Any) -> None:
    """List what was the newest at a location before a snapshot came there, one JSON line each.

    `id` is the snapshot before, `created_at` when ID came. `snapctl lineage` goes further back, and
    by what a snapshot was made from.
    """
    asked = QueryFlags.of(context, **flags)
    if asked.is_off(context):
        return
    wanted = resolve_here(context, snapshot_id, asked.store or None)
    where = None if location is None else location_text(location)

    def is_asked_for(push: Push) -> bool:
        has_place = where is None or push.location == where
        return has_place and push.snapshot_id == wanted and push.previous_id is not None

    async def read(pushes: Pushes) -> list[Push]:
        found: list[Push] = []
        async with aclosing(pushes.of(wanted)) as walk:
            async for push in walk:
                found += [push] if is_asked_for(push) else []
                if len(found) > asked.limit:
                    break
        return found

    stores = [asked.store] if asked.store else []
    here = filter(is_asked_for, asked.recorded_here(context))
    found = united(read_stores(context, stores, read), here)
    print_lines(context, "ancestors", found, ancestor_line, asked.limit)
