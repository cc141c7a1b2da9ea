"""How a model's document may change: one pure function a verb, one write each.

Every function returns the new document, or raises and nothing is changed. Asked for what is so
already, `move`, `set_alias` and `remove_alias` return the document itself, which is not written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from snapd.model.datasets import check_new_version, nearest
from snapd.model.errors import (
    InvalidName,
    NothingToRollBack,
    RegistryFull,
    RegistryRefused,
    VersionDeprecated,
    VersionNotFound,
)
from snapd.model.ids import SnapshotId
from snapd.model.model_history import Action, Event
from snapd.model.models import (
    ALIASES_MAX,
    DEFAULT_STAGES,
    Model,
    ModelVersion,
    check_card,
    check_stages,
    check_values,
)
from snapd.model.names import parse_name, parse_word
from snapd.model.registry import (
    ROOM_TO_ADD_BYTES,
    ROOM_TO_DEPRECATE_BYTES,
    Author,
    Deprecation,
)
from snapd.model.versions import Version


@dataclass(frozen=True, slots=True)
class NewVersion:
    """What is told of a version when it is added; `checked` refuses what a document can't hold."""

    snapshot_id: SnapshotId
    stage: str = ""
    """Where it begins; empty: in the first stage."""
    run: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    parameters: Mapping[str, str | float | bool] = field(default_factory=dict)
    card: str = ""
    aliases: tuple[str, ...] = ()
    """Aliases that lead to it from now on."""

    def checked(self) -> NewVersion:
        """Give itself; raises `InvalidName` or `RegistryRefused` naming what is not accepted."""
        if self.run:
            parse_name(self.run)
        check_values(self.metrics, "metrics")
        check_values(self.parameters, "parameters")
        check_card(self.card)
        for alias in self.aliases:
            parse_word(alias, "an alias")
        return self


def new_model(name: str, stages: Sequence[str] = DEFAULT_STAGES) -> Model:
    """Make the document of a model without versions; raises `InvalidName`."""
    return Model(parse_name(name), stages=check_stages(stages))


def add(model: Model, version: Version, new: NewVersion, author: Author) -> Model:
    """Add a version in its first stage, and let aliases lead to it.

    Raises `VersionExists`, `VersionNotFound` for a stage that does not exist, `RegistryRefused` for
    one that takes a promotion, `RegistryFull`, `ClockBehind`.
    """
    existing = {each.version: each.snapshot_id for each in model.versions}
    check_new_version(model.name, version, new.snapshot_id, existing)
    stage = new.stage or model.stages[0]
    _check_stage(model, stage)
    if stage in (model.production, model.archive):
        raise RegistryRefused(
            f"{model.name}@{version} can't begin in {stage}",
            hint="Add it first, then promote it: the history tells both.",
        )
    added = ModelVersion(
        version=str(version),
        stage=stage,
        snapshot_id=new.snapshot_id,
        at=author.time_after(model.last_change_at()),
        by=author.by,
        note=author.note,
        run=new.run,
        metrics=dict(new.metrics),
        parameters=dict(new.parameters),
        card=new.card,
        moved=model.last_number + 1,
    )
    model = _noted(
        replace(model, versions=(*model.versions, added)), author, "add", added.version, to=stage
    )
    for alias in new.aliases:
        model = set_alias(model, alias, version, author)
    model.render(bytes_max=ROOM_TO_ADD_BYTES)
    return model


def move(model: Model, selector: Version | str, stage: str, author: Author) -> Model:
    """Promote a version to a stage, or move it back to one; empty: to the next stage.

    What is in production then is archived by the same write. Raises `VersionNotFound`,
    `VersionDeprecated` unless it is archived, `RegistryRefused` if there is no next stage.
    """
    found = model.find(selector)
    target = stage or _next_stage(model, found)
    _check_stage(model, target)
    if found.stage == target:
        return model
    if found.deprecated is not None and target != model.archive:
        raise VersionDeprecated(
            f"{model.name}@{found.version} is deprecated since {found.deprecated.at}"
            f" ({found.deprecated.note or 'no reason given'})",
            version=found.version,
        )
    action: Action = "archive" if target == model.archive else "promote"
    return _moved(model, found, target, action, author)


def roll_back(model: Model, to: Version | None, author: Author) -> Model:
    """Put the version that was in production before back there, and archive the present one.

    Of those that were in production it is the latest that nobody took out of it: neither the
    present one, nor one that was itself rolled back, archived by hand or deprecated. The one that
    is rolled back counts as withdrawn, so that the next rollback goes further back. `to` names
    another. Raises `NothingToRollBack`, `VersionNotFound`, `VersionDeprecated`.
    """
    live = model.live()
    if to is not None:
        found = model.find(to)
        if found is live:
            raise NothingToRollBack(
                f"{model.name}@{found.version} is in {model.production} already",
                hint="Nothing is left to do.",
            )
        if found.deprecated is not None:
            raise VersionDeprecated(f"{model.name}@{found.version} is deprecated")
    else:
        earlier = [
            each
            for each in model.versions
            if each.produced and each is not live and not each.withdrawn and not each.deprecated
        ]
        if not earlier:
            raise NothingToRollBack(f"no version of {model.name} was in production before")
        found = max(earlier, key=lambda each: each.produced)
    return _moved(model, found, model.production, "rollback", author)


