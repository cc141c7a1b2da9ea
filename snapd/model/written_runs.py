"""Runs as people and programs write them down, before references are looked up.

    run_id: iris-7
    code_commit: 9f3c5e01
    data_snapshot: imagenet@v1.2.0       # a reference or an ID, a list, or a mapping of them
    params: {lr: 0.1}
    env: {python: 3.11.9, lock_hash: ..., image: ..., whatever: else}
    outputs: {model: 018a9bbc...}
    metrics: {accuracy: 0.93}

The record's own form (`snapsync.run/1`) is read, too. Nothing that was written is left out: what is
not understood is refused.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from snapd.model.errors import InvalidId, UsageError
from snapd.model.ids import SnapshotId
from snapd.model.names import parse_author, parse_name, parse_text, shown
from snapd.model.references import Reference, parse_id_or_reference, parse_reference
from snapd.model.registry import Author
from snapd.model.run_parts import Code, Environment, Use, parse_commit
from snapd.model.runs import SCHEMA, USES_MAX, Run, author_of_run
from snapd.model.secrecy import without_credentials
from snapd.model.uris import parse_store_uri
from snapd.model.written_values import (
    facts_of,
    flag_of,
    number_of,
    refuse_rest,
    spelled,
    text_of,
    text_or_none,
)

SPELLINGS = {
    "code_commit": "code",
    "commit": "code",
    "data_snapshot": "data",
    "data_snapshots": "data",
    "params": "parameters",
    "env": "environment",
    "output": "outputs",
}
"""Other names of the fields of a record."""
TYPED = frozenset({"params", "parameters", "metrics", "seed"})
"""Fields in which a word that looks like a number is one. Elsewhere it is the text that it is: a
commit 1234567, a Python 3.10."""
_ENVIRONMENT_SPELLINGS = {
    "python_version": "python",
    "lockfile_hash": "lock_hash",
    "image_digest": "image",
    "container_image": "image",
    "docker_image": "image",
}
_ID_KEYS, _REFERENCE_KEYS = ("snapshot_id", "id", "snapshot"), ("reference", "ref")


@dataclass(frozen=True, slots=True)
class Named:
    """A snapshot as somebody wrote it down; `said` is a reference written beside its ID."""

    named: SnapshotId | Reference
    path: str | None = None
    store: str | None = None
    said: Reference | None = None
    is_proven: bool = False
    """It needs no look at the store: this node pulled it from there, or pushed it, in the run."""

    def reference(self) -> Reference | None:
        """Give the reference that stands for it, or beside it."""
        return self.named if isinstance(self.named, Reference) else self.said

    def to_json(self) -> dict[str, Any]:
        """Render in the form that `run_as_written` reads."""
        said = self.named if isinstance(self.named, Reference) else self.said
        fields = {
            "snapshot_id": None if isinstance(self.named, Reference) else self.named,
            "reference": None if said is None else str(said),
            "path": self.path,
            "store": self.store,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def use(self) -> Use:
        """Say it for good, once it is known which snapshot it is."""
        if isinstance(self.named, Reference):
            raise UsageError(f"{self.named} has not been looked up")
        return Use(self.named, str(self.said) if self.said else None, self.path, self.store)


@dataclass(frozen=True, slots=True)
class WrittenRun:
    """What is known of a run that is to be recorded."""

    run_id: str | None = None
    data: tuple[Named, ...] = ()
    outputs: tuple[Named, ...] = ()
    known: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the `Run`."""
    by: str | None = None
    note: str = ""

    def run(self, run_id: str, author: Author) -> Run:
        """Make the record once all references were looked up; raises `InvalidName`."""
        return Run(
            run_id=run_id,
            data=tuple(each.use() for each in self.data),
            outputs=tuple(each.use() for each in self.outputs),
            **author_of_run(author),
            **self.known,
        ).checked()

    def to_json(self) -> dict[str, Any]:
        """Render what is known, in the form that `run_as_written` reads."""
        plain = Run("unnamed", "", "", "", **self.known).to_json()
        for name in ("schema", "run_id"):
            del plain[name]
        uses = {"data": self.data, "outputs": self.outputs}
        return plain | {name: [each.to_json() for each in there] for name, there in uses.items()}


def run_as_written(document: object) -> WrittenRun:
    """Read a mapping in either form; raises `UsageError` naming the field that is unfit."""
    if not isinstance(document, Mapping):
        raise UsageError("the run is no mapping of fields", hint="See docs/runs.md.")
    fields = spelled(document, SPELLINGS, "the run")
    schema = fields.pop("schema", SCHEMA)
    if schema != SCHEMA:
        raise UsageError(
            f"it is a {shown(str(schema))}, and this program reads {SCHEMA!r}",
            hint="Use the version of snapsync that wrote it.",
        )
    for mark in ("at", "change"):
        fields.pop(mark, None)
    run_id, by, note = (text_of(fields.pop(name, None), name) for name in ("run_id", "by", "note"))
    written = WrittenRun(
        None if run_id is None else parse_name(run_id),
        read_uses(fields.pop("data", None), "data"),
        read_uses(fields.pop("outputs", None), "outputs"),
        _known(fields),
        None if by is None else parse_author(by),
        parse_text(note or "", "a note"),
    )
    if fields:
        refuse_rest(fields, _KNOWN_FIELDS, "the run")
    return written


