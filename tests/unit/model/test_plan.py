from __future__ import annotations

from collections.abc import Iterable

from snapd.model.ids import EMPTY_DIGEST, digest_of
from snapd.model.manifest import Entry, Manifest
from snapd.model.objects import ABSENT
from snapd.model.plan import ObjectRef, PullPlan, plan_pull, refs
from tests.samples import sample


def test_refs_name_each_distinct_object_with_one_of_its_paths() -> None:
    a, b = digest_of(b"a"), digest_of(b"b")
    manifest = Manifest.from_entries(
        [
            Entry("D", 0o755, EMPTY_DIGEST, 0, "./"),
            Entry("F", 0o644, a, 1, "./1"),
            Entry("F", 0o644, b, 1, "./2"),
            Entry("F", 0o644, a, 1, "./3"),
            Entry("F", 0o755, a, 1, "./4"),
        ]
    )
    assert list(refs(manifest, manifest.distinct_objects())) == [
        ObjectRef(a, 0o644, 1, "./1"),
        ObjectRef(b, 0o644, 1, "./2"),
        ObjectRef(a, 0o755, 1, "./4"),
    ]


def planned(files: dict[str, bytes], modes: dict[str, int], held: dict[bytes, int]) -> PullPlan:
    """Plan `files` against a cache that holds those contents under those modes."""
    manifest = sample(files, modes=modes).manifest
    objects = manifest.objects()
    modes_held = {digest_of(data): mode for data, mode in held.items()}
    survey = [modes_held.get(ref.digest, ABSENT) for ref in refs(manifest, objects.firsts)]
    return plan_pull(manifest, objects, survey, large_object_bytes=100)


def paths(found: Iterable[ObjectRef]) -> list[str]:
    return [ref.path for ref in found]


FILES = {"a": b"one", "b": b"one", "c": b"two", "d": b"large" * 100, "e": b"here"}


def test_each_digest_is_fetched_once_and_other_modes_are_derived() -> None:
    plan = planned(FILES, {"b": 0o755}, {b"here": 0o644})
    assert [paths(batch) for batch in plan.small_batches(10, 1000)] == [["./a", "./c"]]
    assert paths(plan.large_objects()) == ["./d"]
    assert paths(plan.derived()) == ["./b"]
    assert (plan.objects_total, plan.objects_cached) == (4, 1)
    assert (plan.bytes_total, plan.bytes_cached, plan.bytes_to_fetch) == (510, 4, 506)


def test_what_is_here_under_another_mode_is_not_fetched() -> None:
    plan = planned(FILES, {}, {b"one": 0o600, b"large" * 100: 0o755})
    assert paths(plan.derived()) == ["./a", "./d"]
    assert paths(plan.large_objects()) == []
    assert [paths(batch) for batch in plan.small_batches(1, 1000)] == [["./c"], ["./e"]]


def test_a_batch_is_bounded_in_bytes_and_holds_one_object_at_least() -> None:
    plan = planned({"a": b"1" * 60, "b": b"2" * 60, "c": b"3"}, {}, {})
    assert [paths(batch) for batch in plan.small_batches(9, 61)] == [["./a"], ["./b", "./c"]]
    assert [paths(batch) for batch in plan.small_batches(9, 1)] == [["./a"], ["./b"], ["./c"]]


def test_a_complete_snapshot_needs_nothing() -> None:
    plan = PullPlan.complete(objects=3, size_bytes=500)
    assert plan.bytes_to_fetch == 0
    assert list(plan.small_batches(1, 1)) == []
    assert list(plan.large_objects()) == []
