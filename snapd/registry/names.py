"""The datasets and the models of one store: reading, changing, resolving, listing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Protocol, TypeVar

from anyio import to_thread

from snapd.model.datasets import Dataset, nearest
from snapd.model.errors import (
    InvalidReference,
    NameNotFound,
    RegistryDamaged,
    SnapsyncError,
    VersionNotFound,
)
from snapd.model.ids import Digest, SnapshotId, digest_of
from snapd.model.model_history import PAGE_EVENTS, Archived, Event, HistoryPage
from snapd.model.models import Model
from snapd.model.names import is_name, parse_name
from snapd.model.references import KINDS, NameKind, Reference, Resolved
from snapd.model.registry import REGISTRY_PREFIX, Author
from snapd.model.versions import Version
from snapd.registry.beginning import beginning
from snapd.registry.documents import Documents
from snapd.remote.base import RemoteStore

LISTED_MAX = 5000
"""So many names of a kind are looked through for the one that was meant."""
_DATASETS, _MODELS, _DOCUMENT = "datasets/", "models/", "/registry.json"


def dataset_key(name: str) -> str:
    """`imagenet` -> `registry/datasets/imagenet`."""
    return f"{REGISTRY_PREFIX}{_DATASETS}{parse_name(name)}"


def model_key(name: str) -> str:
    """`iris_clf` -> `registry/models/iris_clf/registry.json`."""
    return f"{REGISTRY_PREFIX}{_MODELS}{parse_name(name)}{_DOCUMENT}"


def history_key(name: str, first: int) -> str:
    """Name the page whose first event has that number."""
    return f"{REGISTRY_PREFIX}history/{_MODELS}{parse_name(name)}/{first:010}.json"


class _HasName(Protocol):
    @property
    def name(self) -> str: ...


_Document = TypeVar("_Document", bound=_HasName)


class Registry:
    """Names in one open store; `documents` are for whoever keeps further documents there.

        async with open_store(...) as store:
            registry = Registry(store)
            found = await registry.resolve(parse_reference("iris_clf@production"))
            await registry.change_model("iris_clf", lambda model: roll_back(model, None, me), me)

    Every call reads the store anew. See `Documents` for what it raises beside what is named.
    """

    def __init__(self, store: RemoteStore, documents: Documents | None = None) -> None:
        self.store = store
        self.documents = documents or Documents(store)

    async def dataset(self, name: str) -> Dataset:
        """Read a dataset; raises `NameNotFound` naming the nearest."""
        if (found := await self.find_dataset(name)) is None:
            raise await self._not_found(name, "dataset")
        return found

    async def find_dataset(self, name: str) -> Dataset | None:
        """Read a dataset; None if there is none."""
        found = await self.documents.read(dataset_key(name), _named(Dataset.parse, name))
        return None if found is None else found.document

    async def model(self, name: str) -> Model:
        """Read a model; raises `NameNotFound` naming the nearest."""
        if (found := await self.find_model(name)) is None:
            raise await self._not_found(name, "model")
        return found

    async def find_model(self, name: str) -> Model | None:
        """Read a model; None if there is none."""
        found = await self.documents.read(model_key(name), _named(Model.parse, name))
        return None if found is None else found.document

    async def add_to_dataset(
        self, name: str, version: Version, snapshot_id: SnapshotId, author: Author
    ) -> Dataset:
        """Publish a version, the first of its name too; raises what `Dataset.add` raises."""

        async def apply(dataset: Dataset | None) -> Dataset:
            return (dataset or Dataset(name)).add(version, snapshot_id, author)

        parse = _named(Dataset.parse, name)
        return await self.documents.change(dataset_key(name), parse, apply, author.token)

    async def change_dataset(
        self, name: str, rule: Callable[[Dataset], Dataset], author: Author
    ) -> Dataset:
        """Change a dataset that exists; raises `NameNotFound` and what `rule` raises."""

        async def apply(dataset: Dataset | None) -> Dataset:
            if dataset is None:
                raise await self._not_found(name, "dataset")
            return rule(dataset)

        parse = _named(Dataset.parse, name)
        return await self.documents.change(dataset_key(name), parse, apply, author.token)

    async def change_model(
        self,
        name: str,
        rule: Callable[[Model], Model],
        author: Author,
        *,
        new: Callable[[str], Model] | None = None,
    ) -> Model:
        """Change a model by a rule of `snapd.model.stages`, in one write.

        With `new` (usually `new_model`) a model that is not there begins as that; without, it is
        `NameNotFound`. The rule may be called several times. What it raises ends the change.
        """

        async def apply(model: Model | None) -> Model:
            if model is None and new is None:
                raise await self._not_found(name, "model")
            if model is None:
                assert new is not None
                return rule(new(name))
            changed = rule(model)
            return changed if changed is model else await self._spilled(changed)

        parse = _named(Model.parse, name)
        return await self.documents.change(model_key(name), parse, apply, author.token)

    async def resolve(self, reference: Reference) -> Resolved:
        """Find the snapshot that a reference leads to now; raises what `look_up` raises."""
        return (await self.look_up(reference))[0]

    async def look_up(self, reference: Reference) -> tuple[Resolved, Dataset | Model]:
        """Find where a reference leads now, and give the document that says so.

        Raises `NameNotFound` and `VersionNotFound` naming the nearest, and `InvalidReference` if a
        dataset and a model of that name both have such a version.
        """
        found: list[Dataset | Model] = []
        if reference.kind != "dataset" and (model := await self.find_model(reference.name)):
            found.append(model)
            if isinstance(reference.selector, str):
                # Datasets have neither stages nor aliases: this is all there is to read.
                return model.resolve(reference), model
        if reference.kind != "model" and (dataset := await self.find_dataset(reference.name)):
            found.append(dataset)
        if not found:
            raise await self._not_found(reference.name, reference.kind)
        led: list[tuple[Resolved, Dataset | Model]] = []
        for each in found:
            try:
                led.append((each.resolve(reference), each))
            except VersionNotFound:
                if len(found) == 1:
                    raise
        if len(led) > 1:
            raise InvalidReference(
                f"{reference.name} is a dataset and a model, and both have {reference.selector}",
                hint=f"Say which: dataset:{reference} or model:{reference}.",
            )
        return led[0] if led else (found[0].resolve(reference), found[0])

    async def names(self, kind: NameKind) -> AsyncGenerator[str, None]:
        """List the names of a kind in byte order, page by page as the store gives them."""
        prefix, ending = (_DATASETS, "") if kind == "dataset" else (_MODELS, _DOCUMENT)
        async with aclosing(self.documents.keys(prefix)) as keys:
            async for key in keys:
                name = key.removeprefix(prefix).removesuffix(ending)
                if key.endswith(ending) and is_name(name):
                    yield name

    async def history(self, model: Model) -> AsyncGenerator[Event, None]:
        """Walk all events of a model, the latest first; older ones are read page by page.

        Raises `RegistryDamaged` as soon as a page is missing or is not the one that was written.
        """
        for event in reversed(model.history):
            yield event
        first, digest = 0, None
        if model.archived is not None:
            first, digest = model.archived.events - PAGE_EVENTS + 1, model.archived.digest
        while digest is not None:
            page, actual = await self._page(model.name, first)
            if actual != digest or page.events[0].number != first:
                raise RegistryDamaged(
                    f"{self.store.uri} {history_key(model.name, first)}: it is not the page that"
                    " was written",
                    key=history_key(model.name, first),
                )
            for event in reversed(page.events):
                yield event
            first, digest = first - PAGE_EVENTS, page.previous

    async def _page(self, name: str, first: int) -> tuple[HistoryPage, Digest]:
        key = history_key(name, first)
        parse = _named(HistoryPage.parse, name)
        found = await self.documents.read(key, lambda data: (parse(data), digest_of(data)))
        if found is None:
            raise RegistryDamaged(f"{self.store.uri} {key}: a page of the history is lost", key=key)
        return found.document

    async def _spilled(self, model: Model) -> Model:
        """Move old events to a page before the document that counts on it is written.

        Two who do it at once write the same page, because its events have been written before.
        """
        if (split := model.spill()) is None:
            return model
        page, shorter = split
        first = page.events[0].number
        if not await self.documents.create(history_key(model.name, first), page.render()):
            existing, digest = await self._page(model.name, first)
            if existing != page:
                key = history_key(model.name, first)
                raise RegistryDamaged(
                    f"{self.store.uri} {key}: it holds other events than the document", key=key
                )
            return replace(shorter, archived=Archived(page.events[-1].number, digest))
        return shorter

    async def _not_found(self, name: str, kind: NameKind | None) -> NameNotFound:
        known: list[str] = []
        # Who may read a document may not be allowed to list them; then nothing is suggested.
        with suppress(SnapsyncError):
            for each in KINDS if kind is None else (kind,):
                known += (await beginning(self.names(each), LISTED_MAX))[0]
        near = await to_thread.run_sync(nearest, name, known)
        said = f" (did you mean {', '.join(near)}?)" if near else ""
        what = f"{kind} {name!r}" if kind else f"dataset or model {name!r}"
        return NameNotFound(
            f"{self.store.uri} has no {what}{said}",
            name=name,
            store=str(self.store.uri),
            nearest=list(near),
        )


def _named(parse: Callable[[bytes], _Document], name: str) -> Callable[[bytes], _Document]:
    """Refuse a document that was put at another name's key."""

    def parse_named(data: bytes) -> _Document:
        document = parse(data)
        if document.name != name:
            raise RegistryDamaged(f"its name is {document.name!r}")
        return document

    return parse_named