def read_uses(value: object, where: str) -> tuple[Named, ...]:
    """Read snapshots: a text, a list of them, or a mapping of them by name or path."""
    if text_or_none(value) is None and not isinstance(value, (list, Mapping)):
        return ()
    if isinstance(value, Mapping) and not set(value) & {*_ID_KEYS, *_REFERENCE_KEYS}:
        pairs: list[tuple[str | None, Any]] = [(str(key), below) for key, below in value.items()]
    else:
        pairs = [(None, below) for below in (value if isinstance(value, list) else [value])]
    if len(pairs) > USES_MAX:
        raise UsageError(f"{where} names {len(pairs)} snapshots, and at most {USES_MAX} are kept")
    return tuple(_read_use(below, label, where) for label, below in pairs)


def read_named(text: str, where: str) -> Named:
    """Read `ID`, `REFERENCE`, `NAME=ID` or `NAME=REFERENCE`."""
    label, equals, rest = text.rpartition("=")
    return _read_use(rest, label if equals else None, where)


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    """Take the fields that need no looking up."""
    known: dict[str, Any] = {
        "code": _read_code(fields.pop("code", None), fields),
        "parameters": facts_of(fields.pop("parameters", None), "parameters"),
        "metrics": facts_of(fields.pop("metrics", None), "metrics"),
        "environment": _read_environment(fields.pop("environment", None)),
        "command": _read_command(fields.pop("command", None)),
        "exit_status": number_of(fields.pop("exit_status", None), "exit_status"),
    }
    seed = fields.pop("seed", None)
    known["seed"] = seed if type(seed) is int else text_of(seed, "seed")
    for name in ("host", "started_at", "ended_at"):
        known[name] = text_of(fields.pop(name, None), name)
    return {name: value for name, value in known.items() if value is not None}


_KNOWN_FIELDS = (
    *("run_id", "code_commit", "data_snapshot", "params", "env", "outputs", "metrics"),
    *("code", "data", "parameters", "environment", "repository", "dirty", "seed", "host"),
    *("command", "exit_status", "started_at", "ended_at", "by", "note"),
)


def _read_code(value: object, fields: dict[str, Any]) -> Code | None:
    """Read a commit, or a mapping; `repository` and `dirty` may also stand beside a commit."""
    if isinstance(value, Mapping):
        found = spelled(value, {"repo": "repository"}, "code")
    else:
        found = {"commit": value}
        for name in ("repository", "dirty"):
            if name in fields:
                found[name] = fields.pop(name)
    commit = text_of(found.pop("commit", None), "code.commit")
    repository = text_of(found.pop("repository", None), "code.repository")
    code = (
        flag_of(found.pop("dirty", None), "code.dirty"),
        repository and without_credentials(repository),
        number_of(found.pop("untracked", None), "code.untracked"),
        text_of(found.pop("directory", None), "code.directory"),
    )
    if found:
        refuse_rest(found, ("commit", "dirty", "repository", "untracked", "directory"), "code")
    if commit is None and any(each is not None for each in code):
        raise UsageError("the code has no commit")
    return None if commit is None else Code(parse_commit(commit), *code)


def _read_environment(value: object) -> Environment | None:
    if isinstance(value, list):
        value = {"packages": value}
    if not isinstance(value, Mapping):
        text = text_of(value, "env")
        return None if text is None else Environment(extra={"text": text})
    found = spelled(value, _ENVIRONMENT_SPELLINGS, "env")
    known = {
        name: text_of(found.pop(name, None), f"env.{name}")
        for name in ("python", "lock_file", "lock_hash", "image", "platform")
    }
    extra = found.pop("extra", None)
    more = {"extra": extra} if extra is not None and not isinstance(extra, Mapping) else extra
    return Environment(**known, extra=facts_of({**found, **(more or {})}, "env"))


def _read_command(value: object) -> tuple[str, ...]:
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        return tuple(value)
    text = text_of(value, "command")
    try:
        return () if text is None else tuple(shlex.split(text))
    except ValueError as error:
        raise UsageError(f"the command is no command line: {error}") from error


def _read_use(value: object, label: str | None, where: str) -> Named:
    if isinstance(value, Mapping):
        found = spelled(
            value,
            dict.fromkeys(_ID_KEYS[1:], _ID_KEYS[0]) | {"ref": "reference", "uri": "store"},
            where,
        )
        names = ("snapshot_id", "reference", "path", "store")
        snapshot, said, path, store = (
            text_of(found.pop(name, None), f"{where}.{name}") for name in names
        )
        if found:
            refuse_rest(found, names, where)
    else:
        snapshot, said, path, store = text_of(value, where), None, None, None
    if snapshot is None and said is None:
        raise UsageError(
            f"{where} names {shown(label or path or '')} without an ID",
            hint="Push it, and write down the ID that the push printed.",
        )
    reference = None if said is None else parse_reference(said)
    if label is not None and "@" in label and reference is None:
        reference, label = parse_reference(label), None
    if snapshot is None:
        assert reference is not None
        return Named(reference, path or label, _store(store))
    return Named(_parse_named(snapshot, where), path or label, _store(store), reference)


def _parse_named(text: str, where: str) -> SnapshotId | Reference:
    try:
        return parse_id_or_reference(text)
    except InvalidId as neither:
        raise InvalidId(
            f"{where}: {neither.message}",
            hint="Write an ID, as `snapctl push` prints it, or a reference: NAME@v1.2.0.",
        ) from neither


def _store(text: str | None) -> str | None:
    return None if text is None else str(parse_store_uri(text))
