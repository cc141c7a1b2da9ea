"""The document of a dataset: versions that lead to snapshots for good; `docs/registry.md`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, ClassVar

from snapd.model.errors import (
    RegistryDamaged,
    RegistryFull,
    RegistryRefused,
    VersionExists,
    VersionNotFound,
)
from snapd.model.ids import SnapshotId
from snapd.model.names import parse_name
from snapd.model.receipts import parse_moment
from snapd.model.references import Reference, Resolved
from snapd.model.registry import (
    DOCUMENT_MAX_BYTES,
    ROOM_TO_ADD_BYTES,
    VERSIONS_MAX,
    Author,
    Deprecation,
    Fields,
    read_document,
    render_document,
)
from snapd.model.versions import Version, parse_version

SCHEMA = "snapsync.dataset/1"
_SUGGESTED = 3


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """One published version; only its deprecation may come later."""

    version: str
    snapshot_id: SnapshotId
    at: str
    by: str
    note: str
    change: str
    deprecated: Deprecation | None = None

    def to_json(self) -> dict[str, Any]:
        """Render for the document."""
        document: dict[str, Any] = {
            "version": self.version,
            "snapshot_id": self.snapshot_id,
            "at": self.at,
            "by": self.by,
            "note": self.note,
            "change": self.change,
        }
        return document | ({"deprecated": self.deprecated.to_json()} if self.deprecated else {})

    @classmethod
    def read(cls, fields: Fields) -> DatasetVersion:
        """Read what `to_json` wrote."""
        made = cls(
            fields.version("version"),
            fields.snapshot_id("snapshot_id"),
            fields.moment("at"),
            fields.author("by"),
            fields.text("note"),
            fields.token("change"),
            Deprecation.read(fields.below("deprecated")) if fields.has("deprecated") else None,
        )
        fields.end()
        return made


@dataclass(frozen=True, slots=True)
class Dataset:
    """All versions of one dataset in the order in which they were published.

    A change returns a new document and raises without effect.
    """

    kind: ClassVar[str] = "dataset"

    name: str
    versions: tuple[DatasetVersion, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Dataset:
        """Read a document; raises `RegistryDamaged` or `RegistryTooNew` saying what is wrong."""
        fields = read_document(data, SCHEMA)
        name = fields.checked("name", parse_name, "a name")
        versions = tuple(DatasetVersion.read(each) for each in fields.each("versions"))
        fields.end()
        if len({each.version for each in versions}) != len(versions):
            raise RegistryDamaged("one of its versions is there twice")
        return cls(name, versions)

    def to_json(self) -> dict[str, Any]:
        """Render the document."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "versions": [each.to_json() for each in self.versions],
        }

    def render(self, *, bytes_max: int = DOCUMENT_MAX_BYTES) -> bytes:
        """Render the document as it is stored; raises `RegistryFull`."""
        return render_document(self.to_json(), bytes_max=bytes_max)

    def has_change(self, token: str) -> bool:
        """Tell whether the change of that token is in this document."""
        return any(
            token == each.change or (each.deprecated and token == each.deprecated.change)
            for each in self.versions
        )

    def last_change_at(self) -> float:
        """Tell the time of the latest change; 0 if there is none."""
        times = [each.at for each in self.versions]
        times += [each.deprecated.at for each in self.versions if each.deprecated]
        return max(map(parse_moment, times), default=0.0)

    def find(self, version: Version) -> DatasetVersion:
        """Find a version; raises `VersionNotFound` naming the nearest."""
        for each in self.versions:
            if each.version == str(version):
                return each
        raise version_not_found(self.name, str(version), [each.version for each in self.versions])

    def resolve(self, reference: Reference) -> Resolved:
        """Follow a reference to this dataset; raises `VersionNotFound`."""
        if isinstance(reference.selector, str):
            raise version_not_found(
                self.name,
                reference.selector,
                [each.version for each in self.versions],
                hint="A dataset has versions only; stages and aliases are those of models.",
            )
        found = self.find(reference.selector)
        why = found.deprecated.note if found.deprecated else None
        return Resolved(
            str(reference), "dataset", self.name, found.version, found.snapshot_id, deprecated=why
        )

    def latest(self) -> DatasetVersion | None:
        """Tell the highest version that is not deprecated, of releases if there is one."""
        usable = [
            (not version.prerelease, version, each)
            for each in self.versions
            if each.deprecated is None
            for version in [parse_version(each.version)]
        ]
        return max(usable, key=lambda each: each[:2])[2] if usable else None

    def add(self, version: Version, snapshot_id: SnapshotId, author: Author) -> Dataset:
        """Publish a version; raises `VersionExists`, `RegistryFull`, `ClockBehind`."""
        check_new_version(
            self.name,
            version,
            snapshot_id,
            {each.version: each.snapshot_id for each in self.versions},
        )
        made = DatasetVersion(
            str(version),
            snapshot_id,
            author.time_after(self.last_change_at()),
            author.by,
            author.note,
            author.token,
        )
        changed = replace(self, versions=(*self.versions, made))
        changed.render(bytes_max=ROOM_TO_ADD_BYTES)
        return changed

    def deprecate(self, version: Version, author: Author) -> Dataset:
        """Say that a version should not be used any more; that stays.

        Raises `VersionNotFound`, and `RegistryRefused` if it is deprecated already.
        """
        found = self.find(version)
        if found.deprecated is not None:
            raise RegistryRefused(
                f"{self.name}@{version} is deprecated already, by {found.deprecated.by}",
                hint="Nothing is left to do.",
            )
        at = author.time_after(self.last_change_at())
        said = Deprecation(at, author.by, author.note, author.token)
        changed = (
            replace(each, deprecated=said) if each is found else each for each in self.versions
        )
        return replace(self, versions=tuple(changed))


def check_new_version(
    name: str, version: Version, snapshot_id: SnapshotId | None, existing: dict[str, SnapshotId]
) -> None:
    """Refuse a version that is there already, and one more than there may be.

    Without a `snapshot_id` it is not known yet which one the new version is to be.
    """
    if str(version) in existing:
        same = existing[str(version)] == snapshot_id
        raise VersionExists(
            f"{name}@{version} exists already"
            + (" and is this snapshot" if same else f": it is {existing[str(version)]}"),
            hint="Nothing is left to do." if same else None,
            version=str(version),
            id=existing[str(version)],
        )
    if len(existing) >= VERSIONS_MAX:
        raise RegistryFull(f"{name} has {len(existing)} versions, as many as there may be")


def version_not_found(
    name: str, selector: str, known: Sequence[str], *, hint: str | None = None
) -> VersionNotFound:
    """Make the error for a version, stage or alias that a name does not have."""
    near = nearest(selector, known)
    said = f" (did you mean {', '.join(near)}?)" if near else ""
    return VersionNotFound(
        f"{name} has no {selector!r}{said}", hint=hint, name=name, nearest=list(near)
    )


def nearest(text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Choose what somebody may have meant: a little different, or longer."""
    close = get_close_matches(text, known, n=_SUGGESTED)
    longer = [each for each in known if text and each.startswith(text) and each not in close]
    return tuple([*close, *longer][:_SUGGESTED])
