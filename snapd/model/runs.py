"""The record of a run: which code made which snapshots of which data; `docs/runs.md`.

A record never changes. What is not known is None or empty, and absent in the document. How people
write a run by hand is read in `snapd.model.written_runs`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any, ClassVar, Literal, TypeAlias

from snapd.model.errors import InvalidName, RegistryDamaged
from snapd.model.facts import check_facts
from snapd.model.ids import SnapshotId
from snapd.model.names import parse_name, parse_text
from snapd.model.receipts import parse_moment
from snapd.model.registry import (
    Author,
    Fields,
    read_document,
    render_document,
)
from snapd.model.run_parts import Code, Environment, Use, optional_text, present, read_facts
from snapd.model.settings import MIB

SCHEMA = "snapsync.run/1"
LINK_SCHEMA = "snapsync.run-link/1"
RUN_MAX_BYTES = 1 * MIB
USES_MAX = 1000
"""Snapshots that a run used, and that it made."""
ARGUMENTS_MAX = 10_000
ARGUMENT_MAX_CHARACTERS = 16 * 1024
_OUR_ID = re.compile(r"([0-9]{8}T[0-9]{6}Z)-[0-9a-f]{8}", re.ASCII)
_ID_TIME = "%Y%m%dT%H%M%SZ"

LinkKind: TypeAlias = Literal["used-by", "made-by"]
"""Which way a snapshot leads to a run: it is the run's data, or its output."""


