"""Record a run in a store with the credentials of the caller."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from snapctl.context import Context
from snapctl.frame import Decorated
from snapctl.in_use import Seen
from snapctl.own_state import own_state
from snapctl.receipts import find_receipt
from snapctl.registering import author_of, certified, with_registry
from snapd.actions.publish import Certifier
from snapd.actions.record import look_up, record_run
from snapd.model.errors import Interrupted, RunExists, SnapsyncError
from snapd.model.names import parse_name
from snapd.model.references import Reference, Resolved, parse_reference
from snapd.model.registry import Author
from snapd.model.runs import Run, new_run_id
from snapd.model.uris import parse_store_uri
from snapd.model.written_runs import Named, WrittenRun, read_named
from snapd.registry.names import Registry
from snapd.registry.runs import Runs
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

    async def record(registry: Registry, certifier: Certifier) -> Run:
        return await record_run(
            registry,
            written,
            run_id,
            author,
            certifier,
            open_other=lambda uri: opened(uri, settings),
            on_resolved=lambda resolved: say_resolved(context, resolved),
        )

    try:
        return certified(context, store, f"run {run_id}", deep, record)
    except Interrupted:
        raise Interrupted("interrupted: the run was not recorded") from None


def say_resolved(context: Context, resolved: Resolved) -> None:
    """Say on stderr where a reference led."""
    context.output.note(resolved.line())
    if resolved.deprecated is not None:
        why = f": {resolved.deprecated}" if resolved.deprecated else ""
        context.output.note(f"{resolved.name}@{resolved.version} is deprecated{why}")


@asynccontextmanager
async def opened(uri: str, settings: Settings) -> AsyncGenerator[RemoteStore]:
    """Open another store beside the one of the command."""
    parsed = parse_store_uri(uri)
    async with open_store(
        parsed, settings_for(parsed, settings.stores), settings.transfer, SilentObserver()
    ) as store:
        yield store


def look_first(
    context: Context, store: str, run_id: str, data: tuple[Named, ...], *, is_named: bool
) -> tuple[Named, ...]:
    """Find out before a run whether it can be recorded, and where its references lead now.

    Raises `RunExists` for an ID that is taken, and what keeps the store from being written to.
    """
    settings = context.settings()

    async def look(registry: Registry) -> tuple[Named, ...]:
        if is_named and (existing := await Runs(registry).find(run_id)) is not None:
            raise RunExists(
                f"{registry.store.uri} has a run {run_id} already, by {existing.by}", run_id=run_id
            )
        await registry.documents.check_writes()
        return await look_up(
            registry,
            data,
            open_other=lambda uri: opened(uri, settings),
            on_resolved=lambda resolved: say_resolved(context, resolved),
        )

    return with_registry(context, store, look)


def used_data(context: Context, seen: list[Seen]) -> tuple[Named, ...]:
    """Make data of what was seen in use; a receipt tells the store of what nobody named one for."""
    return tuple(
        Named(
            each.snapshot_id,
            _from_here(each.path),
            each.store,
            _reference(each.reference),
            is_proven=each.is_pulled,
        )
        for each in (_with_store(context, one) for one in seen)
    )


def _with_store(context: Context, seen: Seen) -> Seen:
    if seen.store is None:
        with suppress(SnapsyncError, OSError):
            receipt = find_receipt(context, seen.snapshot_id, None)
            return replace(seen, store=receipt.store or None, is_pulled=bool(receipt.store))
    return seen


def _reference(noted: str | None) -> Reference | None:
    """Read a reference of a note, which any process below the command can have written."""
    with suppress(SnapsyncError):
        return parse_reference(noted) if noted else None
    return None


def _from_here(path: str | None) -> str | None:
    """Name a path as the command would: below the working directory it is relative."""
    if not path or not path.isprintable():
        return None
    # The command may have removed the working directory.
    with suppress(ValueError, OSError):
        return str(Path(path).relative_to(Path.cwd()))
    return path


def keep_for_later(
    context: Context,
    written: WrittenRun,
    run_id: str,
    unpushed: Mapping[str, str],
    report: Path,
) -> Path | None:
    """Write down what is known of a run that could not be recorded, and give the file's path.

    That is in the user's directory for state, else in the working directory, under a name that
    nothing has yet. Outputs that are not in the store stand there without an ID. `run record` reads
    the file. None if it can't be written anywhere.
    """
    document = written.to_json() | {"run_id": run_id}
    missing = [{"path": name, "snapshot_id": None} for name in unpushed]
    document["outputs"] = [*document["outputs"], *missing]
    text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
    state = own_state(context.environment)
    own = [] if state is None else [state / "runs"]
    for directory in (*own, Path(), Path(tempfile.gettempdir())):
        try:
            directory = directory.absolute()
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            place = _write_new(directory, run_id, text.encode())
        except OSError:
            continue
        with suppress(OSError):
            if said := report.read_bytes():
                _write_once(place.with_suffix(".reported"), said)
        return place
    return None


def _write_new(directory: Path, name: str, data: bytes) -> Path:
    """Write a file that is not there yet: another try of the same run may lie there already."""
    for place in (f"{name}.json", f"{name}-{secrets.token_hex(4)}.json"):
        with suppress(FileExistsError):
            _write_once(directory / place, data)
            return directory / place
    raise FileExistsError(str(directory))


def _write_once(place: Path, data: bytes) -> None:
    with open(place, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        try:
            file.write(data)
            file.flush()
        except OSError:
            place.unlink()
            raise
