from __future__ import annotations

from pathlib import Path

from snapd.disk.cache import Cache
from snapd.model.ids import digest_of
from tests.caching import assert_tree
from tests.unit.actions.caring import ONE, TWO, Caring, open_caring

SHARED, OWN = digest_of(b"shared"), digest_of(b"one")


def condemn(cache: Cache, *digests: str) -> None:
    for digest in digests:
        (path,) = cache.root.glob(f"blobs/*/{digest}.644")
        path.write_bytes(b"damaged")
    for blob in list(cache.blobs.iterate()):
        cache.trust.prove(*blob)


async def both(node: Caring) -> None:
    for each in (ONE, TWO):
        await node.pull(each)


async def test_nothing_to_repair_asks_nobody(tmp_path: Path) -> None:
    async with open_caring(tmp_path / "c") as node:
        await both(node)
        before = node.gets()
        assert await node.repairer.repair() == 0
        assert node.gets() == before


async def test_only_what_is_damaged_is_fetched_and_once(tmp_path: Path) -> None:
    async with open_caring(tmp_path / "c") as node:
        await both(node)
        condemn(node.cache, SHARED, OWN)
        before = node.gets()
        assert node.cache.snapshots() == []
        assert await node.repairer.repair() == 2
        assert node.gets() == before + 2
        for each in (ONE, TWO):
            assert_tree(node.cache.trees.path(each.id), each.manifest)
        assert len(node.cache.snapshots()) == 2
        assert node.watcher.repaired == 2


async def test_another_allowed_store_stands_in(tmp_path: Path) -> None:
    async with open_caring(tmp_path / "c") as node:
        await both(node)
        condemn(node.cache, SHARED)
        node.other.objects.update(ONE.keys())
        node.store.objects.clear()
        assert await node.repairer.repair() == 1
        assert_tree(node.cache.trees.path(TWO.id), TWO.manifest)


async def test_without_a_row_the_allowed_stores_are_asked(tmp_path: Path) -> None:
    async with open_caring(tmp_path / "c") as node:
        await both(node)
        for each in (ONE, TWO):
            node.cache.index.forget(each.id)
        condemn(node.cache, SHARED)
        assert await node.repairer.repair() == 1
        assert len({node.cache.complete(each.id) for each in (ONE, TWO)} - {None}) == 2


async def test_a_store_that_lacks_it_leaves_it_for_the_next_time(tmp_path: Path) -> None:
    async with open_caring(tmp_path / "c") as node:
        await both(node)
        condemn(node.cache, SHARED)
        hidden = dict(node.store.objects)
        node.store.objects.clear()
        assert await node.repairer.repair() == 0
        assert node.cache.repairs.pending() == [(SHARED, 0o644)]
        assert node.cache.snapshots() == []
        node.store.objects.update(hidden)
        assert await node.repairer.repair() == 1
        assert len(node.cache.snapshots()) == 2


async def test_another_mode_of_the_object_makes_a_fetch_needless(tmp_path: Path) -> None:
    async with open_caring(tmp_path / "c") as node:
        await both(node)
        node.cache.blobs.derive(SHARED, from_mode=0o644, to_mode=0o600)
        condemn(node.cache, SHARED)
        before = node.gets()
        assert await node.repairer.repair() == 1
        assert node.gets() == before
        assert_tree(node.cache.trees.path(ONE.id), ONE.manifest)
