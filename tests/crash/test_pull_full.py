"""Somebody else fills the disk while a pull is under way: a tmpfs, really full."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

import anyio
import pytest

from snapd.actions.pulls import open_pulls
from snapd.disk.cache import open_cache
from snapd.model.errors import CacheFull, NoSpace
from snapd.model.jobs import PullRequest
from snapd.model.layout import object_key
from snapd.model.settings import MIB, CacheSettings, DaemonSettings, Settings, TransferSettings
from snapd.model.uris import StoreUri
from snapd.remote.base import RemoteStore
from snapd.remote.memory import Fault, MemoryStore, Stall
from snapd.remote.stores import open_stores
from snapd.runtime.observer import SilentObserver
from tests.caching import assert_sound, assert_tree, staged
from tests.crash.test_cache_full import fill, mounted
from tests.samples import sample

SETTINGS = Settings(
    daemon=DaemonSettings(stores=("memory://store",)),
    cache=CacheSettings(min_free_bytes=0, lease_seconds=0.0),
    transfer=TransferSettings(batch_objects=1, objects_in_flight=1),
)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "disk", "size=12m")


async def test_a_disk_that_fills_stops_the_pull_and_the_next_one_goes_on(disk: Path) -> None:
    wanted = sample({f"f{number}": os.urandom(MIB) for number in range(6)})
    store, stall = MemoryStore("memory://store"), Stall()
    store.objects.update(wanted.keys())
    store.faults.add(Fault("get", object_key(list(wanted.objects)[3]), nth={1}, stall=stall))

    def opener(_: StoreUri) -> AbstractAsyncContextManager[RemoteStore]:
        return nullcontext(store)

    with open_cache(disk / "cache", fsync="off", now=time.time) as cache:
        async with (
            open_stores(opener, SETTINGS.daemon.stores) as stores,
            open_pulls(SETTINGS, cache, stores, SilentObserver(), time.time) as pulls,
        ):
            request = PullRequest(wanted.id, "memory://store")
            job = await pulls.start(request, detached=True)
            await stall.reached.wait()
            ballast = fill(disk)
            stall.release()
            with pytest.raises(NoSpace) as caught, anyio.fail_after(60):
                await job.wait()
            assert not isinstance(caught.value, CacheFull)
            assert pulls.admission.reserved_bytes == 0
            assert cache.complete(wanted.id) is None
            assert staged(cache.root) == []
            assert_sound(cache.root)
            kept = sum(1 for _ in cache.blobs.iterate())
            assert 0 < kept < 6
            # There is no room now, and nothing to evict: the next try says so at once.
            store.faults.requests.clear()
            with pytest.raises(CacheFull), anyio.fail_after(60):
                await (await pulls.start(request, detached=True)).wait()
            assert store.faults.count("get") == 0
            assert sum(1 for _ in cache.blobs.iterate()) == kept
            ballast.unlink()
            with anyio.fail_after(60):
                view = await (await pulls.start(request, detached=True)).wait()
            assert view.objects_cached == kept
            assert store.faults.count("get") == 6 - kept
            assert_tree(Path(view.tree), wanted.manifest)
