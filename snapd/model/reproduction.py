"""Where the data and the outputs of a recorded run lie when it is done again elsewhere.

Everything lies below one fresh directory: the code in `code`, data and outputs where the command
looks for them in there, or else in `data` and `outputs`. A path of the machine on which the run was
is replaced in the command; what can't be placed so is told.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple, TypeAlias

from snapd.model.ids import is_digest
from snapd.model.names import is_name
from snapd.model.run_parts import Use
from snapd.model.runs import Run
from snapd.model.secrecy import MASK

CODE, DATA, OUTPUTS = "code", "data", "outputs"
OutputStatus: TypeAlias = Literal["same", "different", "absent", "not compared"]
_BEFORE, _AFTER = r"(?<![^=:,;'\"\s])", r"(?![^/:,;'\"\s])"


class Placed(NamedTuple):
    """A snapshot of the run and where it is to be, absolute; None: nobody can tell."""

    use: Use
    path: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is laid out where, and what is run there."""

    directory: str
    """Where the command is run."""
    command: tuple[str, ...]
    data: tuple[Placed, ...]
    outputs: tuple[Placed, ...]
    notes: tuple[str, ...]
    endangered: tuple[str, ...]
    """Paths outside to which the command may write, as it did then."""


class OutputCheck(NamedTuple):
    """How an output stands beside the recorded one."""

    use: Use
    path: str | None
    status: OutputStatus
    detail: str = ""

    def line(self) -> str:
        """Say it to people."""
        what = " ".join(filter(None, (self.use.path, self.use.snapshot_id)))
        return f"{self.status:<12}  {what}{f': {self.detail}' if self.detail else ''}"

    def to_json(self) -> dict[str, Any]:
        """Render for `--json`."""
        return {
            "snapshot_id": self.use.snapshot_id,
            "name": self.use.path,
            "path": self.path,
            "status": self.status,
            "detail": self.detail,
        }


def is_masked(command: Sequence[str]) -> bool:
    """Tell whether a record lacks words of the command, because they looked like secrets."""
    return any(MASK in word for word in command)


def plan_reproduction(
    run: Run,
    root: str,
    *,
    command: Sequence[str] = (),
    named_outputs: dict[str, str] | None = None,
    is_taken: Callable[[str], bool] = lambda path: False,
) -> Plan:
    """Decide where everything is; `root` is the fresh directory, absolute.

    `command` stands in for the recorded one, `named_outputs` say where outputs are, by their names;
    `is_taken` tells what the code has already.
    """
    words = tuple(command or run.command)
    inside = _inside(run)
    directory = str(PurePosixPath(root, CODE, inside))
    placing = _Placing(root, directory, words, is_taken)
    data = tuple(Placed(use, placing.data(use)) for use in _distinct(run.data))
    outputs = tuple(
        Placed(use, placing.output(use, (named_outputs or {}).get(use.path or "")))
        for use in run.outputs
    )
    notes = list(placing.notes)
    if run.code is None:
        notes.append("the run does not say which code it ran")
    elif run.code.dirty or run.code.untracked:
        notes.append("the code of the run had changes or files that are in no commit")
    replaced = tuple(_replaced(word, placing.moved) for word in words)
    return Plan(directory, replaced, data, outputs, tuple(notes), tuple(placing.endangered))


def _inside(run: Run) -> str:
    """Name the directory of the code in which the command was run."""
    inside = (run.code.directory if run.code else None) or "."
    path = PurePosixPath(inside)
    return "." if path.is_absolute() or ".." in path.parts else inside


def _distinct(uses: Sequence[Use]) -> list[Use]:
    found: dict[tuple[str, str | None], Use] = {}
    for each in uses:
        found.setdefault((each.snapshot_id, each.path), each)
    return list(found.values())


