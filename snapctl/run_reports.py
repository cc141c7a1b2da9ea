"""What a command says of itself: the file that $SNAPSYNC_RUN_FILE names, as YAML or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snapd.model.errors import SnapsyncError, UsageError
from snapd.model.references import parse_id_or_reference
from snapd.model.run_texts import read_run_text
from snapd.model.runs import RUN_MAX_BYTES
from snapd.model.written_runs import WrittenRun, run_as_written
from snapd.model.written_values import NOTHING

VARIABLE = "SNAPSYNC_RUN_FILE"
_OURS = ("run_id", "code", "code_commit", "commit", "command", "exit_status", "host")
"""What is collected and not asked for; also `started_at` and `ended_at`."""


@dataclass(frozen=True, slots=True)
class Report:
    """Facts, and paths that are to be pushed, each with what it is called."""

    written: WrittenRun = field(default_factory=WrittenRun)
    paths: Mapping[str, str] = field(default_factory=dict)


def read_report(path: Path) -> Report:
    """Read what the command wrote; nothing if it wrote nothing.

    Outputs may be IDs, references or paths. Raises `UsageError` for what can't be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(RUN_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"can't read ${VARIABLE}: {error.strerror}") from error
    if not data.strip():
        return Report()
    document = read_run_text(data)
    for name in (*_OURS, "started_at", "ended_at"):
        if name in document:
            raise UsageError(
                f"${VARIABLE} has a field {name!r}, which `snapctl run` finds out itself",
                hint="Write params, metrics, outputs, data, seed, env or note into it.",
            )
    key = "output" if "output" in document else "outputs"
    paths, outputs = _split(document.pop(key, None))
    return Report(run_as_written(document | {"outputs": outputs}), paths)


def _split(outputs: Any) -> tuple[dict[str, str], list[Any]]:
    """Tell paths, by what each is called, from what is in the store already."""
    if isinstance(outputs, Mapping):
        pairs = [(str(name), value) for name, value in outputs.items()]
    else:
        pairs = [("", value) for value in (outputs if isinstance(outputs, list) else [outputs])]
    paths: dict[str, str] = {}
    others: list[Any] = []
    for name, value in pairs:
        if not value or value in NOTHING:
            continue
        if isinstance(value, str) and not _is_named(value):
            paths[name or value] = value
        elif name and isinstance(value, str):
            others.append({"path": name, **_named(value)})
        else:
            others.append(value)
    return paths, others


def _named(text: str) -> dict[str, str]:
    return {"reference" if "@" in text else "snapshot_id": text}


def _is_named(text: str) -> bool:
    try:
        parse_id_or_reference(text)
    except SnapsyncError:
        return False
    return True
