"""A node that follows, on stores in memory, with a registry that the test writes."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio

from snapd.actions.following import Following
from snapd.actions.pulls import Pulls, open_pulls
from snapd.disk.cache import Cache, open_cache
from snapd.model import stages
from snapd.model.access import Peer
from snapd.model.follow_views import FollowView
from snapd.model.models import Model
from snapd.model.registry import Author
from snapd.model.settings import CacheSettings, DaemonSettings, FollowSettings, Settings
from snapd.model.uris import StoreUri
from snapd.model.versions import parse_version
from snapd.registry.names import Registry
from snapd.remote.base import RemoteStore
from snapd.remote.memory import MemoryStore
from snapd.remote.stores import open_stores
from snapd.runtime.background import background_tasks
from snapd.runtime.observer import SilentObserver
from tests.samples import Sample, sample

STORE = "memory://store"
REFERENCE = "iris@production"
ONE, TWO = (sample({"version": b"%d" % n, "weights": b"w%d" % n * 99}) for n in (1, 2))
ASKER = Peer(1, os.geteuid(), os.getegid(), frozenset())
"""Who runs the test, as somebody who asks."""


@dataclass
class Bench:
    """A node that follows; everything in memory but its disk."""

    root: Path
    memory: MemoryStore
    cache: Cache
    pulls: Pulls
    following: Following
    settings: Settings
    changes: int = field(default=0)
    seconds_ago: float = 0.0
    """When changes of the registry were made, by their own clock."""

    @property
    def dest(self) -> Path:
        return self.root / "srv" / "iris"

    def view(self) -> FollowView:
        [view] = self.following.views()
        return view

    async def put(self, made: Sample) -> None:
        for key, data in made.keys().items():
            await self.memory.put(key, data)

    async def change(self, rule: Callable[[Model, Author], Model], name: str = "iris") -> None:
        self.changes += 1
        who = Author(
            "ann", time.time() - self.seconds_ago, f"token{self.changes}", f"change {self.changes}"
        )
        registry = Registry(self.memory)
        await registry.change_model(name, lambda model: rule(model, who), who, new=stages.new_model)

    async def add(self, version: str, made: Sample, name: str = "iris") -> None:
        """Publish a version; its objects are put too."""
        await self.put(made)
        new = stages.NewVersion(made.id)
        await self.change(lambda m, who: stages.add(m, parse_version(version), new, who), name)

    async def promote(self, version: str, name: str = "iris") -> None:
        chosen = parse_version(version)
        await self.change(lambda m, who: stages.move(m, chosen, "production", who), name)

    async def roll_back(self) -> None:
        await self.change(lambda m, who: stages.roll_back(m, None, who))

    async def until_all(self, are_so: Callable[[list[FollowView]], object]) -> None:
        with anyio.fail_after(60):
            while not are_so(self.following.views()):  # noqa: ASYNC110 - follows have no event
                await anyio.sleep(0.005)

    async def until(self, is_so: Callable[[FollowView], object]) -> FollowView:
        await self.until_all(lambda views: is_so(views[0]))
        return self.view()

    async def until_live(self, version: str) -> FollowView:
        return await self.until(lambda view: view.version == version and view.state == "live")

    async def polled(self) -> None:
        """Wait until the registry was looked at twice more."""
        seen = self.view().polls
        await self.until(lambda view: view.polls >= seen + 2)

    def served(self) -> bytes:
        return (self.dest / "current" / "version").read_bytes()

    def held(self) -> set[str]:
        return {x.snapshot_id for x in self.cache.leases.iterate() if x.kind == "follow"}

    def heads(self) -> int:
        return self.memory.faults.count("head")


def follow(dest: Path, ref: str = REFERENCE, **more: object) -> FollowSettings:
    return replace(FollowSettings(ref, str(dest), STORE, poll_seconds=0.01), **more)  # type: ignore[arg-type]  # of its own fields


@asynccontextmanager
async def following_node(
    root: Path,
    memory: MemoryStore,
    *follows: FollowSettings,
    opener: Callable[[StoreUri], AbstractAsyncContextManager[RemoteStore]] | None = None,
) -> AsyncIterator[Bench]:
    """Open a node on `root/state` that follows; may be done again on the same directory."""
    (root / "srv").mkdir(exist_ok=True)
    settings = Settings(
        daemon=DaemonSettings(stores=(STORE,)),
        cache=CacheSettings(node_name="node-1"),
        follows=follows,
    )
    with open_cache(root / "state", fsync="off", now=time.time, node_name="node-1") as cache:
        async with (
            open_stores(opener or (lambda _: nullcontext(memory)), (STORE,)) as stores,
            open_pulls(settings, cache, stores, SilentObserver(), time.time) as pulls,
            background_tasks() as tasks,
        ):
            following = Following(
                cache, pulls, stores, tasks, settings, now=time.time, dice=lambda: 0.5
            )
            await following.begin()
            yield Bench(root, memory, cache, pulls, following, settings)