class _Placing:
    """Finds places that nothing else has, and notes which paths move."""

    def __init__(
        self, root: str, directory: str, words: tuple[str, ...], is_taken: Callable[[str], bool]
    ) -> None:
        self.notes: list[str] = []
        self.moved: dict[str, str] = {}
        self.endangered: list[str] = []
        self._root = root
        self._directory = directory
        self._words = words
        self._is_taken = is_taken
        self._given: set[str] = set()

    def data(self, use: Use) -> str:
        """Choose where data lies: where the command looks for it, as far as that can be told."""
        path = _stripped(use.path)
        if path is None:
            return self._apart(DATA, use)
        if not path.startswith("/"):
            place = self._within(path) or self._apart(DATA, use)
            if not _names(self._words, path) and not _names(self._words, f"./{path}"):
                self._note_unnamed(path, place)
            return place
        if _names(self._words, path):
            self.moved[path] = self._apart(DATA, use)
            return self.moved[path]
        for word in self._words:
            relative = word.rpartition("=")[2].rstrip("/").removeprefix("./")
            if relative and not relative.startswith("/") and path.endswith(f"/{relative}"):
                return self._within(relative) or self._apart(DATA, use)
        name = PurePosixPath(path).name
        within = None if is_digest(name) else self._within(name)
        place = within or self._apart(DATA, use)
        self._note_unnamed(path, place)
        return place

    def output(self, use: Use, named: str | None) -> str | None:
        """Tell where an output will be; None for one that is only a name, or lies outside."""
        path = _stripped(named or use.path)
        if path is None:
            return None
        if not path.startswith("/"):
            path = _normal(f"{self._directory}/{path}")
        if _is_in(path, self._root):
            return path
        if path == _stripped(named or use.path) and _names(self._words, path):
            self.moved[path] = self._apart(OUTPUTS, use)
            return self.moved[path]
        self.endangered.append(path)
        return None

    def _note_unnamed(self, path: str, place: str) -> None:
        self.notes.append(f"the command does not name {path}: that data is laid out at {place}")

    def _within(self, path: str) -> str | None:
        """Take a path of the command's directory, if nothing is there and it leads nowhere else."""
        whole = _normal(f"{self._directory}/{path}")
        if not whole.startswith(f"{self._root}/") or self._is_taken(whole):
            return None
        if ".git" in whole.lower().split("/"):
            # What lies there tells git what to run.
            return None
        if _is_in(self._directory, whole) or any(
            _is_in(whole, each) or _is_in(each, whole) for each in self._given
        ):
            return None
        self._given.add(whole)
        return whole

    def _apart(self, kind: str, use: Use) -> str:
        """Make up a place beside the code, called as people would."""
        last = PurePosixPath(use.path or "").name
        name = (use.reference or "").rpartition(":")[2].partition("@")[0]
        if not is_name(name):
            # It is only a text in the record, and might lead elsewhere.
            name = ""
        if last and last not in (".", "..") and not is_digest(last):
            name = last
        base = f"{self._root}/{kind}/{name or use.snapshot_id[:12]}"
        place, number = base, 1
        while place in self._given:
            number += 1
            place = f"{base}-{number}"
        self._given.add(place)
        return place


def _stripped(path: str | None) -> str | None:
    return path.rstrip("/") or None if path else None


def _is_in(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")


def _normal(path: str) -> str:
    """Take `.` and `..` out of an absolute path, as nothing in it is a link yet."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _names(words: Sequence[str], path: str) -> bool:
    return any(_pattern([path]).search(word) for word in words)


def _replaced(word: str, moved: dict[str, str]) -> str:
    if not moved:
        return word
    return _pattern(moved).sub(lambda found: moved[found[0]], word)


def _pattern(paths: Sequence[str] | dict[str, str]) -> re.Pattern[str]:
    """Match a path as a whole or with what is below it, the longer of two first."""
    longest_first = sorted(paths, key=len, reverse=True)
    return re.compile(f"{_BEFORE}(?:{'|'.join(map(re.escape, longest_first))}){_AFTER}")
