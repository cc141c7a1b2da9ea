"""`snapctl locations`."""

from __future__ import annotations

from typing import Any

from snapctl.catalog import read_stores
from snapctl.context import Context
from snapctl.frame import config_option, verb
from snapctl.querying import QueryFlags, print_lines, query_options
from snapd.model.pushes import Push, location_line, newest_of_each, united
from snapd.registry.pushes import LOCATIONS_MAX, Pushes


@verb(
    "locations",
    examples=["snapctl locations", "snapctl locations --store s3://datasets/imagenet --json"],
)
@query_options
@config_option
def command(context: Context, **flags: Any) -> None:
    """List where snapshots were pushed to or hashed, with the newest of each, one JSON line each.

    It is what your own record tells and, with --store, the record in that store.
    """
    asked = QueryFlags.of(context, **flags)
    if asked.is_off(context):
        return

    async def read(pushes: Pushes) -> list[Push]:
        heads, more = await pushes.heads()
        if more:
            context.output.note(f"the store has more than {LOCATIONS_MAX} locations")
        return heads

    stores = [asked.store] if asked.store else []
    found = newest_of_each(united(read_stores(context, stores, read), asked.recorded_here(context)))
    print_lines(context, "locations", found, location_line, asked.limit)
