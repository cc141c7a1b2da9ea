"""Look at the documents behind references now and then: one poll, however many follow them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import anyio

from snapd.model.changes import change_behind
from snapd.model.errors import (
    InternalError,
    InvalidReference,
    ReferenceNotFound,
    RegistryUnreadable,
    SnapsyncError,
    TimedOut,
)
from snapd.model.follows import pause_seconds
from snapd.model.references import Reference
from snapd.model.releases import Sighting
from snapd.registry.names import Registry, dataset_key, model_key
from snapd.remote.base import RemoteStore
from snapd.remote.stores import Stores

logger = logging.getLogger(__name__)

POLL_MAX_SECONDS = 20.0
"""A poll that takes longer has failed; retries of its requests are part of it."""

Tags = tuple[str | None, ...]


class Follower(Protocol):
    """Who is told where a reference leads."""

    @property
    def reference(self) -> Reference:
        """What it follows."""
        ...

    @property
    def poll_seconds(self) -> float:
        """How often it wants to be told."""
        ...

    def told(self, outcome: Sighting | SnapsyncError, *, polled: bool) -> None:
        """Take note of where the reference leads, or why that is not known; returns at once.

        `polled`: the registry was read; an error is then what it says, and stays until it changes.
        """
        ...


def keys_behind(reference: Reference) -> tuple[str, ...]:
    """Name the documents that decide where a reference leads.

    Datasets have neither stages nor aliases, so that for those the model alone counts.
    """
    if reference.kind == "dataset":
        return (dataset_key(reference.name),)
    if reference.kind == "model" or isinstance(reference.selector, str):
        return (model_key(reference.name),)
    return (model_key(reference.name), dataset_key(reference.name))


async def sight(store: RemoteStore, reference: Reference) -> Sighting:
    """Find where a reference leads now, and which change made it so; raises as `look_up` does."""
    resolved, document = await Registry(store).look_up(reference)
    return Sighting(resolved, change_behind(document, resolved.version))


class Watch:
    """Polls the documents behind some references of one store, for all who follow them.

    As long as their tags are the same nothing is read. Runs until it is cancelled.
    """

    def __init__(
        self,
        store: str,
        keys: tuple[str, ...],
        stores: Stores,
        *,
        random: Callable[[], float],
    ) -> None:
        self.store = store
        self.keys = keys
        self.followers: list[Follower] = []
        self._stores = stores
        self._random = random
        self._tags: Tags | None = None
        self._known: dict[Reference, Sighting | SnapsyncError] = {}
        self._hurried = anyio.Event()

    def join(self, follower: Follower) -> None:
        """Tell one more follower, as soon as can be."""
        self.followers.append(follower)
        self.hurry()

    def hurry(self) -> None:
        """Look at once, however long the pause after failures is."""
        self._hurried.set()

    async def run(self) -> None:
        """Poll for ever, more seldom after failures."""
        failures = 0
        while True:
            self._hurried = anyio.Event()
            failures = 0 if await self._poll() else failures + 1
            every = min((each.poll_seconds for each in self.followers), default=60.0)
            with anyio.move_on_after(pause_seconds(every, failures, self._random)):
                await self._hurried.wait()

    async def _poll(self) -> bool:
        """Look, and tell everybody; False if the registry could not be read."""
        try:
            with anyio.fail_after(POLL_MAX_SECONDS):
                await self._look()
        except TimeoutError:
            hint = "Look at the store and the way to it; `snapctl doctor` does."
            said = f"{self.store} did not answer within {POLL_MAX_SECONDS:.0f} s"
            self._fail(TimedOut(said, hint=hint))
        except SnapsyncError as error:
            self._fail(error)
        except Exception as defect:
            logger.exception("a poll met a defect")
            self._fail(InternalError(f"{type(defect).__name__}: {defect}"))
        else:
            for follower in self.followers:
                if (outcome := self._known.get(follower.reference)) is not None:
                    follower.told(outcome, polled=True)
            return True
        return False

    def _fail(self, error: SnapsyncError) -> None:
        for follower in self.followers:
            follower.told(error, polled=False)

    async def _look(self) -> None:
        wanted = {follower.reference for follower in self.followers}
        async with self._stores.use(self.store) as store:
            documents = Registry(store).documents
            tags = tuple([await documents.etag(key) for key in self.keys])
            if tags != self._tags:
                # Whatever becomes of what follows, no answer is taken for one of other documents.
                self._known, self._tags = {}, tags
            for reference in wanted - self._known.keys():
                self._known[reference] = await self._answer(store, reference)
        self._known = {each: self._known[each] for each in wanted}

    async def _answer(self, store: RemoteStore, reference: Reference) -> Sighting | SnapsyncError:
        """Resolve; what the registry says of a reference that leads nowhere is an answer too."""
        try:
            return await sight(store, reference)
        except (ReferenceNotFound, RegistryUnreadable, InvalidReference) as error:
            return error
