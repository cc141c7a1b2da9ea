"""Hash all blobs of a cache one after the other, a little at a time, from anywhere on."""

from __future__ import annotations

import errno
import os
from collections import deque
from dataclasses import dataclass, field

from blake3 import blake3

from snapd.disk import fsops
from snapd.disk.blobs import Blobs
from snapd.disk.index import BlobRow
from snapd.disk.publishing import SHARDS
from snapd.disk.records import Facts, Records
from snapd.disk.repairs import Blob
from snapd.model.eviction import blob_key
from snapd.model.ids import Digest, is_digest

OBJECT_COST_BYTES = 4096
"""What an object costs beside its bytes: looking it up and opening it."""

_PIECE_BYTES = 256 * 1024


@dataclass(slots=True)
class Step:
    """What came of one step. `cost_bytes` is what counts against a rate."""

    objects: int = 0
    size_bytes: int = 0
    cost_bytes: int = 0
    suspects: list[Blob] = field(default_factory=list)
    done: bool = False
    rows: list[BlobRow] = field(default_factory=list)


class Scan:
    """One walk through all blobs in the order of their digests. For one thread at a time.

    `position` is the name of the last blob that is done; giving it to another scan goes on there.
    Right blobs are recorded as verified; suspects are only told, and are for the caller to prove.
    """

    def __init__(self, blobs: Blobs, records: Records, *, position: str, began_at: float) -> None:
        self.position = position
        self._blobs = blobs
        self._records = records
        self._began_at = began_at
        self._shard = int(position[:2], 16) if position else 0
        self._names: deque[str] | None = None
        self._reading: _Reading | None = None
        self._buffer = memoryview(bytearray(_PIECE_BYTES))

    @property
    def progress(self) -> float:
        """Tell which part of all digests is done, 0 to 1."""
        return int(self.position[:8], 16) / 2**32 if self.position else 0.0

    def close(self) -> None:
        """Let go of the file being read."""
        if self._reading is not None:
            self._reading.close()
            self._reading = None

    def step(self, budget_bytes: int, now: float) -> Step:
        """Hash about so many bytes; what can't be looked at for want of permission raises."""
        step = Step()
        with (
            fsops.translated("can't scrub objects", self._blobs.root),
            fsops.idle_io(),
        ):
            while step.cost_bytes < budget_bytes and not step.done:
                if self._reading is None and not self._open_next(step):
                    step.done = True
                elif self._reading is not None:
                    self._read_on(step, self._reading, now)
        self._records.write(step.rows)
        return step

    def _open_next(self, step: Step) -> bool:
        """Open the next blob; False if there is none any more."""
        while self._shard < len(SHARDS):
            if self._names is None:
                self._names = self._list()
            while self._names:
                self._reading = self._open(self._names.popleft())
                if self._reading is not None:
                    step.cost_bytes += OBJECT_COST_BYTES
                    return True
            self._records.write(step.rows)
            step.rows.clear()
            self._records.forget_stale(self._shard, self._began_at)
            self._shard, self._names = self._shard + 1, None
        return False

    def _list(self) -> deque[str]:
        names = os.listdir(self._blobs.shard(Digest(SHARDS[self._shard])))
        return deque(sorted(each for each in names if each > self.position and _is_blob(each)))

    def _open(self, name: str) -> _Reading | None:
        settled_ns = self._records.settled_ns()
        try:
            fd = fsops.open_own_file(name, self._blobs.shard(Digest(name)))
        except FileNotFoundError:
            return None
        return _Reading(name, fd, settled_ns)

    def _read_on(self, step: Step, reading: _Reading, now: float) -> None:
        count = reading.read(self._buffer)
        step.size_bytes += count
        step.cost_bytes += count
        if not reading.ended:
            return
        self.close()
        self.position = reading.name
        step.objects += 1
        if not reading.is_right:
            step.suspects.append(reading.blob)
        elif reading.unchanged:
            facts = reading.facts.if_settled(reading.settled_ns)
            step.rows.append((blob_key(*reading.blob), *facts, int(now)))


class _Reading:
    """One blob being hashed."""

    def __init__(self, name: str, fd: int, settled_ns: int) -> None:
        self.name = name
        self.blob = Digest(name[:64]), int(name[65:], 8)
        self.settled_ns = settled_ns
        self.facts = Facts.of(os.fstat(fd))
        self.ended = self.is_right = False
        self.unchanged = False
        self._fd = fd
        self._hasher = blake3()
        self._offset = 0
        fsops.random_access(fd)

    def read(self, buffer: memoryview) -> int:
        """Hash the next piece; what the disk can't give any more ends it as wrong."""
        left_bytes = self.facts.size_bytes - self._offset
        try:
            count = fsops.read_in_passing(self._fd, buffer[:left_bytes], self._offset)
        except OSError as exc:
            if exc.errno != errno.EIO:
                raise
            count = 0
        self._hasher.update(buffer[:count])
        self._offset += count
        if count == 0 or count == left_bytes:
            self.ended = True
            self.is_right = self._hasher.hexdigest() == self.blob[0]
            self.unchanged = Facts.of(os.fstat(self._fd)) == self.facts
        return count

    def close(self) -> None:
        os.close(self._fd)


def _is_blob(name: str) -> bool:
    return is_digest(name[:64]) and name[64:65] == "." and name[65:].isdecimal()
