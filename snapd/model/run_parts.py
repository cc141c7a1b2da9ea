"""What a run was made of: its code, its snapshots, and what it ran in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, ClassVar, Protocol

from snapd.model.errors import InvalidName, SnapsyncError
from snapd.model.facts import check_facts
from snapd.model.ids import SnapshotId
from snapd.model.names import shown
from snapd.model.registry import Fields
from snapd.model.uris import parse_store_uri

_COMMIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+:-]{0,127}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Code:
    """The code that ran: a commit, and what in the working tree differed from it."""

    commit: str
    dirty: bool | None = None
    """Whether tracked files differed from the commit."""
    repository: str | None = None
    """Where the repository is, without credentials."""
    untracked: int | None = None
    """Files and whole directories that the repository neither has nor ignores."""
    directory: str | None = None
    """Where in the repository the command was run, such as `.` or `train`."""

    def to_json(self) -> dict[str, Any]:
        """Render for the document."""
        return present(self)

    @classmethod
    def read(cls, below: Fields) -> Code:
        """Read what `to_json` wrote."""
        made = cls(
            below.checked("commit", parse_commit, "a commit"),
            below.flag("dirty") if below.has("dirty") else None,
            optional_text(below, "repository"),
            below.number("untracked") if below.has("untracked") else None,
            optional_text(below, "directory"),
        )
        below.end()
        return made


@dataclass(frozen=True, slots=True)
class Use:
    """A snapshot that a run used or made."""

    snapshot_id: SnapshotId
    reference: str | None = None
    """The name that led to it when the run was recorded: `imagenet@v1.2.0`."""
    path: str | None = None
    """Where it lay, or what it is called in the run."""
    store: str | None = None
    """The store that has it, if that is not the one of the record."""

    def to_json(self) -> dict[str, Any]:
        """Render for the document."""
        return present(self)

    @classmethod
    def read(cls, below: Fields) -> Use:
        """Read what `to_json` wrote."""
        made = cls(
            below.snapshot_id("snapshot_id"),
            optional_text(below, "reference"),
            optional_text(below, "path"),
            below.checked("store", lambda text: str(parse_store_uri(text)), "a store")
            if below.has("store")
            else None,
        )
        below.end()
        return made


@dataclass(frozen=True, slots=True)
class Environment:
    """What the code ran in."""

    python: str | None = None
    """The version of the interpreter: `3.11.9`."""
    lock_file: str | None = None
    """The path of the file that pins the packages, from the top of the repository."""
    lock_hash: str | None = None
    """`sha256:` and the hash of that file."""
    image: str | None = None
    """The container image, best by its digest."""
    platform: str | None = None
    """`Linux-6.1-x86_64`."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else people wrote."""

    def to_json(self) -> dict[str, Any]:
        """Render for the document."""
        return present(self)

    @classmethod
    def read(cls, below: Fields) -> Environment:
        """Read what `to_json` wrote."""
        made = cls(
            optional_text(below, "python"),
            optional_text(below, "lock_file"),
            optional_text(below, "lock_hash"),
            optional_text(below, "image"),
            optional_text(below, "platform"),
            read_facts(below, "extra"),
        )
        below.end()
        return made


def parse_commit(text: str) -> str:
    """Check the name of a commit as any version control writes it; raises `InvalidName`."""
    if not _COMMIT.fullmatch(text):
        raise InvalidName(
            f"not a commit: {shown(text)}",
            hint="As `git rev-parse HEAD` prints it; letters, digits and '._/+:-', at most 128.",
        )
    return text


def read_facts(top: Fields, name: str) -> dict[str, Any]:
    """Read free values, such as parameters; nothing if there are none."""
    values = top.mapping(name)
    try:
        return check_facts(values, name)
    except SnapsyncError as error:
        raise top.unfit(name, f"names with values ({error.message})") from error


def optional_text(below: Fields, name: str) -> str | None:
    """Read one line of text; None if there is none."""
    if not below.has(name):
        return None
    text = below.text(name)
    if not text or "\n" in text:
        raise below.unfit(name, "one line of text")
    return text


class _Fields(Protocol):
    """Any of the dataclasses of a record."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


def present(made: _Fields) -> dict[str, Any]:
    """Give what is known, ready for JSON."""
    known = {each.name: getattr(made, each.name) for each in fields(made)}
    return {name: _plain(value) for name, value in known.items() if _is_known(value)}


def _is_known(value: object) -> bool:
    return value not in (None, "", ()) and value != {} and value != Environment()


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, (Code, Use, Environment)):
        return value.to_json()
    # A copy that shares nothing, as it would be read again.
    return json.loads(json.dumps(value, allow_nan=False)) if isinstance(value, Mapping) else value
