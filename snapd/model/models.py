"""The document of a model: `registry.json`, with versions, stages, aliases and history.

Who knows the simple form, `name` and `versions` with `version` and `stage`, can read it as that;
`docs/registry.md` describes the rest. The rules of change are in `snapd.model.stages`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from snapd.model.datasets import version_not_found
from snapd.model.errors import InvalidName, RegistryDamaged, RegistryRefused, SnapsyncError
from snapd.model.ids import SnapshotId, digest_of
from snapd.model.model_history import (
    KEPT_EVENTS_MAX,
    PAGE_EVENTS,
    Archived,
    Event,
    HistoryPage,
    check_numbers,
)
from snapd.model.names import CARD_MAX_CHARACTERS, parse_name, parse_text, parse_word
from snapd.model.receipts import parse_moment
from snapd.model.references import Reference, Resolved
from snapd.model.registry import (
    DOCUMENT_MAX_BYTES,
    Deprecation,
    Fields,
    is_finite_number,
    read_document,
    render_document,
)
from snapd.model.versions import Version

SCHEMA = "snapsync.model/1"
DEFAULT_STAGES = ("dev", "staging", "production", "archived")
STAGES_MAX = 16
ALIASES_MAX = 100
VALUES_MAX = 200
"""Metrics, and parameters, of one version."""
VALUE_MAX_CHARACTERS = 1024
KEY_MAX_CHARACTERS = 128


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a model: what it is never changes, where it stands does."""

    version: str
    stage: str
    snapshot_id: SnapshotId
    at: str
    by: str
    note: str = ""
    run: str = ""
    """The run that made it, by its ID; empty: nobody said."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, str | float | bool] = field(default_factory=dict)
    card: str = ""
    """What people should know about it, usually Markdown."""
    moved: int = 0
    """The number of the event that put it where it is."""
    produced: int = 0
    """The number of the event that last put it in production; 0: it never was."""
    withdrawn: bool = False
    """It left production because somebody took it out, not because another one came."""
    deprecated: Deprecation | None = None

    def to_json(self) -> dict[str, Any]:
        """Render for the document; what is empty is left out."""
        document: dict[str, Any] = {
            "version": self.version,
            "stage": self.stage,
            "snapshot_id": self.snapshot_id,
            "at": self.at,
            "by": self.by,
            "moved": self.moved,
        }
        optional: dict[str, Any] = {
            "note": self.note,
            "run": self.run,
            "metrics": dict(self.metrics),
            "parameters": dict(self.parameters),
            "card": self.card,
            "produced": self.produced,
            "withdrawn": self.withdrawn,
            "deprecated": self.deprecated.to_json() if self.deprecated else None,
        }
        return document | {name: value for name, value in optional.items() if value}

    @classmethod
    def read(cls, fields: Fields) -> ModelVersion:
        """Read what `to_json` wrote."""
        made = cls(
            version=fields.version("version"),
            stage=fields.take("stage", str, "a stage"),
            snapshot_id=fields.snapshot_id("snapshot_id"),
            at=fields.moment("at"),
            by=fields.author("by"),
            moved=fields.number("moved", at_least=1),
            note=fields.text("note", ""),
            run=fields.checked("run", parse_name, "a run") if fields.has("run") else "",
            metrics=_checked_values(fields, "metrics"),
            parameters=_checked_values(fields, "parameters"),
            card=fields.checked("card", check_card, "a text") if fields.has("card") else "",
            produced=fields.number("produced", at_least=1) if fields.has("produced") else 0,
            withdrawn=fields.flag("withdrawn"),
            deprecated=(
                Deprecation.read(fields.below("deprecated")) if fields.has("deprecated") else None
            ),
        )
        fields.end()
        return made


@dataclass(frozen=True, slots=True)
class Model:
    """All that is known of one model.

    `stages` is in the order of promotion: new versions begin in the first; the last is where
    versions end; the one before it is production, in which there is one version at most.
    """

    kind: ClassVar[str] = "model"

    name: str
    versions: tuple[ModelVersion, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    history: tuple[Event, ...] = ()
    archived: Archived | None = None
    """The part of the history that lies in pages."""
    stages: tuple[str, ...] = DEFAULT_STAGES

    @property
    def production(self) -> str:
        """The stage of the one version that is served."""
        return self.stages[-2]

    @property
    def archive(self) -> str:
        """The stage of versions that are not used any more."""
        return self.stages[-1]

    @property
    def last_number(self) -> int:
        """The number of the latest event; 0 if there is none."""
        return (self.archived.events if self.archived else 0) + len(self.history)

    def live(self) -> ModelVersion | None:
        """Tell which version is in production."""
        return next((each for each in self.versions if each.stage == self.production), None)

    def has_change(self, token: str) -> bool:
        """Tell whether the change of that token is in the part of the history that is here."""
        return any(event.change == token for event in self.history)

    def last_change_at(self) -> float:
        """Tell the time of the latest event; 0 if there is none."""
        return parse_moment(self.history[-1].at) if self.history else 0.0

    def find(self, selector: Version | str) -> ModelVersion:
        """Find a version by itself, by its stage or by an alias.

        Of several in a stage it is the one that came there last. Raises `VersionNotFound` naming
        the nearest, and what to do if a stage is empty.
        """
        if not isinstance(selector, str) or selector in self.aliases:
            wanted = self.aliases[selector] if isinstance(selector, str) else str(selector)
            for each in self.versions:
                if each.version == wanted:
                    return each
        elif selector in self.stages:
            there = [each for each in self.versions if each.stage == selector]
            if there:
                return max(there, key=lambda each: each.moved)
            raise version_not_found(
                self.name, selector, (), hint=f"No version is in {selector}: promote one."
            )
        known = [*(each.version for each in self.versions), *self.stages, *self.aliases]
        raise version_not_found(self.name, str(selector), known)

    def resolve(self, reference: Reference) -> Resolved:
        """Follow a reference to this model; raises `VersionNotFound`."""
        found = self.find(reference.selector)
        return Resolved(
            str(reference),
            "model",
            self.name,
            found.version,
            found.snapshot_id,
            found.stage,
            found.deprecated.note if found.deprecated else None,
        )

    def spill(self) -> tuple[HistoryPage, Model] | None:
        """Split the oldest events off if there are too many, all of which have been written before.

        Returns the page, and the document that counts on it; None if there is room.
        """
        if len(self.history) <= KEPT_EVENTS_MAX:
            return None
        moved, kept = self.history[:PAGE_EVENTS], self.history[PAGE_EVENTS:]
        page = HistoryPage(self.name, moved, self.archived.digest if self.archived else None)
        archived = Archived(moved[-1].number, digest_of(page.render()))
        return page, replace(self, history=kept, archived=archived)

    def to_json(self) -> dict[str, Any]:
        """Render the document."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "stages": list(self.stages),
            "versions": [each.to_json() for each in self.versions],
            "aliases": dict(self.aliases),
            "archived": self.archived.to_json() if self.archived else None,
            "history": [event.to_json() for event in self.history],
        }

    def render(self, *, bytes_max: int = DOCUMENT_MAX_BYTES) -> bytes:
        """Render the document as it is stored; raises `RegistryFull`."""
        return render_document(self.to_json(), bytes_max=bytes_max)

    @classmethod
    def parse(cls, data: bytes) -> Model:
        """Read a document; raises `RegistryDamaged` or `RegistryTooNew` saying what is wrong."""
        fields = read_document(data, SCHEMA)
        made = cls(
            name=fields.checked("name", parse_name, "a name"),
            stages=_read_stages(fields),
            versions=tuple(ModelVersion.read(each) for each in fields.each("versions")),
            aliases=_read_aliases(fields),
            archived=_read_archived(fields),
            history=tuple(Event.read(each) for each in fields.each("history")),
        )
        fields.end()
        made._check()
        return made

    def _check(self) -> None:
        versions = {each.version for each in self.versions}
        if len(versions) != len(self.versions):
            raise RegistryDamaged("one of its versions is there twice")
        for each in self.versions:
            if each.stage not in self.stages:
                raise RegistryDamaged(f"its {each.version} is in no stage of its stages")
            if max(each.moved, each.produced) > self.last_number:
                raise RegistryDamaged(f"its {each.version} names an event that is not there")
        if sum(each.stage == self.production for each in self.versions) > 1:
            raise RegistryDamaged(f"more than one of its versions is in {self.production}")
        for alias, version in self.aliases.items():
            if version not in versions:
                raise RegistryDamaged(f"its alias {alias!r} leads to no version")
        check_numbers(self.history, self.last_number - len(self.history) + 1)


