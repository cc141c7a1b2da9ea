"""Bytes that did not hash to their name, kept for a look, never used, the oldest removed first."""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from snapd.disk import fsops

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Exhibit:
    """What is known of wrong bytes: `source` is where they came from, `path` a use of the object.

    `expected` names the object or the manifest, `actual` is what the bytes hash to.
    """

    expected: str
    actual: str
    size_bytes: int
    path: str
    source: str


class Quarantine:
    """The directory of wrong bytes; holds at most `max_bytes`. Safe to use from many threads."""

    def __init__(self, path: Path, *, max_bytes: int, now: Callable[[], float]) -> None:
        self.path = path
        self.fd = os.open(path, fsops.DIRECTORY)
        self._max_bytes = max_bytes
        self._now = now
        self._shrinking = threading.Lock()

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self.fd)

    def count(self) -> int:
        """Tell how many objects have something here."""
        return sum(name.endswith(".json") for name in os.listdir(self.path))

    def keep(self, exhibit: Exhibit, place: Callable[[str], None]) -> Path | None:
        """Keep wrong bytes: `place` puts them under the name that it is given, relative to `fd`.

        A note of the same name with `.json` tells what they are. Returns where the bytes are, or
        None if they could not be kept (too large, disk full): that is never a failure of its own,
        because what the caller has to report is worse.
        """
        name = f"{exhibit.expected}.{secrets.token_hex(6)}"
        try:
            if exhibit.size_bytes <= self._max_bytes:
                place(name)
            self._write_note(name, exhibit)
            self._shrink()
        except OSError as exc:
            logger.warning("can't keep wrong bytes of %s: %s", exhibit.expected, exc)
            self._remove(name)
            return None
        return self.path / name if exhibit.size_bytes <= self._max_bytes else None

    def _write_note(self, name: str, exhibit: Exhibit) -> None:
        note = {
            "expected": exhibit.expected,
            "actual": exhibit.actual,
            "size_bytes": exhibit.size_bytes,
            "path": exhibit.path,
            "source": exhibit.source,
            "at": self._now(),
        }
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(f"{name}.json", flags, 0o600, dir_fd=self.fd)
        try:
            fsops.write_all(fd, json.dumps(note, indent=1).encode())
        finally:
            os.close(fd)

    def _shrink(self) -> None:
        """Remove the oldest bytes, each with its note, until all that is held fits the bound."""
        with self._shrinking:
            sizes: Counter[str] = Counter()
            kept_at_ns: dict[str, int] = {}
            with os.scandir(self.fd) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        found = entry.stat(follow_symlinks=False)
                        name = entry.name.removesuffix(".json")
                        sizes[name] += found.st_size
                        kept_at_ns[name] = max(kept_at_ns.get(name, 0), found.st_ctime_ns)
            excess = sizes.total() - self._max_bytes
            for name in sorted(sizes, key=lambda name: kept_at_ns[name]):
                if excess <= 0:
                    break
                self._remove(name)
                excess -= sizes[name]

    def _remove(self, name: str) -> None:
        for each in (name, f"{name}.json"):
            with suppress(FileNotFoundError):
                os.unlink(each, dir_fd=self.fd)