@dataclass(frozen=True, slots=True)
class Run:
    """All that is recorded of one run; `change` is the mark of the write that recorded it."""

    kind: ClassVar[str] = "run"

    run_id: str
    at: str
    """When it was recorded."""
    by: str
    change: str
    note: str = ""
    code: Code | None = None
    data: tuple[Use, ...] = ()
    outputs: tuple[Use, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    environment: Environment = field(default_factory=Environment)
    seed: int | str | None = None
    host: str | None = None
    command: tuple[str, ...] = ()
    """The program and its arguments; what looked like a secret is masked."""
    exit_status: int | None = None
    """What the command ended with; of a signal, its number and 128."""
    started_at: str | None = None
    ended_at: str | None = None

    @property
    def name(self) -> str:
        """The ID: what a record is asked for by."""
        return self.run_id

    def uses(self, snapshot_id: SnapshotId) -> bool:
        """Tell whether the snapshot is among the data."""
        return any(each.snapshot_id == snapshot_id for each in self.data)

    def makes(self, snapshot_id: SnapshotId) -> bool:
        """Tell whether the snapshot is among the outputs."""
        return any(each.snapshot_id == snapshot_id for each in self.outputs)

    def is_linked(self, kind: LinkKind, snapshot_id: SnapshotId) -> bool:
        """Tell whether a link of that kind, from that snapshot, says the truth."""
        return self.uses(snapshot_id) if kind == "used-by" else self.makes(snapshot_id)

    def links(self) -> list[tuple[LinkKind, SnapshotId]]:
        """Name each link that has to be there before the record is."""
        used: set[tuple[LinkKind, SnapshotId]] = {
            ("used-by", each.snapshot_id) for each in self.data
        }
        return sorted(used | {("made-by", each.snapshot_id) for each in self.outputs})

    def happened_at(self) -> float:
        """Tell when it was: when it began or, if nobody said so, when it was recorded."""
        return parse_moment(self.started_at or self.at)

    def differences(self, other: Run) -> list[str]:
        """Name what another record says differently; who recorded it and when do not count."""
        ours, theirs = (replace(each, at="", by="", change="") for each in (self, other))
        return [
            each.name
            for each in fields(self)
            if getattr(ours, each.name) != getattr(theirs, each.name)
        ]

    def to_json(self) -> dict[str, Any]:
        """Render the document; what is not known is left out."""
        return {"schema": SCHEMA, **present(self)}

    def render(self, *, bytes_max: int = RUN_MAX_BYTES) -> bytes:
        """Render the document as it is stored; raises `RegistryFull`."""
        return render_document(self.to_json(), bytes_max=bytes_max)

    def checked(self) -> Run:
        """Return the run as it would be read again; raises `InvalidName` saying what is unfit."""
        check_facts(self.parameters, "parameters")
        check_facts(self.metrics, "metrics")
        check_facts(self.environment.extra, "environment")
        try:
            return self.parse(self.render())
        except RegistryDamaged as damaged:
            raise InvalidName(
                f"not the record of a run: {damaged.message}", hint="See docs/runs.md."
            ) from damaged
        except UnicodeEncodeError as error:
            raise InvalidName(
                f"no record of a run: it holds {error.object[error.start]!a}, half a character",
                hint="JSON escapes of characters beyond U+FFFF come in pairs.",
            ) from error

    @classmethod
    def parse(cls, data: bytes) -> Run:
        """Read a document; raises `RegistryDamaged` or `RegistryTooNew` saying what is wrong."""
        top = read_document(data, SCHEMA)
        made = cls(
            run_id=top.checked("run_id", parse_name, "the ID of a run"),
            at=top.moment("at"),
            by=top.author("by"),
            change=top.token("change"),
            note=top.text("note", ""),
            code=Code.read(top.below("code")) if top.has("code") else None,
            data=_read_uses(top, "data"),
            outputs=_read_uses(top, "outputs"),
            parameters=read_facts(top, "parameters"),
            metrics=read_facts(top, "metrics"),
            environment=(
                Environment.read(top.below("environment"))
                if top.has("environment")
                else Environment()
            ),
            seed=_read_seed(top),
            host=optional_text(top, "host"),
            command=_read_command(top),
            exit_status=top.number("exit_status") if top.has("exit_status") else None,
            started_at=top.moment("started_at") if top.has("started_at") else None,
            ended_at=top.moment("ended_at") if top.has("ended_at") else None,
        )
        top.end()
        if made.started_at and made.ended_at and not _in_order(made.started_at, made.ended_at):
            raise RegistryDamaged("its ended_at is before its started_at")
        return made


def new_run_id(at: float, token: str) -> str:
    """Make an ID that sorts by time, of 8 hexadecimal digits: `20260301T090000Z-3f2a91c0`."""
    return f"{datetime.fromtimestamp(at, UTC).strftime(_ID_TIME)}-{token[:8]}"


def time_in_run_id(run_id: str) -> float | None:
    """Tell the time in an ID that `new_run_id` made; None if somebody else chose it."""
    found = _OUR_ID.fullmatch(run_id)
    if found is None:
        return None
    try:
        return datetime.strptime(found[1], _ID_TIME).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def render_link(kind: LinkKind, snapshot_id: SnapshotId, run_id: str) -> bytes:
    """Render the document that leads from a snapshot to a run; the same for the same three."""
    return render_document(
        {"schema": LINK_SCHEMA, "snapshot_id": snapshot_id, "kind": kind, "run_id": run_id}
    )


def author_of_run(author: Author) -> dict[str, Any]:
    """Give the fields of a `Run` that tell who records it."""
    return {
        "at": author.time_after(0.0),
        "by": author.by,
        "change": author.token,
        "note": author.note,
    }


def _read_uses(top: Fields, name: str) -> tuple[Use, ...]:
    uses = tuple(Use.read(each) for each in top.each(name)) if top.has(name) else ()
    if len(uses) > USES_MAX:
        raise top.unfit(name, f"a list of at most {USES_MAX} snapshots")
    return uses


def _read_seed(top: Fields) -> int | str | None:
    if not top.has("seed"):
        return None
    seed = top.take_any("seed")
    if type(seed) is int:
        return seed
    if not isinstance(seed, str) or not seed or not seed.isprintable() or len(seed) > 256:
        raise top.unfit("seed", "a whole number or a short text")
    return seed


def _read_command(top: Fields) -> tuple[str, ...]:
    words = top.values("command") if top.has("command") else []
    if len(words) > ARGUMENTS_MAX:
        raise top.unfit("command", f"a list of at most {ARGUMENTS_MAX} words")
    for word in words:
        try:
            if not isinstance(word, str):
                raise top.unfit("command", "a list of words")
            parse_text(word, "a word", characters_max=ARGUMENT_MAX_CHARACTERS)
        except InvalidName as error:
            raise top.unfit("command", f"a list of words ({error.message})") from error
    return tuple(words)


def _in_order(earlier: str, later: str) -> bool:
    return parse_moment(earlier) <= parse_moment(later)
