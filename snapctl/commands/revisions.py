"""`snapctl revisions`."""

from __future__ import annotations

from contextlib import aclosing, suppress
from typing import Any

import click

from snapctl.catalog import read_stores
from snapctl.context import Context
from snapctl.frame import config_option, verb
from snapctl.querying import QueryFlags, print_lines, query_options
from snapd.model.errors import InvalidStoreUri, UsageError
from snapd.model.pushes import Push, location_text, revision_line, united, without_repeats
from snapd.model.uris import parse_store_uri
from snapd.registry.pushes import Pushes


@verb(
    "revisions",
    examples=[
        "snapctl revisions --store s3://datasets/imagenet",
        "snapctl revisions --location /data/imagenet",
        "snapctl revisions --store s3://datasets/imagenet --limit 1 --json",
    ],
)
@click.option(
    "--location", metavar="STORE|DIR", help="A store as it was named, or the path of a directory."
)
@query_options
@config_option
def command(context: Context, location: str | None, **flags: Any) -> None:
    """List the snapshots that came to a location, the newest first, one JSON line each.

    Every push is recorded in its store, and in a record of your own; both are read. Without
    --location it is the store of --store. A record of directories is kept by `snapctl manifest
    --catalog`. `previous_id` is what was the newest before.
    """
    asked = QueryFlags.of(context, **flags)
    if location is None and not asked.store:
        raise UsageError("missing --location option", hint="Or name a store with --store.")
    where = location_text(location if location is not None else asked.store)
    if asked.is_off(context):
        return

    async def read(pushes: Pushes) -> list[Push]:
        found: list[Push] = []
        async with aclosing(pushes.to(where)) as walk:
            async for push in walk:
                found.append(push)
                if len(found) > asked.limit:
                    break
        return found

    stores = [asked.store] if asked.store else []
    with suppress(InvalidStoreUri):
        stores.append(str(parse_store_uri(where)))
    here = [push for push in asked.recorded_here(context) if push.location == where]
    found = without_repeats(united(read_stores(context, stores, read), here))
    print_lines(context, "revisions", found, revision_line, asked.limit)
