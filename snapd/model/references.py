"""References: how people name a snapshot, and how that is told from its ID.

`imagenet@v1.2.0`, `iris_clf@production`, `iris_clf@champion`; `dataset:` or `model:` in front says
which of the two is meant where both have the name. An ID is 64 hexadecimal digits and has no `@`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from snapd.model.errors import InvalidId, InvalidReference
from snapd.model.ids import SnapshotId, parse_snapshot_id
from snapd.model.names import parse_name, parse_word, shown
from snapd.model.versions import Version, looks_like_version, parse_version

NameKind: TypeAlias = Literal["dataset", "model"]
KINDS: tuple[NameKind, ...] = ("dataset", "model")
REFERENCE_MAX_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class Reference:
    """A name, and which version of it: itself, or the stage or the alias that leads to it."""

    name: str
    selector: Version | str
    kind: NameKind | None = None
    """Which it has to be; None: whichever has the name."""

    def __str__(self) -> str:
        prefix = f"{self.kind}:" if self.kind else ""
        return f"{prefix}{self.name}@{self.selector}"


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where a reference led when it was looked up."""

    reference: str
    kind: NameKind
    name: str
    version: str
    snapshot_id: SnapshotId
    stage: str = ""
    """The stage of a model's version; datasets have none."""
    deprecated: str | None = None
    """Why the version should not be used any more; None: it is not deprecated."""

    def to_json(self) -> dict[str, Any]:
        """Render for the wire."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Resolved:
        """Read what `to_json` wrote; keys of a newer daemon are ignored."""
        return cls(**{key: document[key] for key in cls.__dataclass_fields__ if key in document})

    def line(self) -> str:
        """Say it for people: `iris_clf@production is v0.2.0, 1f0c...`."""
        version = "" if self.reference.endswith(f"@{self.version}") else f"{self.version}, "
        return f"{self.reference} is {version}{self.snapshot_id}"


def parse_reference(text: str) -> Reference:
    """Read a reference; raises `InvalidReference` or, for one of its parts, `InvalidName`."""
    stripped = text.strip()
    if len(stripped) > REFERENCE_MAX_CHARACTERS:
        raise InvalidReference(f"a reference of {len(stripped)} characters: {shown(stripped)}")
    kind, name = _split_kind(stripped)
    name, at, selector = name.partition("@")
    if not at or not selector:
        raise InvalidReference(
            f"{shown(stripped)} does not say which version",
            hint=f"Add it: {name or 'NAME'}@v1.2.0, or a model's {name or 'NAME'}@production.",
        )
    if looks_like_version(selector):
        return Reference(parse_name(name), parse_version(selector), kind)
    return Reference(parse_name(name), parse_word(selector, "a version, a stage or an alias"), kind)


def parse_id_or_reference(text: str) -> SnapshotId | Reference:
    """Read what may be either: it is a reference if it has an `@`, and else must be an ID."""
    if "@" in text:
        return parse_reference(text)
    try:
        return parse_snapshot_id(text)
    except InvalidId as neither:
        raise InvalidId(
            neither.message,
            hint=f"{InvalidId.default_hint} A reference says which version: NAME@v1.2.0.",
        ) from neither


def parse_version_reference(text: str, kind: NameKind) -> tuple[str, Version]:
    """Read `NAME@VERSION` where a version is to be made or changed; `kind:` may stand in front."""
    reference = parse_reference(text)
    if reference.kind not in (None, kind):
        raise InvalidReference(f"{shown(text)} is no {kind}")
    if isinstance(reference.selector, str):
        raise InvalidReference(
            f"{shown(text)} names no version", hint=f"Say which: {reference.name}@v1.2.0."
        )
    return reference.name, reference.selector


def parse_name_or_reference(text: str, kind: NameKind) -> str | Reference:
    """Read `NAME` or `NAME@SELECTOR` of one kind, where the whole name may be meant."""
    if "@" in text:
        reference = parse_reference(text)
        if reference.kind not in (None, kind):
            raise InvalidReference(f"{shown(text)} is no {kind}")
        return reference
    return parse_name(text.strip().removeprefix(f"{kind}:"))


def _split_kind(text: str) -> tuple[NameKind | None, str]:
    prefix, colon, rest = text.partition(":")
    if not colon:
        return None, text
    if prefix not in KINDS:
        raise InvalidReference(
            f"{shown(text)}: {shown(prefix)} is neither 'dataset' nor 'model'",
        )
    return prefix, rest
