"""Record a run: look its references up once, prove its snapshots, then write it for good."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from snapd.actions.publish import Certifier
from snapd.model.errors import (
    InvalidReference,
    ReferenceNotFound,
    RegistryRefused,
    SnapshotNotFound,
)
from snapd.model.ids import SnapshotId
from snapd.model.references import Reference, Resolved
from snapd.model.registry import Author
from snapd.model.run_parts import Use
from snapd.model.runs import Run
from snapd.model.versions import parse_version
from snapd.model.written_runs import Named, WrittenRun
from snapd.registry.names import Registry
from snapd.registry.runs import Runs
from snapd.remote.base import RemoteStore

OpenStore = Callable[[str], AbstractAsyncContextManager[RemoteStore]]
OnResolved = Callable[[Resolved], None]


async def record_run(
    registry: Registry,
    written: WrittenRun,
    run_id: str,
    author: Author,
    certifier: Certifier,
    *,
    open_other: OpenStore,
    on_resolved: OnResolved = lambda _: None,
) -> Run:
    """Record a run in the registry's store and return the record that is there then.

    Its snapshots have to be whole in the stores that have them: this one, or those that `written`
    names, which `open_other` opens. Raises `RunExists` for an ID that is taken by another record,
    what `Runs.record`, `Registry.resolve` and `Certifier.prove` raise; then no record was written.
    """
    written = replace(
        written,
        data=await look_up(registry, written.data, open_other=open_other, on_resolved=on_resolved),
        outputs=await look_up(
            registry, written.outputs, open_other=open_other, on_resolved=on_resolved
        ),
    )
    run = written.run(run_id, author)
    runs = Runs(registry)
    if await runs.find(run_id) is None:
        proven = {each.named for each in (*written.data, *written.outputs) if each.is_proven}
        uses = [use for use in (*run.data, *run.outputs) if use.snapshot_id not in proven]
        await _prove(registry, uses, certifier, open_other)
    return await runs.record(run)


def _at_home(uses: tuple[Named, ...], home: str) -> tuple[Named, ...]:
    return tuple(replace(each, store=None) if each.store == home else each for each in uses)


def _is_looked_up(named: Named) -> bool:
    """Tell whether a reference is to be resolved, or compared with the ID that it stands beside."""
    if named.said is None:
        return isinstance(named.named, Reference)
    # Where a stage or an alias led then can't be told now.
    return not named.is_proven and not isinstance(named.said.selector, str)


def _by_store(uses: Iterable[Named]) -> list[tuple[str | None, list[Named]]]:
    groups: dict[str | None, list[Named]] = {}
    for each in uses:
        groups.setdefault(each.store, []).append(each)
    return list(groups.items())


async def look_up(
    registry: Registry, data: tuple[Named, ...], *, open_other: OpenStore, on_resolved: OnResolved
) -> tuple[Named, ...]:
    """Resolve the references of data now, before a run; each keeps where it led.

    Raises what `Registry.resolve` raises.
    """
    found: dict[Named, Resolved | None] = {}
    data = _at_home(data, str(registry.store.uri))
    for store, group in _by_store(filter(_is_looked_up, data)):
        if store is None:
            await _look(registry, group, found, on_resolved)
        else:
            async with open_other(store) as other:
                await _look(Registry(other), group, found, on_resolved)
    return tuple(_led(each, found.get(each)) for each in data)


def _led(named: Named, resolved: Resolved | None) -> Named:
    if resolved is None or not isinstance(named.named, Reference):
        return named
    said = Reference(resolved.name, parse_version(resolved.version))
    return replace(named, named=resolved.snapshot_id, said=said)


async def _look(
    registry: Registry,
    group: list[Named],
    found: dict[Named, Resolved | None],
    on_resolved: OnResolved,
) -> None:
    """Resolve each reference once; one beside an ID must not lead elsewhere."""
    known: dict[Reference, Resolved] = {}
    for named in group:
        reference = named.reference()
        assert reference is not None
        try:
            resolved = known.get(reference) or await registry.resolve(reference)
        except (ReferenceNotFound, InvalidReference):
            # Beside an ID it may be of another store, or of a dataset and a model both.
            if named.said is None:
                raise
            continue
        if named.said is not None and resolved.snapshot_id != named.named:
            raise RegistryRefused(
                f"{reference} is {resolved.snapshot_id}, and the run says that it is {named.named}",
                hint="Write the ID alone, or correct it.",
            )
        if reference not in known and named.said is None:
            on_resolved(resolved)
        known[reference] = found[named] = resolved


async def _prove(
    registry: Registry, uses: list[Use], certifier: Certifier, open_other: OpenStore
) -> None:
    """Raise what is wrong with a snapshot of the run, if anything is."""
    stores: dict[str | None, dict[SnapshotId, Use]] = {}
    for use in uses:
        stores.setdefault(use.store, {})[use.snapshot_id] = use
    for store, there in stores.items():
        if store is None:
            await _prove_each(registry, there, certifier)
        else:
            async with open_other(store) as other:
                await _prove_each(Registry(other), there, certifier)


async def _prove_each(
    registry: Registry, uses: dict[SnapshotId, Use], certifier: Certifier
) -> None:
    for snapshot_id, use in uses.items():
        try:
            await certifier.prove(registry, snapshot_id)
        except SnapshotNotFound as absent:
            what = use.reference or use.path
            raise SnapshotNotFound(
                f"{absent.message}{f' ({what})' if what else ''}",
                hint="Push it to the store of the record, or name the store that has it: --data"
                " with --data-store, or `store` beside its ID.",
                **absent.details,
            ) from absent
