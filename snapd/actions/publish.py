"""Give a snapshot of a store a name there: as a version of a dataset or of a model.

A version is only added if its snapshot is whole in the same store, so that a name never leads to
something that can't be pulled.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from snapd.actions.certify import certify_snapshot
from snapd.actions.verify import OnProgress, verify_snapshot
from snapd.model.datasets import Dataset, check_new_version
from snapd.model.errors import RegistryRefused
from snapd.model.ids import SnapshotId
from snapd.model.models import DEFAULT_STAGES, Model
from snapd.model.registry import Author
from snapd.model.settings import TransferSettings
from snapd.model.stages import NewVersion, add, new_model
from snapd.model.versions import Version
from snapd.registry.names import Registry


class Certifier:
    """How a snapshot is proven before it gets a name: by looking, or `deep` by reading it all."""

    def __init__(
        self, settings: TransferSettings, on_progress: OnProgress, *, deep: bool = False
    ) -> None:
        self._settings = settings
        self._on_progress = on_progress
        self._deep = deep

    async def prove(self, registry: Registry, snapshot_id: SnapshotId) -> None:
        """Raise what is wrong with a snapshot in the registry's store, if anything is."""
        if self._deep:
            await verify_snapshot(registry.store, snapshot_id, self._settings, self._on_progress)
        else:
            await certify_snapshot(registry.store, snapshot_id, self._on_progress)


async def check_dataset_version(registry: Registry, name: str, version: Version) -> None:
    """Raise `VersionExists` for what could not be published, before anything is uploaded."""
    dataset = await registry.find_dataset(name) or Dataset(name)
    existing = {each.version: each.snapshot_id for each in dataset.versions}
    check_new_version(name, version, None, existing)


async def check_model_version(registry: Registry, name: str, version: Version) -> None:
    """Raise `VersionExists` for what could not be added, before anything is uploaded."""
    model = await registry.find_model(name) or new_model(name)
    existing = {each.version: each.snapshot_id for each in model.versions}
    check_new_version(name, version, None, existing)


async def publish_dataset(
    registry: Registry,
    name: str,
    version: Version,
    snapshot_id: SnapshotId,
    author: Author,
    certifier: Certifier,
) -> Dataset:
    """Add a version to a dataset, which may be its first.

    Raises what `Dataset.add` and `Certifier.prove` raise; then nothing has been written.
    """
    dataset = await registry.find_dataset(name) or Dataset(name)
    dataset.add(version, snapshot_id, author)
    await certifier.prove(registry, snapshot_id)
    return await registry.add_to_dataset(name, version, snapshot_id, author)


async def publish_model(
    registry: Registry,
    name: str,
    version: Version,
    new: NewVersion,
    author: Author,
    certifier: Certifier,
    *,
    stages: Sequence[str] | None = None,
) -> Model:
    """Add a version to a model; with its first the model begins, with these stages or the usual.

    Raises `RegistryRefused` if the model has other stages than those that are named, and what
    `stages.add`, `NewVersion.checked` and `Certifier.prove` raise; then nothing has been written.
    """
    new.checked()
    begin = partial(new_model, stages=stages or DEFAULT_STAGES)

    def rule(model: Model) -> Model:
        if stages is not None and model.stages != tuple(stages):
            raise RegistryRefused(
                f"the stages of {name} are {', '.join(model.stages)}",
                hint="A model's stages are those that it began with: leave --stages out.",
            )
        return add(model, version, new, author)

    rule(await registry.find_model(name) or begin(name))
    await certifier.prove(registry, new.snapshot_id)
    return await registry.change_model(name, rule, author, new=begin)
