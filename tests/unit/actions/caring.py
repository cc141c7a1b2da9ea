"""A node that scrubs and repairs, on a fresh cache with stores in memory and a clock of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from snapd.actions.pulls import Pulls, open_pulls
from snapd.actions.repair import Repairer
from snapd.actions.scrub import Scrub
from snapd.disk.cache import Cache, open_cache
from snapd.model.ids import Digest
from snapd.model.jobs import PullRequest
from snapd.model.settings import MIB, CacheSettings, DaemonSettings, ScrubSettings, Settings
from snapd.model.uris import StoreUri
from snapd.remote.base import RemoteStore
from snapd.remote.memory import MemoryStore
from snapd.remote.stores import open_stores
from snapd.runtime.observer import SilentObserver
from tests.samples import Sample, sample

ONE = sample({"a/x": b"shared", "b": b"one"}, modes={"": 0o555})
TWO = sample({"y": b"shared", "z": b"two"})
SETTINGS = Settings(
    daemon=DaemonSettings(stores=("memory://store", "memory://other")),
    cache=CacheSettings(min_free_bytes=1),
    scrub=ScrubSettings(bytes_per_second=100 * MIB, interval_seconds=1000.0),
)


class Watcher(SilentObserver):
    """Notes what the scrub tells."""

    def __init__(self) -> None:
        self.scrubbed = self.damaged = self.repaired = 0
        self.rounds: list[float] = []
        self.round_ended = anyio.Event()
        self.step_done = anyio.Event()

    def on_scrubbed(self, objects: int, size_bytes: int, progress: float) -> None:
        self.scrubbed += objects
        self.step_done.set()

    def on_scrub_round(self, ended_at: float) -> None:
        self.rounds.append(ended_at)
        self.round_ended.set()
        self.round_ended = anyio.Event()

    def on_scrub_damage(self, objects: int) -> None:
        self.damaged += objects

    def on_repaired(self, objects: int) -> None:
        self.repaired += objects


@dataclass
class Caring:
    cache: Cache
    pulls: Pulls
    store: MemoryStore
    other: MemoryStore
    watcher: Watcher
    tasks: TaskGroup
    clock: list[float] = field(default_factory=lambda: [10_000.0])

    @property
    def repairer(self) -> Repairer:
        return Repairer(self.pulls.workshop, lambda: SETTINGS.daemon.stores)

    def scrub(self, settings: ScrubSettings = SETTINGS.scrub) -> Scrub:
        return Scrub(
            self.cache,
            self.repairer,
            settings,
            self.tasks,
            observer=self.watcher,
            now=lambda: self.clock[0],
        )

    async def pull(self, snapshot: Sample, store: str = "memory://store") -> Path:
        job = await self.pulls.start(PullRequest(snapshot.id, store))
        async with job.attached():
            with anyio.fail_after(60):
                return Path((await job.wait()).tree)

    def damage(self, digest: Digest, mode: int = 0o644) -> None:
        """Damage an object some time after the last pull."""
        self.cache.trust.settle_all()
        self.cache.blobs.path(digest, mode).write_bytes(b"damaged")

    def gets(self) -> int:
        requests = self.store.faults.requests.items()
        return sum(n for (kind, _), n in requests if kind == "get")


@asynccontextmanager
async def open_caring(root: Path) -> AsyncIterator[Caring]:
    stores = {name: MemoryStore(f"memory://{name}") for name in ("store", "other")}
    for each in (ONE, TWO):
        stores["store"].objects.update(each.keys())
    clock = [10_000.0]

    def opener(uri: StoreUri) -> AbstractAsyncContextManager[RemoteStore]:
        return nullcontext(stores[uri.bucket])

    watcher = Watcher()
    with open_cache(root, fsync="off", now=lambda: clock[0]) as cache:
        async with (
            open_stores(opener, SETTINGS.daemon.stores) as kept,
            open_pulls(SETTINGS, cache, kept, watcher, lambda: clock[0]) as pulls,
            anyio.create_task_group() as tasks,
        ):
            yield Caring(cache, pulls, stores["store"], stores["other"], watcher, tasks, clock)
            tasks.cancel_scope.cancel()
