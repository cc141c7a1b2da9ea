from __future__ import annotations

from pathlib import Path

import anyio
import anyio.from_thread

from snapd.disk.index import ScrubState
from snapd.model.errors import CacheUnusable
from snapd.model.ids import digest_of
from snapd.model.settings import ScrubSettings
from tests.caching import assert_tree
from tests.samples import sample
from tests.unit.actions.caring import ONE, SETTINGS, TWO, Caring, open_caring

SHARED = digest_of(b"shared")
WAIT_SECONDS = 60


async def a_round(node: Caring) -> None:
    with anyio.fail_after(WAIT_SECONDS):
        await node.watcher.round_ended.wait()


async def test_a_round_hashes_everything_and_repairs_what_is_wrong(tmp_path: Path) -> None:
    async with open_caring(tmp_path / "c") as node:
        trees = {await node.pull(each): each for each in (ONE, TWO)}
        node.damage(SHARED)
        scrub = node.scrub()
        scrub.begin()
        await a_round(node)
        assert (node.watcher.scrubbed, node.watcher.damaged, node.watcher.repaired) == (3, 1, 1)
        for tree, snapshot in trees.items():
            assert_tree(tree, snapshot.manifest)
        view = await scrub.view()
        assert (view.objects, view.damaged, view.repaired) == (3, 1, 1)
        assert view.waiting_for_repair == 0
        assert node.cache.index.scrub_state() == ScrubState("", 10_000.0, 10_000.0)


async def test_the_next_round_begins_when_it_is_due(tmp_path: Path) -> None:
    async with open_caring(tmp_path / "c") as node:
        await node.pull(ONE)
        scrub = node.scrub()
        scrub.begin()
        await a_round(node)
        node.clock[0] += 999.0
        assert scrub._due_in_seconds() == 1.0
        node.clock[0] += 2.0
        scrub.apply(SETTINGS.scrub)
        await a_round(node)
        assert len(node.watcher.rounds) == 2


async def test_a_clock_that_jumped_back_does_not_stop_it(tmp_path: Path) -> None:
    async with open_caring(tmp_path / "c") as node:
        node.cache.index.record_scrub(ScrubState("", 10_000_000.0, 10_000_000.0))
        node.scrub().begin()
        await a_round(node)
        assert node.cache.index.scrub_state().began_at == 10_000.0


async def test_it_goes_on_from_the_position_in_the_index(tmp_path: Path) -> None:
    async with open_caring(tmp_path / "c") as node:
        await node.pull(ONE)
        await node.pull(TWO)
        first = sorted(f"{digest}.{mode:o}" for digest, mode in node.cache.blobs.iterate())[0]
        node.cache.index.record_scrub(ScrubState(first, 500.0, 400.0))
        node.scrub().begin()
        await a_round(node)
        assert node.watcher.scrubbed == 2
        assert node.cache.index.scrub_state() == ScrubState("", 500.0, 10_000.0)


async def test_off_is_off_until_it_is_turned_on(tmp_path: Path) -> None:
    async with open_caring(tmp_path / "c") as node:
        await node.pull(ONE)
        scrub = node.scrub(ScrubSettings(bytes_per_second=0))
        scrub.begin()
        await anyio.wait_all_tasks_blocked()
        assert (await scrub.view()).phase == "off"
        assert node.watcher.scrubbed == 0
        scrub.apply(SETTINGS.scrub)
        await a_round(node)
        assert (await scrub.view()).phase == "waiting"


async def test_turning_it_off_in_a_round_keeps_its_place(tmp_path: Path) -> None:
    large = sample({f"{n}": b"%d" % n * 30_000 for n in range(20)})
    async with open_caring(tmp_path / "c") as node:
        node.store.objects.update(large.keys())
        await node.pull(large)
        scrub = node.scrub(ScrubSettings(bytes_per_second=10_000, interval_seconds=1000.0))
        scrub.begin()
        with anyio.fail_after(WAIT_SECONDS):
            await node.watcher.step_done.wait()
        scrub.apply(ScrubSettings(bytes_per_second=0))
        scrub.apply(SETTINGS.scrub)
        await a_round(node)
        assert node.watcher.scrubbed == 20


async def test_an_index_that_cannot_be_written_makes_it_wait(tmp_path: Path) -> None:
    async with open_caring(tmp_path / "c") as node:
        real = node.cache.index.scrub_state
        failed = anyio.Event()

        def fail() -> ScrubState:
            node.cache.index.scrub_state = real  # type: ignore[method-assign]  # only once
            anyio.from_thread.run_sync(failed.set)
            raise CacheUnusable("no")

        node.cache.index.scrub_state = fail  # type: ignore[method-assign]  # a broken disk
        scrub = node.scrub()
        scrub.begin()
        with anyio.fail_after(WAIT_SECONDS):
            await failed.wait()
        await anyio.wait_all_tasks_blocked()
        assert node.watcher.rounds == []
        scrub.apply(SETTINGS.scrub)
        await a_round(node)
