"""Record a run in a store with the credentials of the caller."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from snapctl.context import Context
from snapctl.frame import Decorated
from snapctl.registering import author_of, certified
from snapd.actions.publish import Certifier
from snapd.actions.record import record_run
from snapd.model.errors import Interrupted, UsageError
from snapd.model.names import parse_name
from snapd.model.references import Resolved
from snapd.model.registry import Author
from snapd.model.runs import Run, new_run_id
from snapd.model.uris import parse_store_uri
from snapd.model.written_runs import Named, WrittenRun, read_named
from snapd.registry.names import Registry
from snapd.remote.base import RemoteStore
from snapd.remote.opening import open_store, settings_for
from snapd.runtime.observer import SilentObserver

if TYPE_CHECKING:
    from snapd.model.settings import Settings


def data_options(decorated: Decorated) -> Decorated:
    """Add `--data REF` and `--data-store URI`, called `data` and `data_store`."""
    decorated = click.option(
        "--data-store",
        metavar="URI",
        envvar="SNAPSYNC_DATA_STORE",
        help="The store that has the data, if not --store.  [env: SNAPSYNC_DATA_STORE]",
    )(decorated)
    return click.option(
        "--data",
        metavar="[NAME=]REF",
        multiple=True,
        help="A snapshot that the run used: an ID or a reference. May be repeated.",
    )(decorated)


def read_data(data: tuple[str, ...]) -> tuple[Named, ...]:
    """Read the options; raises `InvalidId` or `InvalidReference`."""
    return tuple(read_named(each, "--data") for each in data)


def in_data_store(data: tuple[Named, ...], data_store: str | None) -> tuple[Named, ...]:
    """Say of data without a store which one has it."""
    if not data_store:
        return data
    store = str(parse_store_uri(data_store))
    return tuple(replace(each, store=each.store or store) for each in data)


def chosen_run_id(wanted: str | None) -> str:
    """Check the ID that somebody wants, or make one that sorts by time."""
    if wanted:
        return parse_name(wanted)
    now = time.time()  # noqa: TID251 - the clock that the ID tells
    return new_run_id(now, secrets.token_hex(4))


def author_of_written(written: WrittenRun, by: str | None, note: str) -> tuple[WrittenRun, Author]:
    """Tell who records it: whom the options name, else whom the run names, else the user."""
    return written, author_of(by or written.by, note or written.note)


def record_here(
    context: Context, store: str, written: WrittenRun, run_id: str, author: Author, *, deep: bool
) -> Run:
    """Record a run and say where its references led; raises what `record_run` raises."""
    settings = context.settings()

    def say(resolved: Resolved) -> None:
        context.output.note(resolved.line())
        if resolved.deprecated is not None:
            why = f": {resolved.deprecated}" if resolved.deprecated else ""
            context.output.note(f"{resolved.name}@{resolved.version} is deprecated{why}")

    async def record(registry: Registry, certifier: Certifier) -> Run:
        return await record_run(
            registry,
            written,
            run_id,
            author,
            certifier,
            open_other=lambda uri: opened(uri, settings),
            on_resolved=say,
        )

    try:
        return certified(context, store, f"run {run_id}", deep, record)
    except Interrupted:
        raise Interrupted("interrupted: the run was not recorded") from None


@asynccontextmanager
async def opened(uri: str, settings: Settings) -> AsyncGenerator[RemoteStore]:
    """Open another store beside the one of the command."""
    parsed = parse_store_uri(uri)
    async with open_store(
        parsed, settings_for(parsed, settings.stores), settings.transfer, SilentObserver()
    ) as store:
        yield store


def refuse_events(context: Context) -> None:
    """Raise `UsageError` for `--events` where there are none."""
    if context.output.events:
        raise UsageError("there are no events here; --json prints one document")
