"""The registry's promises, checked on every kind of store: memory, a directory, a real S3 server.

Above all: of many who write at once nobody's update is lost, and one version is in production.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from dataclasses import replace

import anyio
import pytest

from snapd.model.errors import (
    ConditionsMissing,
    InvalidReference,
    NameNotFound,
    NothingToRollBack,
    RegistryBusy,
    RegistryDamaged,
    RegistryTooNew,
    StoreMissing,
    VersionExists,
    VersionNotFound,
)
from snapd.model.ids import SnapshotId, digest_of
from snapd.model.model_history import KEPT_EVENTS_MAX, PAGE_EVENTS, HistoryPage
from snapd.model.models import Model
from snapd.model.references import parse_reference
from snapd.model.registry import Author
from snapd.model.stages import NewVersion, add, move, new_model, roll_back, set_alias
from snapd.model.versions import parse_version
from snapd.registry.documents import PROBE_KEY, Documents, Pauses
from snapd.registry.names import Registry, dataset_key, history_key, model_key
from snapd.remote.base import ALWAYS, Condition, Stored
from snapd.remote.memory import MemoryStore
from snapd.runtime.retry import Backoff
from tests.contract.places import PLACES, Place
from tests.contract.s3_places import S3_PLACES

pytestmark = pytest.mark.usefixtures("event_loop_never_blocks")

WRITERS = 16
CHANGES_EACH = 3
PLACES_HERE = {
    "memory": PLACES["memory"],
    "directory": PLACES["directory"],
    "s3": S3_PLACES["s3-wrapped"],
}
NAME = "iris_clf"
_tokens = (f"change{number}" for number in itertools.count())


@pytest.fixture(params=sorted(PLACES_HERE))
def place(request: pytest.FixtureRequest) -> Place:
    return PLACES_HERE[request.param](request)


@pytest.fixture
async def registry(place: Place) -> AsyncIterator[Registry]:
    async with place.open() as store:
        yield Registry(store)


def me(note: str = "", *, at: float = 1_800_000_000.0, by: str = "ann@host") -> Author:
    return Author(by, at, next(_tokens), note)


def snapshot(text: str) -> SnapshotId:
    return SnapshotId(digest_of(text.encode()))


async def add_version(registry: Registry, text: str, name: str = NAME) -> Model:
    author = me(f"adds {text}")
    new = NewVersion(snapshot(text))
    return await registry.change_model(
        name, lambda model: add(model, parse_version(text), new, author), author, new=new_model
    )


async def promote(registry: Registry, text: str, stage: str = "production") -> Model:
    author = me(f"promotes {text}")
    return await registry.change_model(
        NAME, lambda model: move(model, parse_version(text), stage, author), author
    )


async def test_what_is_published_is_found_by_its_name(registry: Registry) -> None:
    version = parse_version("v1.2.0")
    await registry.add_to_dataset("imagenet", version, snapshot("a"), me("first"))
    found = await registry.resolve(parse_reference("imagenet@1.2.0"))
    assert (found.kind, found.version, found.snapshot_id) == ("dataset", "v1.2.0", snapshot("a"))
    assert [name async for name in registry.names("dataset")] == ["imagenet"]
    with pytest.raises(VersionExists, match="exists already"):
        await registry.add_to_dataset("imagenet", version, snapshot("b"), me())
    assert (await registry.dataset("imagenet")).find(version).snapshot_id == snapshot("a")


async def test_a_promotion_and_a_rollback_move_the_reference(registry: Registry) -> None:
    for text in ("v0.1.0", "v0.2.0"):
        await add_version(registry, text)
        await promote(registry, text)
    served = parse_reference(f"{NAME}@production")
    assert (await registry.resolve(served)).snapshot_id == snapshot("v0.2.0")
    author = me("accuracy fell")
    await registry.change_model(NAME, lambda model: roll_back(model, None, author), author)
    assert (await registry.resolve(served)).snapshot_id == snapshot("v0.1.0")
    model = await registry.model(NAME)
    assert model.find(parse_version("v0.2.0")).stage == "archived"
    events = [event async for event in registry.history(model)]
    assert [(e.action, e.version, e.note) for e in events[:2]] == [
        ("rollback", "v0.1.0", "accuracy fell"),
        ("archive", "v0.2.0", "accuracy fell"),
    ]


async def test_a_name_that_is_not_there_is_told_with_the_nearest(registry: Registry) -> None:
    with pytest.raises(NameNotFound) as empty:
        await registry.model(NAME)
    assert empty.value.details["nearest"] == []
    await add_version(registry, "v0.1.0")
    await registry.add_to_dataset("iris", parse_version("1.0.0"), snapshot("d"), me())
    with pytest.raises(NameNotFound, match="iris_clf") as near:
        await registry.resolve(parse_reference("iris_cfl@production"))
    assert near.value.details["nearest"][0] == NAME
    with pytest.raises(VersionNotFound, match=r"v0\.1\.0"):
        await registry.resolve(parse_reference(f"{NAME}@v0.1.1"))
    with pytest.raises(NameNotFound):
        await registry.change_dataset("iri", lambda dataset: dataset, me())


async def test_a_name_of_a_dataset_and_a_model_is_told_apart(registry: Registry) -> None:
    await registry.add_to_dataset(NAME, parse_version("v1.0.0"), snapshot("d"), me())
    await add_version(registry, "v1.0.0")
    await add_version(registry, "v2.0.0")
    with pytest.raises(InvalidReference, match="both"):
        await registry.resolve(parse_reference(f"{NAME}@v1.0.0"))
    dataset = await registry.resolve(parse_reference(f"dataset:{NAME}@v1.0.0"))
    model = await registry.resolve(parse_reference(f"model:{NAME}@v1.0.0"))
    assert (dataset.snapshot_id, model.snapshot_id) == (snapshot("d"), snapshot("v1.0.0"))
    assert (await registry.resolve(parse_reference(f"{NAME}@v2.0.0"))).kind == "model"
    with pytest.raises(VersionNotFound):
        await registry.resolve(parse_reference(f"{NAME}@v3.0.0"))


@pytest.mark.parametrize("damage", ["later", "garbage", "other"])
async def test_what_is_not_understood_is_refused_and_never_overwritten(
    registry: Registry, damage: str
) -> None:
    await add_version(registry, "v0.1.0")
    good = (await registry.store.get(model_key(NAME), limit_bytes=10**6)).data
    bad = {
        "later": good.replace(b"snapsync.model/1", b"snapsync.model/2"),
        "garbage": good[:-5],
        "other": good.replace(b'"dev",\n', b'"Dev",\n', 1),
    }[damage]
    assert bad != good
    await registry.store.put(model_key(NAME), bad, ALWAYS)
    kind = RegistryTooNew if damage == "later" else RegistryDamaged
    with pytest.raises(kind, match=model_key(NAME)):
        await registry.model(NAME)
    with pytest.raises(kind):
        await add_version(registry, "v0.2.0")
    assert (await registry.store.get(model_key(NAME), limit_bytes=10**6)).data == bad


async def test_a_document_at_the_key_of_another_name_is_refused(registry: Registry) -> None:
    await registry.add_to_dataset("a", parse_version("v1.0.0"), snapshot("d"), me())
    data = (await registry.store.get(dataset_key("a"), limit_bytes=10**6)).data
    await registry.store.put(dataset_key("b"), data, ALWAYS)
    with pytest.raises(RegistryDamaged, match="its name is 'a'"):
        await registry.dataset("b")


async def test_who_polls_sees_a_change_by_the_tag(registry: Registry) -> None:
    key = model_key(NAME)
    assert await registry.documents.etag(key) is None
    await add_version(registry, "v0.1.0")
    before = await registry.documents.etag(key)
    assert before is not None
    assert await registry.documents.etag(key) == before
    await promote(registry, "v0.1.0")
    assert await registry.documents.etag(key) != before


async def test_a_change_that_changes_nothing_is_not_written(registry: Registry) -> None:
    await add_version(registry, "v0.1.0")
    await promote(registry, "v0.1.0")
    before = await registry.documents.etag(model_key(NAME))
    again = await promote(registry, "v0.1.0")
    assert again.live() is not None
    assert await registry.documents.etag(model_key(NAME)) == before


async def test_what_a_rule_refuses_leaves_no_trace(registry: Registry) -> None:
    author = me()
    with pytest.raises(NothingToRollBack):
        await registry.change_model(
            NAME, lambda model: roll_back(model, None, author), author, new=new_model
        )
    assert await registry.find_model(NAME) is None


async def test_a_record_is_created_once(registry: Registry) -> None:
    key = "registry/runs/r1"
    assert await registry.documents.create(key, b"one")
    assert not await registry.documents.create(key, b"two")
    assert (await registry.store.get(key, limit_bytes=100)).data == b"one"
    assert [each async for each in registry.documents.keys("runs/")] == ["runs/r1"]


async def test_old_events_move_to_pages_that_are_chained(registry: Registry) -> None:
    versions = ["v0.0.1", "v0.0.2"]
    for text in versions:
        await add_version(registry, text)
    author = me()

    def many(model: Model) -> Model:
        for number in range(KEPT_EVENTS_MAX // 2):
            model = move(model, parse_version(versions[number % 2]), "production", author)
            author_token = replace(author, token=next(_tokens))
            model = set_alias(model, "best", parse_version(versions[number % 2]), author_token)
        return model

    for _ in range(2):
        author = me()
        await registry.change_model(NAME, many, author)
    model = await registry.model(NAME)
    assert model.archived is not None
    assert len(model.history) > PAGE_EVENTS
    await promote(registry, versions[0])
    await promote(registry, versions[1])
    model = await registry.model(NAME)
    numbers = [event.number async for event in registry.history(model)]
    assert numbers == list(range(model.last_number, 0, -1))

    page = history_key(NAME, 1)
    data = (await registry.store.get(page, limit_bytes=10**7)).data
    await registry.store.put(page, data.replace(b"ann@host", b"bob@host", 1), ALWAYS)
    with pytest.raises(RegistryDamaged, match="not the page"):
        _ = [event async for event in registry.history(model)]
    await registry.store.delete(page)
    with pytest.raises(RegistryDamaged, match="lost"):
        _ = [event async for event in registry.history(model)]


async def full_history(registry: Registry) -> Model:
    """Store a model whose next change splits a page off, as many writers left it."""
    model = add(new_model(NAME), parse_version("v1.0.0"), NewVersion(snapshot("1")), me())
    while len(model.history) < KEPT_EVENTS_MAX:
        stage = "dev" if len(model.history) % 2 == 0 else "staging"
        model = move(model, parse_version("v1.0.0"), stage, me())
    await registry.store.put(model_key(NAME), model.render(), ALWAYS)
    return model


async def test_a_page_that_a_dead_writer_left_is_counted_on(registry: Registry) -> None:
    model = await full_history(registry)
    page = HistoryPage(NAME, model.history[:PAGE_EVENTS], None)
    assert await registry.documents.create(history_key(NAME, 1), page.render())
    await promote(registry, "v1.0.0")
    model = await registry.model(NAME)
    assert len(model.history) == KEPT_EVENTS_MAX + 1 - PAGE_EVENTS
    numbers = [event.number async for event in registry.history(model)]
    assert numbers == list(range(KEPT_EVENTS_MAX + 1, 0, -1))


async def test_a_page_with_other_events_is_not_counted_on(registry: Registry) -> None:
    model = await full_history(registry)
    others = tuple(replace(event, by="eve@host") for event in model.history[:PAGE_EVENTS])
    await registry.documents.create(history_key(NAME, 1), HistoryPage(NAME, others, None).render())
    with pytest.raises(RegistryDamaged, match="other events"):
        await promote(registry, "v1.0.0")
    assert await registry.model(NAME) == model


async def test_of_many_who_write_at_once_no_update_is_lost(place: Place) -> None:
    lives: list[str] = []

    async def write(number: int) -> None:
        async with place.open() as store:
            registry = Registry(store)
            for change in range(CHANGES_EACH):
                text = f"v{number}.{change}.0"
                await add_version(registry, text)
                model = await promote(registry, text)
                live = [each.version for each in model.versions if each.stage == "production"]
                assert live == [text]
                lives.append(text)

    async with anyio.create_task_group() as group:
        for number in range(WRITERS):
            group.start_soon(write, number)

    async with place.open() as store:
        registry = Registry(store)
        model = await registry.model(NAME)
        events = [event async for event in registry.history(model)]
    expected = {
        f"v{number}.{change}.0" for number in range(WRITERS) for change in range(CHANGES_EACH)
    }
    assert {each.version for each in model.versions} == expected == set(lives)
    assert [each.stage for each in model.versions].count("production") == 1
    assert sum(event.action == "add" for event in events) == len(expected)
    promoted = [event.version for event in events if event.action == "promote"]
    assert sorted(promoted) == sorted(expected)
    live = model.live()
    assert live is not None
    assert live.version == promoted[0]
    # Each promotion archived exactly the one before it.
    archived = [event.version for event in events if event.action == "archive"]
    assert archived == promoted[1:]


async def test_of_many_who_publish_one_version_one_does(place: Place) -> None:
    outcomes: list[str] = []

    async def publish(number: int) -> None:
        async with place.open() as store:
            registry = Registry(store)
            try:
                await registry.add_to_dataset(
                    "imagenet", parse_version("v1.0.0"), snapshot(str(number)), me()
                )
            except VersionExists:
                outcomes.append("exists")
            else:
                outcomes.append(snapshot(str(number)))

    async with anyio.create_task_group() as group:
        for number in range(WRITERS):
            group.start_soon(publish, number)
    [winner] = [each for each in outcomes if each != "exists"]
    async with place.open() as store:
        dataset = await Registry(store).dataset("imagenet")
    assert [each.snapshot_id for each in dataset.versions] == [winner]


async def test_a_bucket_that_is_not_there_is_said_so(place: Place) -> None:
    async with place.open_missing() as store:
        if store.uri.scheme == "file":
            assert await Registry(store).find_model(NAME) is None
            assert [name async for name in Registry(store).names("model")] == []
            return
        with pytest.raises(StoreMissing):
            await Registry(store).find_model(NAME)


class Forgetful(MemoryStore):
    """Ignores conditions as some stores do, all or only If-Match."""

    def __init__(self, *kinds: str) -> None:
        super().__init__("memory://forgetful")
        self._kinds = kinds

    async def put(self, key: str, data: bytes, condition: Condition = ALWAYS) -> Stored:
        ignored = condition.kind in self._kinds
        return await super().put(key, data, ALWAYS if ignored else condition)


@pytest.mark.parametrize("kinds", [("if_match",), ("if_absent",), ("if_match", "if_absent")])
async def test_a_store_that_ignores_conditions_is_refused(kinds: tuple[str, ...]) -> None:
    store = Forgetful(*kinds)
    for _ in range(2):
        with pytest.raises(ConditionsMissing, match="ignores conditions"):
            await add_version(Registry(store), "v0.1.0")
    assert set(store.objects) == {PROBE_KEY}


class Contested(MemoryStore):
    """Lets somebody else write just before some of the conditional writes to a model."""

    def __init__(self, others: int, *, lost: bool = False) -> None:
        super().__init__("memory://contested")
        self.others = others
        self._lost = lost

    async def put(self, key: str, data: bytes, condition: Condition = ALWAYS) -> Stored:
        if condition.kind == "if_match" and key != PROBE_KEY and self.others:
            self.others -= 1
            if self._lost:
                # The write is done, but its answer says that somebody came before.
                await super().put(key, data, condition)
            model = Model.parse(self.objects[key])
            other = me("another")
            changed = set_alias(model, f"alias{self.others}", parse_version("v0.1.0"), other)
            await super().put(key, changed.render())
        return await super().put(key, data, condition)


async def test_a_change_is_applied_again_to_what_another_wrote() -> None:
    store = Contested(3)
    registry = Registry(store, Documents(store, pauses=Pauses(random=lambda: 0.0)))
    await add_version(registry, "v0.1.0")
    model = await promote(registry, "v0.1.0")
    assert set(model.aliases) == {"alias0", "alias1", "alias2"}
    assert model.find("production").version == "v0.1.0"


async def test_a_change_whose_answer_was_lost_is_not_made_twice() -> None:
    store = Contested(1, lost=True)
    registry = Registry(store, Documents(store, pauses=Pauses(random=lambda: 0.0)))
    await add_version(registry, "v0.1.0")
    author = me()
    new = NewVersion(snapshot("v0.2.0"))
    model = await registry.change_model(
        NAME, lambda model: add(model, parse_version("v0.2.0"), new, author), author
    )
    assert [event.action for event in model.history] == ["add", "add", "alias"]


async def test_who_always_comes_second_gives_up_in_the_end() -> None:
    store = Contested(100)
    backoff = Backoff(base_seconds=0.0, max_seconds=0.0, attempts_max=5, deadline_seconds=60.0)
    registry = Registry(store, Documents(store, conflicts=backoff))
    await add_version(registry, "v0.1.0")
    with pytest.raises(RegistryBusy, match="5 times"):
        await promote(registry, "v0.1.0")
    assert store.others == 95
