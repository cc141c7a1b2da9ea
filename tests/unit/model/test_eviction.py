from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from snapd.model.eviction import (
    Candidate,
    Census,
    Decision,
    Verdict,
    blob_key,
    decide,
    holds,
    links_in,
    object_of,
    objects_in,
)
from snapd.model.ids import SnapshotId, digest_of
from tests.samples import sample

BLOCK = 4096


def an_id(name: str) -> SnapshotId:
    return SnapshotId(digest_of(name.encode()))


class World:
    """Blobs named by letters, 4 KiB each; snapshots that hold some of them."""

    def __init__(
        self,
        snapshots: Mapping[str, str],
        *,
        outside: str = "",
        orphans: Mapping[str, float] | None = None,
        own_bytes: int = 0,
    ) -> None:
        self.snapshots = snapshots
        self.own_bytes = own_bytes
        written_at = {letter: 0.0 for held in snapshots.values() for letter in held}
        written_at.update(orphans or {})
        self.keys = {letter: blob_key(digest_of(letter.encode()), 0o644) for letter in written_at}
        linked = [*outside, *(letter for held in snapshots.values() for letter in held)]
        self.census = Census()
        for letter in sorted(written_at, key=self.keys.__getitem__):
            self.census.add(self.keys[letter], BLOCK, linked.count(letter), written_at[letter])

    def decide(
        self,
        blocks: int,
        *,
        leased: str = "",
        wanted: str = "",
        orphans_before: float = 0.0,
    ) -> Decision:
        wanted_objects = {object_of(self.keys[letter]) for letter in wanted}
        return decide(
            [
                Candidate(an_id(name), float(age), 1, ("a pin",) * (name in leased), self.own_bytes)
                for age, name in enumerate(self.snapshots)
            ],
            needed_bytes=blocks * BLOCK,
            census=self.census,
            links_of=self.links_of,
            is_wanted=wanted_objects.__contains__,
            orphans_before=orphans_before,
        )

    def links_of(self, snapshot_id: SnapshotId) -> Sequence[int]:
        (held,) = (held for name, held in self.snapshots.items() if an_id(name) == snapshot_id)
        return [self.keys[letter] for letter in held]

    def names(self, verdicts: Sequence[Verdict]) -> str:
        by_id = {an_id(name): name for name in self.snapshots}
        return "".join(by_id[SnapshotId(each.snapshot_id)] for each in verdicts)

    def reasons(self, decision: Decision) -> dict[str, str]:
        verdicts = [*decision.evict, *decision.kept]
        return {self.names([each]): each.reason for each in verdicts}


def test_nothing_needed_nothing_evicted() -> None:
    world = World({"A": "ab", "B": "c"})
    decision = world.decide(0)
    assert decision.satisfied
    assert (decision.evict, decision.freed_bytes) == ((), 0)
    assert world.reasons(decision) == {"A": "used_later", "B": "used_later"}


def test_the_least_recently_used_go_until_it_is_enough() -> None:
    world = World({"A": "ab", "B": "c", "C": "d"})
    decision = world.decide(3)
    assert world.names(decision.evict) == "AB"
    assert decision.freed_bytes == 3 * BLOCK
    assert [each.freed_bytes for each in decision.evict] == [2 * BLOCK, BLOCK]
    assert world.reasons(decision)["C"] == "used_later"


def test_what_a_kept_snapshot_shares_frees_nothing() -> None:
    world = World({"A": "ab", "B": "c", "C": "ab"})
    decision = world.decide(1)
    assert world.names(decision.evict) == "B"
    assert world.reasons(decision) == {
        "A": "frees_nothing",
        "B": "least_recently_used",
        "C": "used_later",
    }


def test_what_is_shared_comes_free_with_the_last_that_holds_it() -> None:
    world = World({"A": "ab", "B": "ab", "C": "c"})
    decision = world.decide(2)
    assert world.names(decision.evict) == "AB"
    assert [each.freed_bytes for each in decision.evict] == [0, 2 * BLOCK]


def test_a_later_and_larger_one_makes_the_earlier_needless() -> None:
    world = World({"A": "a", "B": "bcde"})
    decision = world.decide(3)
    assert world.names(decision.evict) == "B"
    assert world.reasons(decision)["A"] == "not_needed"


def test_a_file_that_occurs_twice_is_two_links() -> None:
    world = World({"A": "aa", "B": "b"})
    assert world.decide(1).freed_bytes == BLOCK
    assert world.names(world.decide(1).evict) == "A"


def test_hard_links_elsewhere_keep_bytes() -> None:
    world = World({"A": "ab"}, outside="a")
    decision = world.decide(2)
    assert not decision.satisfied
    assert decision.freed_bytes == BLOCK
    assert world.reasons(World({"A": "ab"}, outside="ab").decide(1)) == {"A": "frees_nothing"}


