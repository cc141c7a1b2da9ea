from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from snapd.actions.check_run import SnapshotChecks
from snapd.model.errors import AccessDenied, StoreMissing
from snapd.model.ids import SnapshotId, digest_of
from snapd.model.layout import object_key
from snapd.model.run_checks import Area, Check
from snapd.model.run_parts import Use
from snapd.model.settings import TransferSettings
from snapd.remote.base import Document, RemoteStore
from snapd.remote.memory import MemoryStore
from tests.samples import sample

ONE = sample({"a": b"same", "b/c": b"other"})
TWO = sample({"a": b"same"})
NOWHERE = SnapshotId(digest_of(b"nowhere"))


def stored() -> MemoryStore:
    store = MemoryStore()
    store.objects.update(ONE.keys() | TWO.keys())
    return store


async def checked(
    home: MemoryStore, uses: list[tuple[Area, Use]], other: RemoteStore | None = None, **how: bool
) -> list[Check]:
    @asynccontextmanager
    async def open_other(uri: str) -> AsyncGenerator[RemoteStore]:
        if other is None:
            raise AccessDenied(f"not for you: {uri}")
        yield other

    checks = SnapshotChecks(TransferSettings(), lambda _: None, deep=how.get("deep", False))
    return await checks.run(home, uses, open_other)


async def test_each_is_told_as_it_was_recorded() -> None:
    uses: list[tuple[Area, Use]] = [
        ("data", Use(ONE.id, "imagenet@v1.0.0")),
        ("data", Use(NOWHERE)),
        ("outputs", Use(TWO.id, path="model")),
        ("outputs", Use(ONE.id)),
    ]
    found = await checked(stored(), uses)
    assert [each.status for each in found] == ["ok", "differs", "ok", "ok"]
    assert found[0].subject == f"data {ONE.id[:12]} imagenet@v1.0.0"
    assert found[0].detail == "2 objects, 9 B, all there, not read"
    assert "has no snapshot" in found[1].detail


async def test_deep_reads_what_looking_does_not_see() -> None:
    store = stored()
    store.objects[object_key(digest_of(b"same"))] = b"SAME"
    [shallow] = await checked(store, [("data", Use(TWO.id))])
    [deep] = await checked(store, [("data", Use(TWO.id))], deep=True)
    assert (shallow.status, deep.status) == ("ok", "differs")
    [good] = await checked(stored(), [("data", Use(TWO.id))], deep=True)
    assert "read and hashed" in good.detail


async def test_a_missing_object_differs() -> None:
    store = stored()
    del store.objects[object_key(digest_of(b"other"))]
    [one, two] = await checked(store, [("data", Use(ONE.id)), ("data", Use(TWO.id))])
    assert (one.status, two.status) == ("differs", "ok")
    assert "lacks 1 of 2 objects" in one.detail


async def test_a_store_that_can_not_be_read_is_not_checked() -> None:
    uses: list[tuple[Area, Use]] = [
        ("data", Use(ONE.id, store="s3://other")),
        ("outputs", Use(TWO.id)),
    ]
    refused = await checked(stored(), uses)
    assert [each.status for each in refused] == ["not checked", "ok"]
    assert "not for you: s3://other" in refused[0].detail
    assert [each.status for each in await checked(MemoryStore(), uses, stored())] == [
        "ok",
        "differs",
    ]


async def test_a_store_that_is_gone_differs() -> None:
    class Gone(MemoryStore):
        async def get(self, key: str, *, limit_bytes: int) -> Document:
            raise StoreMissing("the bucket is gone")

    [check] = await checked(stored(), [("data", Use(ONE.id, store="s3://gone"))], Gone())
    assert check.status == "differs"
