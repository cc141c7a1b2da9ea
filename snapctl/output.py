"""How results, notes and errors look: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from snapd.model.errors import ActionFailed, SnapsyncError

_BOLD, _RED, _RESET = "\x1b[1m", "\x1b[31m", "\x1b[0m"


def _compact(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


class Output:
    """The two streams of one invocation, and the rules for what goes where.

    `as_json`: stdout is for programs, and an error is one JSON line that ends stderr.
    `events`: stdout is one JSON line per event. `quiet`: no notes and no progress.
    """

    def __init__(
        self,
        stdout: TextIO,
        stderr: TextIO,
        *,
        as_json: bool = False,
        events: bool = False,
        quiet: bool = False,
        color: str = "auto",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self.as_json = as_json
        self.events = events
        self.quiet = quiet
        self._color = color
        self.environment = environment or {}

    def print_json(self, document: Any) -> None:
        """Print the one document that a command answers with; under `--events` it is one line."""
        if self.events:
            self.event(document)
            return
        self._write(json.dumps(document, ensure_ascii=False, indent=2))

    def event(self, document: Any) -> None:
        """Print one line of an NDJSON stream, at once."""
        self._write(_compact(document), at_once=True)

    def line(self, text: str) -> None:
        """Print one line of a result."""
        self._write(text)

    def _write(self, line: str, *, at_once: bool = False) -> None:
        try:
            self.stdout.write(f"{line}\n")
            if at_once:
                self.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise ActionFailed(f"can't write to stdout: {error.strerror}") from error

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print text columns under a heading, as wide as their widest cell."""
        cells = [list(columns), *(list(row) for row in rows)]
        widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]
        for number, row in enumerate(cells):
            padded = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
            text = "  ".join(padded).rstrip()
            is_heading = number == 0 and self.has_color(self.stdout)
            self.line(f"{_BOLD}{text}{_RESET}" if is_heading else text)

    def note(self, text: str) -> None:
        """Say something on stderr that is not a result; silent under `--quiet`."""
        if not self.quiet:
            self.stderr.write(f"{text}\n")
            self.stderr.flush()

    def error(self, error: SnapsyncError) -> None:
        """End stderr with the error: two lines for people, or one JSON line for programs."""
        if self.as_json:
            self.stderr.write(_compact(error.to_json()) + "\n")
        else:
            name = f"{_RED}snapctl:{_RESET}" if self.has_color(self.stderr) else "snapctl:"
            self.stderr.write(f"{name} {error.message}\n")
            if error.hint:
                self.stderr.write(f"hint: {error.hint}\n")
        self.stderr.flush()

    def has_color(self, stream: TextIO) -> bool:
        """Tell whether to color what goes to `stream`."""
        if self._color != "auto":
            return self._color == "always"
        plain = self.environment.get("NO_COLOR") or self.environment.get("TERM") == "dumb"
        return not plain and stream.isatty()
