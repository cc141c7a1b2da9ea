"""Record a run: look its references up once, prove its snapshots, then write it for good."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from snapd.actions.publish import Certifier
from snapd.model.errors import ReferenceNotFound, RegistryRefused, SnapshotNotFound
from snapd.model.ids import SnapshotId
from snapd.model.references import Reference, Resolved
from snapd.model.registry import Author
from snapd.model.runs import Run, Use
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
    home = str(registry.store.uri)
    written = replace(
        written, data=_at_home(written.data, home), outputs=_at_home(written.outputs, home)
    )
    found: dict[Named, Resolved | None] = {}
    for store, group in _by_store((*written.data, *written.outputs)):
        if store is None:
            await _look(registry, group, found, on_resolved)
        else:
            async with open_other(store) as other:
                await _look(Registry(other), group, found, on_resolved)
    run = written.run(run_id, author, lambda named: named.use(found.get(named)))
    runs = Runs(registry)
    if await runs.find(run_id) is None:
        await _prove(registry, run, certifier, open_other)
    return await runs.record(run)


def _at_home(uses: tuple[Named, ...], home: str) -> tuple[Named, ...]:
    return tuple(replace(each, store=None) if each.store == home else each for each in uses)


def _by_store(uses: Iterable[Named]) -> list[tuple[str | None, list[Named]]]:
    groups: dict[str | None, list[Named]] = {}
    for each in uses:
        groups.setdefault(each.store, []).append(each)
    return list(groups.items())


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
        if reference is None or (named.said and isinstance(reference.selector, str)):
            # Where a stage or an alias led then can't be told now.
            continue
        try:
            resolved = known.get(reference) or await registry.resolve(reference)
        except ReferenceNotFound:
            if named.said is None:
                raise
            continue
        if named.said is not None and resolved.snapshot_id != named.named:
            raise RegistryRefused(
                f"{reference} is {resolved.snapshot_id}, and the run says that it is {named.named}",
                hint="Write the ID alone, or correct it.",
            )
        if reference not in known:
            on_resolved(resolved)
        known[reference] = found[named] = resolved


async def _prove(registry: Registry, run: Run, certifier: Certifier, open_other: OpenStore) -> None:
    """Raise what is wrong with a snapshot of the run, if anything is."""
    stores: dict[str | None, dict[SnapshotId, Use]] = {}
    for use in (*run.data, *run.outputs):
        stores.setdefault(use.store, {})[use.snapshot_id] = use
    for store, uses in stores.items():
        if store is None:
            await _prove_each(registry, uses, certifier)
        else:
            async with open_other(store) as other:
                await _prove_each(Registry(other), uses, certifier)


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