def set_alias(model: Model, alias: str, selector: Version | str, author: Author) -> Model:
    """Let an alias lead to a version, whatever it led to before.

    Raises `InvalidName` for one that is a stage, `VersionNotFound`, `RegistryFull`.
    """
    parse_word(alias, "an alias")
    if alias in model.stages:
        raise InvalidName(
            f"{alias!r} is a stage of {model.name}", hint="Choose an alias that is no stage."
        )
    found = model.find(selector)
    before = model.aliases.get(alias, "")
    if before == found.version:
        return model
    if not before and len(model.aliases) >= ALIASES_MAX:
        raise RegistryFull(f"{model.name} has {ALIASES_MAX} aliases, as many as there may be")
    changed = replace(model, aliases={**model.aliases, alias: found.version})
    return _noted(
        changed, author, "alias", found.version, from_=before, to=found.version, alias=alias
    )


def remove_alias(model: Model, alias: str, author: Author) -> Model:
    """Take an alias away; raises `VersionNotFound` if there is none."""
    if alias not in model.aliases:
        raise VersionNotFound(f"{model.name} has no alias {alias!r}", name=model.name)
    before = model.aliases[alias]
    left = {name: version for name, version in model.aliases.items() if name != alias}
    changed = replace(model, aliases=left)
    return _noted(changed, author, "alias", before, from_=before, alias=alias)


def deprecate(model: Model, selector: Version | str, author: Author) -> Model:
    """Say that a version should not be used any more; that stays, and it can't be promoted again.

    Raises `VersionNotFound`, and `RegistryRefused` for what is in production or deprecated already.
    """
    found = model.find(selector)
    if found.deprecated is not None:
        raise RegistryRefused(
            f"{model.name}@{found.version} is deprecated already, by {found.deprecated.by}",
            hint="Nothing is left to do.",
        )
    if found.stage == model.production:
        raise RegistryRefused(
            f"{model.name}@{found.version} is in {model.production}",
            hint="Promote another version or roll back first.",
        )
    at = author.time_after(model.last_change_at())
    said = Deprecation(at, author.by, author.note, author.token)
    changed = _with(model, replace(found, deprecated=said))
    changed.render(bytes_max=ROOM_TO_DEPRECATE_BYTES)
    return _noted(changed, author, "deprecate", found.version, from_=found.stage, to=found.stage)


def _moved(model: Model, found: ModelVersion, target: str, action: Action, author: Author) -> Model:
    """Move a version, after whatever was in production has made room."""
    live = model.live()
    if target == model.production and live is not None:
        model = _placed(model, live, model.archive, withdrawn=action == "rollback")
        model = _noted(model, author, "archive", live.version, from_=live.stage, to=model.archive)
    leaves = found.stage == model.production
    model = _placed(model, found, target, withdrawn=leaves or found.withdrawn)
    return _noted(model, author, action, found.version, from_=found.stage, to=target)


def _placed(model: Model, found: ModelVersion, stage: str, *, withdrawn: bool) -> Model:
    number = model.last_number + 1
    there = stage == model.production
    changed = replace(
        found,
        stage=stage,
        moved=number,
        produced=number if there else found.produced,
        withdrawn=withdrawn and not there,
    )
    return _with(model, changed)


def _with(model: Model, changed: ModelVersion) -> Model:
    versions = (changed if each.version == changed.version else each for each in model.versions)
    return replace(model, versions=tuple(versions))


def _noted(
    model: Model,
    author: Author,
    action: Action,
    version: str,
    *,
    from_: str = "",
    to: str = "",
    alias: str = "",
) -> Model:
    event = Event(
        model.last_number + 1,
        author.time_after(model.last_change_at()),
        author.by,
        action,
        version,
        from_,
        to,
        author.note,
        author.token,
        alias,
    )
    return replace(model, history=(*model.history, event))


def _next_stage(model: Model, found: ModelVersion) -> str:
    place = model.stages.index(found.stage)
    if place >= len(model.stages) - 2:
        raise RegistryRefused(
            f"{model.name}@{found.version} is in {found.stage}: there is no next stage",
            hint="Say where to with --to.",
        )
    return model.stages[place + 1]


def _check_stage(model: Model, stage: str) -> None:
    if stage not in model.stages:
        near = nearest(stage, model.stages)
        said = f" (did you mean {', '.join(near)}?)" if near else ""
        raise VersionNotFound(
            f"{model.name} has no stage {stage!r}{said}",
            hint=f"Its stages are {', '.join(model.stages)}.",
            stages=list(model.stages),
            nearest=list(near),
        )


def summary(model: Model) -> dict[str, Any]:
    """Say in short how a model stands, for listings."""
    live = model.live()
    return {
        "name": model.name,
        "versions": len(model.versions),
        "production": live.version if live else None,
        "aliases": dict(model.aliases),
        "changed_at": model.history[-1].at if model.history else None,
    }
