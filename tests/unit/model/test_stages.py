from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from snapd.model.errors import (
    InvalidName,
    NothingToRollBack,
    RegistryFull,
    RegistryRefused,
    SnapsyncError,
    VersionDeprecated,
    VersionExists,
    VersionNotFound,
)
from snapd.model.models import ALIASES_MAX, DEFAULT_STAGES, Model
from snapd.model.names import CARD_MAX_CHARACTERS
from snapd.model.registry import ROOM_TO_ADD_BYTES
from snapd.model.stages import (
    NewVersion,
    add,
    deprecate,
    move,
    new_model,
    remove_alias,
    roll_back,
    set_alias,
    summary,
)
from snapd.model.versions import parse_version
from tests.unit.model.registering import author, model_with, snapshot, stages_of, v


def test_a_promotion_archives_what_was_in_production() -> None:
    said = author("better")
    model = move(model_with(2, produced=[1]), v(2), "production", said)
    assert stages_of(model) == {"v1.0.0": "archived", "v2.0.0": "production"}
    assert [(e.action, e.version, e.from_, e.to, e.note, e.change) for e in model.history[-2:]] == [
        ("archive", "v1.0.0", "production", "archived", "better", said.token),
        ("promote", "v2.0.0", "dev", "production", "better", said.token),
    ]
    assert model.has_change(said.token)


def test_without_a_stage_it_is_the_next_one() -> None:
    model = model_with(1)
    for stage in ("staging", "production"):
        model = move(model, v(1), "", author())
        assert stages_of(model) == {"v1.0.0": stage}
    with pytest.raises(RegistryRefused, match="no next stage"):
        move(model, v(1), "", author())


def test_what_is_there_already_changes_nothing() -> None:
    model = model_with(1, produced=[1])
    assert move(model, v(1), "production", author()) is model
    aliased = set_alias(model, "best", v(1), author())
    assert set_alias(aliased, "best", v(1), author()) is aliased


def test_a_version_is_found_by_stage_and_alias_too() -> None:
    model = set_alias(model_with(3, produced=[1, 2]), "best", v(3), author())
    assert model.find("production").version == "v2.0.0"
    assert model.find("best").version == "v3.0.0"
    assert move(model, "best", "production", author()).find("production").version == "v3.0.0"


def test_of_several_in_a_stage_it_is_the_one_that_came_last() -> None:
    model = model_with(3)
    for number in (3, 1, 2):
        model = move(model, v(number), "staging", author())
    assert model.find("staging").version == "v2.0.0"


def test_what_does_not_exist_is_said_with_what_does() -> None:
    model = set_alias(model_with(1), "champion", v(1), author())
    with pytest.raises(VersionNotFound, match="staging") as stage:
        move(model, v(1), "stagin", author())
    assert stage.value.details["stages"] == list(DEFAULT_STAGES)
    with pytest.raises(VersionNotFound, match="did you mean champion"):
        model.find("champio")
    with pytest.raises(VersionNotFound) as empty:
        model.find("production")
    assert "No version is in production" in empty.value.hint
    with pytest.raises(VersionNotFound):
        remove_alias(model, "best", author())


def test_a_rollback_returns_to_the_version_before() -> None:
    model = roll_back(model_with(3, produced=[1, 2, 3]), None, author("broken"))
    assert stages_of(model)["v2.0.0"] == "production"
    assert stages_of(model)["v3.0.0"] == "archived"
    assert model.history[-1].action == "rollback"


def test_the_next_rollback_goes_further_back_and_not_to_what_was_withdrawn() -> None:
    model = model_with(3, produced=[1, 2, 3])
    for expected in ("v2.0.0", "v1.0.0"):
        model = roll_back(model, None, author())
        assert model.find("production").version == expected
    with pytest.raises(NothingToRollBack):
        roll_back(model, None, author())


def test_a_promotion_makes_a_withdrawn_version_good_again() -> None:
    model = roll_back(model_with(3, produced=[1, 2]), None, author())
    model = move(model, v(2), "production", author("was innocent"))
    model = move(model, v(3), "production", author())
    assert roll_back(model, None, author()).find("production").version == "v2.0.0"


