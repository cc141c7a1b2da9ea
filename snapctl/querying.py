"""What `ancestors`, `revisions` and `locations` share: options, the own record, lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import click

from snapctl.catalog import DISABLED, Catalog, catalog_option
from snapctl.context import Context
from snapctl.frame import Decorated, store_option
from snapd.disk.catalog import OwnRecord
from snapd.model.errors import SnapsyncError
from snapd.model.pushes import Push

_LIMIT = 100_000


def query_options(decorated: Decorated) -> Decorated:
    """Add `--store`, `--catalog` and `--limit`; together they make up `QueryFlags`."""
    decorated = click.option(
        "--limit",
        type=click.IntRange(1, _LIMIT),
        default=_LIMIT,
        show_default=True,
        help="Show at most so many.",
    )(decorated)
    return store_option(required=False)(catalog_option(decorated))


@dataclass(frozen=True, slots=True)
class QueryFlags:
    """The options as they were typed."""

    store: str
    catalog: Catalog
    limit: int

    @classmethod
    def of(cls, context: Context, store: str | None, catalog: str | None, limit: int) -> QueryFlags:
        """Read them; raises `InvalidName` for a catalog that can't be called so."""
        return cls(store or "", Catalog.chosen(context, catalog), limit)

    def is_off(self, context: Context) -> bool:
        """Tell whether nothing is to be asked, which is said as `snapdir` says it."""
        if self.catalog.is_off:
            context.output.note(DISABLED)
        return self.catalog.is_off

    def recorded_here(self, context: Context) -> list[Push]:
        """Read the own record; one that can't be read is named on stderr and passed over."""
        return own_pushes(context, self.catalog)


def own_pushes(context: Context, catalog: Catalog) -> list[Push]:
    """Read an own record, the latest first; one that can't be read is named on stderr."""
    if catalog.path is None:
        return []
    try:
        return OwnRecord(catalog.path).pushes()
    except SnapsyncError as error:
        context.output.note(f"your own record can't be read: {error.message}")
        return []


def print_lines(
    context: Context, name: str, found: Sequence[Push], line: Callable[[Push], str], limit: int
) -> None:
    """Print one line a push, or with --json all of them in one document."""
    lines = [line(push) for push in found[:limit]]
    if context.output.as_json:
        more = len(found) > limit
        context.output.print_json({name: [json.loads(each) for each in lines], "more": more})
        return
    for each in lines:
        context.output.line(each)
    if len(found) > limit:
        context.output.note(f"there are more than {limit}; show more with --limit")
