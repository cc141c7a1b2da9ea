"""A name is given to what is whole, and else nothing is written."""

from __future__ import annotations

import pytest

from snapd.actions.publish import (
    Certifier,
    check_dataset_version,
    check_model_version,
    publish_dataset,
    publish_model,
)
from snapd.model.errors import (
    DigestMismatch,
    InvalidName,
    ObjectMissing,
    RegistryRefused,
    SnapshotNotFound,
    SnapsyncError,
    VersionExists,
)
from snapd.model.ids import SnapshotId, digest_of
from snapd.model.layout import object_key
from snapd.model.settings import TransferSettings
from snapd.model.stages import NewVersion
from snapd.registry.names import Registry
from snapd.remote.memory import MemoryStore
from tests.samples import Sample, sample
from tests.unit.model.registering import author, v

LOOK = Certifier(TransferSettings(), lambda _: None)
READ = Certifier(TransferSettings(), lambda _: None, deep=True)
NOWHERE = SnapshotId("ab" * 32)


@pytest.fixture
def made() -> Sample:
    return sample({"a": b"one", "b/c": b"two"})


@pytest.fixture
def store(made: Sample) -> MemoryStore:
    store = MemoryStore()
    store.objects.update(made.keys())
    return store


@pytest.mark.parametrize("certifier", [LOOK, READ])
async def test_what_is_whole_gets_its_name(
    store: MemoryStore, made: Sample, certifier: Certifier
) -> None:
    registry = Registry(store)
    dataset = await publish_dataset(registry, "d", v(1), made.id, author("why"), certifier)
    assert dataset == await registry.dataset("d")
    assert dataset.find(v(1)).snapshot_id == made.id
    new = NewVersion(made.id, metrics={"f1": 0.5}, aliases=("best",))
    model = await publish_model(registry, "m", v(1), new, author("why"), certifier)
    assert model == await registry.model("m")
    assert model.find("best").metrics == {"f1": 0.5}


async def test_a_version_that_exists_is_refused_before_anything_is_read(
    store: MemoryStore, made: Sample
) -> None:
    registry = Registry(store)
    await publish_dataset(registry, "d", v(1), made.id, author(), LOOK)
    await publish_model(registry, "m", v(1), NewVersion(made.id), author(), LOOK)
    looked = store.faults.count("head")
    with pytest.raises(VersionExists):
        await check_dataset_version(registry, "d", v(1))
    with pytest.raises(VersionExists):
        await check_model_version(registry, "m", v(1))
    with pytest.raises(VersionExists):
        await publish_dataset(registry, "d", v(1), NOWHERE, author(), LOOK)
    with pytest.raises(VersionExists):
        await publish_model(registry, "m", v(1), NewVersion(NOWHERE), author(), LOOK)
    await check_dataset_version(registry, "d", v(2))
    await check_model_version(registry, "other", v(1))
    assert store.faults.count("head") == looked


@pytest.mark.parametrize(
    ("damage", "certifier", "kind"),
    [
        ("absent", LOOK, SnapshotNotFound),
        ("missing", LOOK, ObjectMissing),
        ("missing", READ, ObjectMissing),
        ("longer", LOOK, DigestMismatch),
        ("other", READ, DigestMismatch),
    ],
)
async def test_what_is_not_whole_gets_none(
    store: MemoryStore, made: Sample, damage: str, certifier: Certifier, kind: type[SnapsyncError]
) -> None:
    key = object_key(digest_of(b"two"))
    if damage == "missing":
        del store.objects[key]
    elif damage != "absent":
        store.objects[key] = {"longer": b"longer", "other": b"owt"}[damage]
    wanted = NOWHERE if damage == "absent" else made.id
    registry = Registry(store)
    with pytest.raises(kind):
        await publish_dataset(registry, "d", v(1), wanted, author(), certifier)
    with pytest.raises(kind):
        await publish_model(registry, "m", v(1), NewVersion(wanted), author(), certifier)
    assert not [each for each in store.objects if each.startswith("registry/")]


async def test_a_model_keeps_the_stages_that_it_began_with(
    store: MemoryStore, made: Sample
) -> None:
    registry, new = Registry(store), NewVersion(made.id)
    own = ("new", "live", "gone")
    await publish_model(registry, "m", v(1), new, author(), LOOK, stages=own)
    model = await publish_model(registry, "m", v(2), new, author(), LOOK)
    assert model.stages == own
    await publish_model(registry, "m", v(3), new, author(), LOOK, stages=own)
    with pytest.raises(RegistryRefused, match="new, live, gone"):
        await publish_model(registry, "m", v(4), new, author(), LOOK, stages=("a", "b", "c"))
    with pytest.raises(InvalidName):
        await publish_model(registry, "m", v(4), NewVersion(made.id, card="\x00"), author(), LOOK)