def test_what_was_archived_by_hand_is_not_returned_to() -> None:
    model = move(model_with(2, produced=[1, 2]), v(2), "archived", author("broken"))
    assert model.live() is None
    assert model.history[-1].action == "archive"
    assert roll_back(model, None, author()).find("production").version == "v1.0.0"


def test_a_rollback_to_a_named_version() -> None:
    model = model_with(3, produced=[1, 2])
    assert roll_back(model, v(3), author()).find("production").version == "v3.0.0"
    with pytest.raises(NothingToRollBack, match="already"):
        roll_back(model, v(2), author())
    with pytest.raises(VersionNotFound):
        roll_back(model, v(8), author())
    with pytest.raises(VersionDeprecated):
        roll_back(deprecate(model, v(3), author()), v(3), author())


def test_a_deprecated_version_is_not_promoted_but_archived() -> None:
    model = deprecate(model_with(2, produced=[1]), v(2), author("licence"))
    with pytest.raises(VersionDeprecated, match="licence"):
        move(model, v(2), "staging", author())
    assert stages_of(move(model, v(2), "archived", author()))["v2.0.0"] == "archived"
    with pytest.raises(RegistryRefused, match="deprecated already"):
        deprecate(model, v(2), author())
    with pytest.raises(RegistryRefused, match="is in production"):
        deprecate(model, v(1), author())


def test_a_rollback_passes_over_deprecated_versions() -> None:
    model = deprecate(model_with(3, produced=[1, 2, 3]), v(2), author())
    assert roll_back(model, None, author()).find("production").version == "v1.0.0"


def test_a_version_is_added_once_and_begins_at_the_beginning() -> None:
    model = model_with(1)
    with pytest.raises(VersionExists):
        add(model, v(1), NewVersion(snapshot("x")), author())
    staged = add(model, v(2), NewVersion(snapshot("2"), stage="staging"), author())
    assert stages_of(staged)["v2.0.0"] == "staging"
    for stage in ("production", "archived"):
        with pytest.raises(RegistryRefused, match="can't begin"):
            add(model, v(2), NewVersion(snapshot("2"), stage=stage), author())
    with pytest.raises(VersionNotFound):
        add(model, v(2), NewVersion(snapshot("2"), stage="test"), author())


def test_aliases_move_and_go() -> None:
    model = add(model_with(1), v(2), NewVersion(snapshot("2"), aliases=("best",)), author())
    model = set_alias(model, "best", v(1), author())
    assert model.aliases == {"best": "v1.0.0"}
    assert (model.history[-1].from_, model.history[-1].to) == ("v2.0.0", "v1.0.0")
    model = remove_alias(model, "best", author())
    assert model.aliases == {}
    assert (model.history[-1].from_, model.history[-1].to) == ("v1.0.0", "")
    with pytest.raises(InvalidName, match="is a stage"):
        set_alias(model, "production", v(1), author())
    with pytest.raises(InvalidName):
        set_alias(model, "v2", v(1), author())


def test_there_are_only_so_many_aliases() -> None:
    full = replace(model_with(1), aliases={f"a{number}": "v1.0.0" for number in range(ALIASES_MAX)})
    with pytest.raises(RegistryFull):
        set_alias(full, "one-more", v(1), author())


def test_a_full_document_takes_no_version_but_every_promotion() -> None:
    model = model_with(2, produced=[1, 2])
    card = "ü" * CARD_MAX_CHARACTERS
    number = 3
    with pytest.raises(RegistryFull, match=str(ROOM_TO_ADD_BYTES)):
        while number < 400:
            model = add(model, v(number), NewVersion(snapshot("x"), card=card), author())
            number += 1
    with pytest.raises(RegistryFull):
        add(model, v(999), NewVersion(snapshot("x"), card=card), author())
    model = move(model, v(3), "production", author("n" * 1024))
    assert roll_back(model, None, author()).render()


