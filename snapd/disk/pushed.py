"""Remember which snapshot was last pushed from a directory to a store: a hint, never a promise."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import NamedTuple

from snapd.model.errors import InvalidId
from snapd.model.ids import SnapshotId, digest_of, parse_snapshot_id


class Pushed(NamedTuple):
    """A snapshot that a store was given, and how many pushes in a row before it relied on another
    snapshot instead of looking at every object."""

    snapshot_id: SnapshotId
    reliances: int = 0


class PushedSnapshots:
    """One small JSON file for each pair of a directory and a store, below `directory`.

    Losing one costs some requests of the next push, so failures to read and write are no errors.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def last(self, source: str, store: str) -> Pushed | None:
        """Tell the last snapshot pushed from `source` to `store`, if it is known."""
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, InvalidId):
            document = json.loads(self._file(source, store).read_bytes())
            if (document["directory"], document["store"]) == (source, store):
                return Pushed(parse_snapshot_id(document["id"]), int(document.get("reliances", 0)))
        return None

    def remember(self, source: str, store: str, pushed: Pushed) -> None:
        """Write it down, whole or not at all."""
        document = {
            "directory": source,
            "store": store,
            "id": pushed.snapshot_id,
            "reliances": pushed.reliances,
        }
        file = self._file(source, store)
        temporary = file.with_name(f".{token_hex(8)}.tmp")
        with suppress(OSError):
            self._directory.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_text(json.dumps(document) + "\n", encoding="utf-8")
                os.replace(temporary, file)
            finally:
                temporary.unlink(missing_ok=True)

    def _file(self, source: str, store: str) -> Path:
        name = digest_of(f"{source}\0{store}".encode("utf-8", "surrogateescape"))
        return self._directory / f"{name[:32]}.json"