def test_leases_hold() -> None:
    world = World({"A": "ab", "B": "c"})
    decision = world.decide(1, leased="A")
    assert world.names(decision.evict) == "B"
    held = next(each for each in decision.kept)
    assert (held.reason, held.leases) == ("leased", ("a pin",))
    assert held.explain() == "held: a pin"
    refused = world.decide(1, leased="AB")
    assert not refused.satisfied
    assert refused.evict == ()


def test_wanted_objects_stay() -> None:
    world = World({"A": "ab", "B": "c"}, orphans={"o": 1.0})
    decision = world.decide(2, wanted="ao", orphans_before=9.0)
    assert world.names(decision.evict) == "AB"
    assert decision.freed_bytes == 2 * BLOCK
    assert not decision.orphans


def test_old_orphans_always_go_and_young_ones_last() -> None:
    world = World({"A": "a"}, orphans={"o": 1.0, "y": 8.0})
    idle = world.decide(0, orphans_before=5.0)
    assert list(idle.orphans) == [world.keys["o"]]
    assert (idle.evict, idle.orphan_bytes) == ((), BLOCK)
    assert world.decide(1, orphans_before=5.0).evict == ()
    two = world.decide(2, orphans_before=5.0)
    assert (world.names(two.evict), list(two.orphans)) == ("A", [world.keys["o"]])
    three = world.decide(3, orphans_before=5.0)
    assert three.satisfied
    assert set(three.orphans) == {world.keys["o"], world.keys["y"]}


def test_what_a_snapshot_has_for_itself_counts() -> None:
    world = World({"A": "a", "B": "b"}, own_bytes=BLOCK)
    decision = world.decide(1)
    assert world.names(decision.evict) == "A"
    assert decision.freed_bytes == decision.evict[0].freed_bytes == 2 * BLOCK
    assert world.decide(4).satisfied
    shared = World({"A": "a", "B": "b"}, outside="a", own_bytes=BLOCK)
    assert shared.names(shared.decide(1).evict) == "B"


LETTERS = st.text("abcdef", max_size=6)


@given(
    st.lists(LETTERS, max_size=5), LETTERS, st.integers(0, 8), st.sets(st.integers(0, 4)), LETTERS
)
def test_exactly_enough_by_count(
    held: list[str], outside: str, blocks: int, leased: set[int], wanted: str
) -> None:
    """Freed bytes are those of the blobs with no link left; no smaller part would do."""
    snapshots = {str(number): letters for number, letters in enumerate(held)}
    world = World(snapshots, outside=outside)
    wanted = "".join(letter for letter in wanted if letter in world.keys)
    decision = world.decide(blocks, leased="".join(map(str, leased)), wanted=wanted)
    evicted = world.names(decision.evict)

    def freed(names: str) -> int:
        kept = "".join(letters for name, letters in snapshots.items() if name not in names)
        gone = set("".join(snapshots[name] for name in names)) - set(kept + outside + wanted)
        return len(gone) * BLOCK

    free_names = "".join(name for name in snapshots if int(name) not in leased)
    assert decision.freed_bytes - decision.orphan_bytes == freed(evicted)
    assert sum(each.freed_bytes for each in decision.evict) == freed(evicted)
    assert not set(evicted) - set(free_names)
    orphan_bytes = decision.orphan_bytes
    most = freed(free_names) + orphan_bytes
    assert decision.satisfied == (most >= blocks * BLOCK)
    for name in evicted:
        without = freed(evicted.replace(name, "")) + orphan_bytes
        assert without < min(blocks * BLOCK, decision.freed_bytes)
    assert len(decision.evict) + len(decision.kept) == len(snapshots)


def test_keys_of_a_manifest() -> None:
    made = sample({"a": b"1", "b": b"1", "c": b"2"}, modes={"b": 0o755})
    one, two = digest_of(b"1"), digest_of(b"2")
    assert sorted(links_in(made.manifest.text)) == sorted(
        [blob_key(one, 0o644), blob_key(one, 0o755), blob_key(two, 0o644)]
    )
    objects = objects_in(made.manifest.text)
    assert list(objects) == sorted(int(each[:13], 16) for each in (one, two))
    assert holds(objects, object_of(blob_key(two, 0o4755)))
    assert not holds(objects, 5)


def test_a_verdict_travels() -> None:
    verdict = Verdict("ab" * 32, False, "leased", 1.0, 2, leases=("pod x",))
    document = {**verdict.to_json(), "leases": ["pod x"], "newer": 1}
    assert Verdict.from_json(document) == verdict
    assert "nobody" in Verdict("a", True, "least_recently_used", 1.0, 2).explain()