@pytest.mark.parametrize(
    "new",
    [
        NewVersion(snapshot("x"), run="../x"),
        NewVersion(snapshot("x"), metrics={"a": float("nan")}),
        NewVersion(snapshot("x"), metrics={"a": True}),
        NewVersion(snapshot("x"), metrics={"": 1.0}),
        NewVersion(snapshot("x"), metrics={"a\n": 1.0}),
        NewVersion(snapshot("x"), parameters={"a": "\x00"}),
        NewVersion(snapshot("x"), parameters={"a": "x" * 2000}),
        NewVersion(snapshot("x"), card="x" * (CARD_MAX_CHARACTERS + 1)),
        NewVersion(snapshot("x"), card="\x1b[2J"),
        NewVersion(snapshot("x"), aliases=("v1",)),
    ],
)
def test_what_is_told_of_a_version_is_checked(new: NewVersion) -> None:
    with pytest.raises(InvalidName):
        new.checked()


def test_there_are_only_so_many_metrics() -> None:
    with pytest.raises(RegistryRefused, match="at most 200"):
        NewVersion(snapshot("x"), metrics={f"m{n}": 1.0 for n in range(201)}).checked()


@pytest.mark.parametrize(
    "stages", [(), ("a", "b"), ("a", "b", "a"), ("A", "b", "c"), ("v1", "b", "c")]
)
def test_stages_are_three_different_words_or_more(stages: tuple[str, ...]) -> None:
    with pytest.raises(InvalidName):
        new_model("a", stages)


def test_the_last_but_one_of_ones_own_stages_is_production() -> None:
    model = new_model("a", ("new", "canary", "live", "retired"))
    for number in (1, 2):
        model = add(model, v(number), NewVersion(snapshot("x")), author())
        model = move(model, v(number), "live", author())
    assert stages_of(model) == {"v1.0.0": "retired", "v2.0.0": "live"}
    assert summary(model)["production"] == "v2.0.0"


NUMBERS = st.integers(1, 5)
STAGES = st.sampled_from(DEFAULT_STAGES)


class ModelMachine(RuleBasedStateMachine):
    """Whatever is done in whatever order: rules hold, and the history tells the whole story."""

    @initialize()
    def begin(self) -> None:
        self.model = new_model("iris_clf")

    @rule(number=NUMBERS)
    def add(self, number: int) -> None:
        self._try(lambda: add(self.model, v(number), NewVersion(snapshot(f"{number}")), author()))

    @rule(number=NUMBERS, stage=STAGES)
    def move(self, number: int, stage: str) -> None:
        self._try(lambda: move(self.model, v(number), stage, author()))

    @rule()
    def roll_back(self) -> None:
        before = self.model.live()
        if self._try(lambda: roll_back(self.model, None, author())):
            now = self.model.live()
            assert now is not None
            assert now.produced
            if before is not None:
                assert now.version != before.version
                assert self.model.find(parse_version(before.version)).withdrawn

    @rule(number=NUMBERS, alias=st.sampled_from(["best", "old"]))
    def alias(self, number: int, alias: str) -> None:
        self._try(lambda: set_alias(self.model, alias, v(number), author()))

    @rule(alias=st.sampled_from(["best", "old"]))
    def unalias(self, alias: str) -> None:
        self._try(lambda: remove_alias(self.model, alias, author()))

    @rule(number=NUMBERS)
    def deprecate(self, number: int) -> None:
        self._try(lambda: deprecate(self.model, v(number), author()))

    def _try(self, change: Callable[[], Model]) -> bool:
        before = self.model
        try:
            self.model = change()
        except SnapsyncError:
            return False
        kept = len(before.history)
        assert self.model.history[:kept] == before.history
        return self.model is not before

    @invariant()
    def one_is_in_production(self) -> None:
        if hasattr(self, "model"):
            stages = list(stages_of(self.model).values())
            assert stages.count("production") <= 1

    @invariant()
    def it_can_be_stored(self) -> None:
        if hasattr(self, "model"):
            assert Model.parse(self.model.render()) == self.model

    @invariant()
    def the_history_tells_where_everything_is(self) -> None:
        if not hasattr(self, "model"):
            return
        stages: dict[str, str] = {}
        aliases: dict[str, str] = {}
        for event in self.model.history:
            if event.action == "alias":
                assert aliases.get(event.alias, "") == event.from_
                aliases[event.alias] = event.to
            else:
                assert stages.get(event.version, "") == event.from_
                stages[event.version] = event.to
        assert stages == stages_of(self.model)
        assert {alias: to for alias, to in aliases.items() if to} == self.model.aliases


TestModelMachine = ModelMachine.TestCase
TestModelMachine.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
