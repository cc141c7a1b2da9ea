"""Names that a push gives to what it pushed: refused before anything is uploaded, given last."""

from __future__ import annotations

from dataclasses import dataclass

import click

from snapctl.frame import Decorated
from snapctl.registering import author_of, author_options
from snapd.actions.publish import (
    Certifier,
    check_dataset_version,
    check_model_version,
    publish_dataset,
    publish_model,
)
from snapd.model.errors import UsageError
from snapd.model.ids import SnapshotId
from snapd.model.references import parse_version_reference
from snapd.model.registry import Author
from snapd.model.settings import TransferSettings
from snapd.model.stages import NewVersion
from snapd.model.versions import Version
from snapd.registry.names import Registry
from snapd.remote.base import RemoteStore


@dataclass(frozen=True, slots=True)
class Naming:
    """The version of a dataset and that of a model that a snapshot is to become; either or none."""

    dataset: tuple[str, Version] | None
    model: tuple[str, Version] | None
    author: Author

    @classmethod
    def parse(cls, dataset: str | None, model: str | None, by: str | None, note: str) -> Naming:
        """Read the options; raises `UsageError` for one that says nothing."""
        if dataset is None and model is None and note:
            raise UsageError("--note goes with --dataset or --model")
        return cls(
            None if dataset is None else parse_version_reference(dataset, "dataset"),
            None if model is None else parse_version_reference(model, "model"),
            author_of(by, note),
        )

    async def check(self, store: RemoteStore) -> None:
        """Raise `VersionExists` for a version that is there already; writes nothing."""
        registry = Registry(store)
        if self.dataset is not None:
            await check_dataset_version(registry, *self.dataset)
        if self.model is not None:
            await check_model_version(registry, *self.model)

    async def give(
        self, store: RemoteStore, snapshot_id: SnapshotId, settings: TransferSettings
    ) -> None:
        """Add the versions, each after the snapshot was found whole in the store."""
        registry = Registry(store)
        certifier = Certifier(settings, lambda _: None)
        if self.dataset is not None:
            await publish_dataset(registry, *self.dataset, snapshot_id, self.author, certifier)
        if self.model is not None:
            new = NewVersion(snapshot_id)
            await publish_model(registry, *self.model, new, self.author, certifier)

    def given(self) -> dict[str, str]:
        """Say the names by their kind: `{"dataset": "imagenet@v1.2.0"}`."""
        both = {"dataset": self.dataset, "model": self.model}
        return {kind: f"{named[0]}@{named[1]}" for kind, named in both.items() if named}


def name_options(decorated: Decorated) -> Decorated:
    """Add `--dataset`, `--model`, `--by` and `--note`, called so."""
    decorated = author_options(decorated)
    decorated = click.option(
        "--model", metavar="NAME@VERSION", help="Add it as this version of a model, too."
    )(decorated)
    return click.option(
        "--dataset", metavar="NAME@VERSION", help="Publish it as this version of a dataset, too."
    )(decorated)
