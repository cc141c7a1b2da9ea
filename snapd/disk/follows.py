"""What is followed and how that stands: `follows/<follow>.json`, so that it outlives the daemon."""

from __future__ import annotations

import json
import logging
import os
import re
from contextlib import suppress
from pathlib import Path

from snapd.disk import fsops
from snapd.disk.staging import Staging
from snapd.model.errors import SnapsyncError, UsageError
from snapd.model.follow_records import FollowRecord
from snapd.model.follows import follow_id_of

logger = logging.getLogger(__name__)

_NAME = re.compile(r"([0-9a-f]{12})\.json", re.ASCII)
_FILE_MAX_BYTES = 256 * 1024


class Follows:
    """The records of a node's follows. Safe to use from many threads.

    With `durable` a record survives power loss once `keep` has returned.
    """

    def __init__(self, path: Path, staging: Staging, *, durable: bool) -> None:
        self.root = path
        self.durable = durable
        self._fd = os.open(path, fsops.DIRECTORY)
        self._staging = staging

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._fd)

    def keep(self, record: FollowRecord) -> None:
        """Write a record down, in the place of the former one of the same destination."""
        text = json.dumps(record.to_json(), indent=1).encode("ascii") + b"\n"
        dest = record.follow.dest
        with fsops.translated(f"can't write down how {dest} is followed", self.root):
            name = f"{follow_id_of(dest)}.json"
            self._staging.place(text, name, self._fd, durable=self.durable)

    def forget(self, dest: str) -> None:
        """Strike a record; an absent one is no error."""
        with (
            fsops.translated(f"can't forget how {dest} is followed", self.root),
            suppress(FileNotFoundError),
        ):
            os.unlink(f"{follow_id_of(dest)}.json", dir_fd=self._fd)

    def all(self) -> dict[str, FollowRecord]:
        """Read all records, by destination.

        One that can't be read is logged and put aside as `.damaged`: what is live is told by the
        link, and a follow of the configuration makes a new one.
        """
        found = {}
        with fsops.translated("can't read what is followed", self.root):
            names = sorted(os.listdir(self._fd))
        for name in names:
            if not (matched := _NAME.fullmatch(name)):
                continue
            try:
                record = FollowRecord.from_json(json.loads(self._read(name)))
                if follow_id_of(record.follow.dest) != matched[1]:
                    raise UsageError("its name is that of another destination")
            except (OSError, ValueError, RecursionError, SnapsyncError) as exc:
                logger.warning("a follow can't be read and is put aside: %s: %s", name, exc)
                with suppress(OSError):
                    os.rename(name, f"{name}.damaged", src_dir_fd=self._fd, dst_dir_fd=self._fd)
                continue
            found[record.follow.dest] = record
        return found

    def _read(self, name: str) -> bytes:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        with open(fd, "rb") as source:
            return source.read(_FILE_MAX_BYTES)
