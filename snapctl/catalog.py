"""The two records of what was pushed: the store's, which everybody reads, and this user's own.

A record is a help and no promise: whatever goes wrong with it is said in one line on stderr, and
what was to be recorded is done all the same.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import anyio
import click

from snapctl.context import Context
from snapctl.frame import Decorated
from snapctl.own_state import own_state
from snapctl.registering import author_of
from snapctl.stores import with_store
from snapd.disk.catalog import OwnRecord
from snapd.disk.pushed import PushedSnapshots
from snapd.disk.walk import absolute_root
from snapd.model.errors import SnapsyncError
from snapd.model.ids import SnapshotId
from snapd.model.names import parse_name
from snapd.model.pushes import LOCATION_MAX_CHARACTERS, location_text
from snapd.model.units import format_duration
from snapd.model.uris import parse_store_uri
from snapd.registry.documents import Documents
from snapd.registry.pushes import Pushes
from snapd.remote.base import RemoteStore

T = TypeVar("T")

_OFF = ("", "none")
_MARK_BYTES = 4
_PATIENCE_SECONDS = 30.0
"""Nobody waits longer than this for a push that is done to be recorded."""
DISABLED = "catalog disabled (--catalog none): nothing to query"
"""What `snapdir` says when asked for what it was told not to keep."""


def catalog_option(decorated: Decorated) -> Decorated:
    """Add `--catalog NAME|FILE`, for which SNAPSYNC_CATALOG stands in, called `catalog`."""
    return click.option(
        "--catalog",
        metavar="NAME|FILE",
        help="Which record of your own; none: no record at all.  [env: SNAPSYNC_CATALOG]",
    )(decorated)


@dataclass(frozen=True, slots=True)
class Catalog:
    """Where is recorded; `is_off`: nowhere, not in the store either; `path` None: not here."""

    is_off: bool
    path: Path | None

    @classmethod
    def chosen(cls, context: Context, option: str | None, *, default: str = "default") -> Catalog:
        """Read the option, else the variable; with neither it is the one called `default`.

        `none` and an empty word switch it off; what has a slash is a file; another word is the name
        of a record in the user's own directory for state. Raises `InvalidName`.
        """
        word = context.environment.get("SNAPSYNC_CATALOG", default) if option is None else option
        if word in _OFF:
            return cls(is_off=True, path=None)
        if "/" in word:
            return cls(is_off=False, path=Path(word).absolute())
        directory = own_state(context.environment)
        name = f"{parse_name(word)}.jsonl"
        return cls(is_off=False, path=None if directory is None else directory / "catalog" / name)


@dataclass(frozen=True, slots=True)
class PushRecord:
    """What is to be recorded of a push when it is done."""

    catalog: Catalog
    location: str
    by: str
    parent_id: SnapshotId | None

    @classmethod
    def of(
        cls,
        catalog: Catalog,
        store: str,
        by: str,
        *,
        named_parent: SnapshotId | None,
        source: tuple[Path | None, Path],
    ) -> PushRecord:
        """Note before a push what comes before it.

        That is the parent that was named, else the snapshot that was pushed last from the same
        directory to this store: `source` says where that is remembered, and the directory.
        """
        parent_id = named_parent
        remembered_in, directory = source
        if parent_id is None and remembered_in is not None and not catalog.is_off:
            pushed = PushedSnapshots(remembered_in)
            remembered = pushed.last(absolute_root(directory), str(parse_store_uri(store)))
            parent_id = None if remembered is None else remembered.snapshot_id
        return cls(catalog, location_text(store), by, parent_id)

    async def write(self, context: Context, store: RemoteStore, snapshot_id: SnapshotId) -> None:
        """Record the push in its store and in the user's own record."""
        if self.catalog.is_off:
            return
        now_ms, at_ms = _now_ms(), None
        try:
            with anyio.fail_after(_PATIENCE_SECONDS):
                added = await Pushes(Documents(store)).add(
                    self.location,
                    snapshot_id,
                    now_ms=now_ms,
                    by=self.by,
                    mark=secrets.token_hex(_MARK_BYTES),
                    parent_id=self.parent_id,
                )
            at_ms = None if added is None else added.at_ms
        except SnapsyncError as error:
            context.output.note(f"the push is done, but not recorded in the store: {error.message}")
        except TimeoutError:
            waited = format_duration(_PATIENCE_SECONDS)
            context.output.note(f"the push is done, but not recorded in the store within {waited}")
        record_here(context, self.catalog, self.location, snapshot_id, self.by, at_ms=at_ms)


def record_here(
    context: Context,
    catalog: Catalog,
    location: str,
    snapshot_id: SnapshotId,
    by: str,
    *,
    at_ms: int | None = None,
) -> None:
    """Record in the user's own record what is at a location now, or since the time of a push."""
    if catalog.path is None:
        return
    location = location_text(location)[:LOCATION_MAX_CHARACTERS]
    try:
        now_ms = _now_ms() if at_ms is None else at_ms
        keep_time = at_ms is not None
        OwnRecord(catalog.path).add(
            location, snapshot_id, now_ms=now_ms, by=by, keep_time=keep_time
        )
    except SnapsyncError as error:
        context.output.note(f"not recorded here: {error.message}")


def record_directory(
    context: Context, catalog: Catalog, path: str, snapshot_id: SnapshotId
) -> None:
    """Record in the user's own record what is in a directory now."""
    location = absolute_root(Path(path))
    by = author_of(context.environment.get("SNAPSYNC_BY"), "").by
    record_here(context, catalog, location, snapshot_id, by)


def read_stores(
    context: Context,
    stores: list[str],
    read: Callable[[Pushes], Coroutine[Any, Any, list[T]]],
) -> list[T]:
    """Ask the records of stores; one that can't be read is named on stderr and passed over."""
    found: list[T] = []
    for store in dict.fromkeys(stores):

        async def ask(opened: RemoteStore) -> list[T]:
            return await read(Pushes(Documents(opened)))

        try:
            found += with_store(context, store, ask)
        except SnapsyncError as error:
            context.output.note(f"the record in {store} can't be read: {error.message}")
    return found


def _now_ms() -> int:
    return round(time.time() * 1000)  # noqa: TID251 - the clock that the record is dated by
