from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from snapd.actions.prove import prove
from snapd.model.care import ProofProgress
from snapd.model.errors import SnapshotNotFound, TreeDiffers
from snapd.model.ids import SnapshotId, digest_of
from tests.caching import assert_tree
from tests.unit.actions.caring import ONE, TWO, open_caring


def ignore(_progress: ProofProgress) -> None:
    """Look away."""


async def test_a_right_tree_is_proven_without_asking_a_store(tmp_path: Path) -> None:
    async with open_caring(tmp_path / "c") as node:
        tree = await node.pull(ONE)
        node.store.faults.requests.clear()
        seen: list[ProofProgress] = []
        proof = await prove(node.cache, node.repairer, ONE.id, seen.append)
        assert (proof.tree, proof.files, proof.size_bytes, proof.repaired) == (str(tree), 2, 9, 0)
        assert seen[-1].files_done == seen[-1].files_total == 2
        assert not node.store.faults.requests


async def test_wrong_and_missing_files_are_repaired_and_proven_again(tmp_path: Path) -> None:
    async with open_caring(tmp_path / "c") as node:
        tree, second = await node.pull(ONE), await node.pull(TWO)
        node.damage(digest_of(b"shared"))
        (tree / "b").unlink()
        proof = await prove(node.cache, node.repairer, ONE.id, ignore)
        assert proof.repaired == 2
        assert_tree(tree, ONE.manifest)
        assert_tree(second, TWO.manifest)


async def test_a_name_of_its_own_with_wrong_bytes_is_linked_anew_without_a_fetch(
    tmp_path: Path,
) -> None:
    async with open_caring(tmp_path / "c") as node:
        tree = await node.pull(ONE)
        (tree / "b").unlink()
        (tree / "b").write_bytes(b"replaced")
        before = node.gets()
        assert (await prove(node.cache, node.repairer, ONE.id, ignore)).repaired == 1
        assert_tree(tree, ONE.manifest)
        assert node.gets() == before


async def test_what_cannot_be_repaired_is_told(tmp_path: Path) -> None:
    async with open_caring(tmp_path / "c") as node:
        tree = await node.pull(ONE)
        node.store.objects.clear()
        node.damage(digest_of(b"one"))
        (tree / "more").write_bytes(b"")
        with pytest.raises(TreeDiffers) as raised:
            await prove(node.cache, node.repairer, ONE.id, ignore)
        problems = [(each["path"], each["kind"]) for each in raised.value.details["problems"]]
        assert problems == [("./b", "bytes"), ("./more", "extra")]
        assert raised.value.details["problems_total"] == 2


async def test_only_what_is_in_the_cache_can_be_proven(tmp_path: Path) -> None:
    async with open_caring(tmp_path / "c") as node:
        with pytest.raises(SnapshotNotFound):
            await prove(node.cache, node.repairer, SnapshotId("0" * 64), ignore)


async def test_it_waits_for_whoever_works_on_the_snapshot_and_can_be_cancelled(
    tmp_path: Path,
) -> None:
    async with open_caring(tmp_path / "c") as node:
        await node.pull(ONE)
        with node.cache.snapshot_lock(ONE.id), anyio.move_on_after(0.3) as waiting:
            await prove(node.cache, node.repairer, ONE.id, ignore)
        assert waiting.cancelled_caught
        await prove(node.cache, node.repairer, ONE.id, ignore)