def check_stages(stages: Sequence[str]) -> tuple[str, ...]:
    """Check the stages that a model is to have; raises `InvalidName`."""
    checked = tuple(parse_word(stage, "a stage") for stage in stages)
    if not 3 <= len(checked) <= STAGES_MAX or len(set(checked)) != len(checked):
        raise InvalidName(
            f"not the stages of a model: {', '.join(checked)[:200]}",
            hint=f"3 to {STAGES_MAX} different ones, the last two being production and archive.",
        )
    return checked


def check_values(values: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Check metrics (numbers) or parameters (also texts, true and false); raises `InvalidName`."""
    if len(values) > VALUES_MAX:
        raise RegistryRefused(
            f"{len(values)} {kind}, and at most {VALUES_MAX} are kept",
            hint="The record of the run holds the rest.",
        )
    for key, value in values.items():
        parse_text(key, f"a name in {kind}", characters_max=KEY_MAX_CHARACTERS)
        if not key.strip() or "\n" in key:
            raise InvalidName(f"an empty name in {kind}", hint="Write NAME=VALUE.")
        if isinstance(value, str) and kind == "parameters":
            parse_text(value, f"{kind}.{key}", characters_max=VALUE_MAX_CHARACTERS)
        elif not is_finite_number(value) and not (isinstance(value, bool) and kind == "parameters"):
            raise InvalidName(f"{kind}.{key} is no number", hint="Write NAME=VALUE.")
    return dict(values)


def check_card(text: str) -> str:
    """Check a model's card; raises `InvalidName`."""
    return parse_text(text, "a card", characters_max=CARD_MAX_CHARACTERS)


def _checked_values(fields: Fields, name: str) -> dict[str, Any]:
    values = fields.mapping(name)
    try:
        return check_values(values, name)
    except SnapsyncError as error:
        raise fields.unfit(name, "names with values") from error


def _read_stages(fields: Fields) -> tuple[str, ...]:
    values = fields.values("stages")
    try:
        return check_stages([str(value) for value in values])
    except SnapsyncError as error:
        raise fields.unfit("stages", "a list of stages") from error


def _read_aliases(fields: Fields) -> dict[str, str]:
    below = fields.below("aliases")
    aliases = {}
    for alias in below.names():
        try:
            aliases[parse_word(alias, "an alias")] = below.version(alias)
        except InvalidName as error:
            raise fields.unfit("aliases", "names with versions") from error
    return aliases


def _read_archived(fields: Fields) -> Archived | None:
    value = fields.take_any("archived")
    return None if value is None else Archived.read(Fields(value, "archived"))
