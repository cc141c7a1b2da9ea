"""Pulls that nobody waits for but the daemon: `orders/<job>.json`, so that they outlive it."""

from __future__ import annotations

import json
import logging
import os
import re
from contextlib import suppress
from pathlib import Path

from snapd.disk import fsops
from snapd.disk.staging import Staging
from snapd.model.errors import SnapsyncError
from snapd.model.jobs import PullRequest

logger = logging.getLogger(__name__)

_NAME = re.compile(r"([0-9a-f]{12})\.json", re.ASCII)
_FILE_MAX_BYTES = 64 * 1024


class Orders:
    """The detached pulls of a daemon that have not ended. Safe to use from many threads.

    With `durable` an order survives power loss once `keep` has returned.
    """

    def __init__(self, path: Path, staging: Staging, *, durable: bool) -> None:
        self.root = path
        self._fd = os.open(path, fsops.DIRECTORY)
        self._staging = staging
        self._durable = durable

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._fd)

    def keep(self, job_id: str, request: PullRequest) -> None:
        """Write an order down, in the place of a former one of the same job."""
        text = json.dumps(request.to_json()).encode("ascii") + b"\n"
        with fsops.translated(f"can't keep the order of job {job_id}", self.root):
            self._staging.place(text, f"{job_id}.json", self._fd, durable=self._durable)

    def forget(self, job_id: str) -> None:
        """Strike an order; an absent one is no error."""
        with (
            fsops.translated(f"can't forget the order of job {job_id}", self.root),
            suppress(FileNotFoundError),
        ):
            os.unlink(f"{job_id}.json", dir_fd=self._fd)

    def all(self) -> dict[str, PullRequest]:
        """Read all orders, by job; one that can't be read is logged and struck."""
        found = {}
        with fsops.translated("can't read the orders", self.root):
            names = sorted(os.listdir(self._fd))
        for name in names:
            if not (matched := _NAME.fullmatch(name)):
                continue
            try:
                found[matched[1]] = PullRequest.from_json(json.loads(self._read(name)))
            except (OSError, ValueError, RecursionError, SnapsyncError) as exc:
                logger.warning("an order can't be read and is dropped: %s: %s", name, exc)
                self.forget(matched[1])
        return found

    def _read(self, name: str) -> bytes:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        with open(fd, "rb") as source:
            return source.read(_FILE_MAX_BYTES)
