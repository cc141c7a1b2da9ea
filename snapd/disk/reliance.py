"""Who relies on blobs that no tree holds yet, and how blobs are removed without hurting them.

A pull counts on blobs from the moment it looks what is here until its tree is published. In this
process it says which ones; to other processes it says only that there is somebody, by a lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from snapd.disk.locks import UsingLock
from snapd.model.eviction import holds


class Reliance:
    """The running pulls of this process, as far as the removal of blobs goes. Thread-safe."""

    def __init__(self, lock_path: Path) -> None:
        self._lock = UsingLock(lock_path)
        self._mutex = threading.Lock()
        self._wanted: list[Sequence[int]] = []

    def close(self) -> None:
        """Let go of the lock."""
        self._lock.close()

    def begin(self, objects: Sequence[int]) -> None:
        """Rely on objects, given as ordered numbers (see `eviction.objects_in`), until `end`.

        Only what is looked for afterwards is sure to stay. Waits while blobs are being removed.
        """
        with self._mutex:
            if not self._wanted:
                self._lock.share()
            self._wanted.append(objects)

    def end(self, objects: Sequence[int]) -> None:
        """Rely no more on what `begin` was given."""
        with self._mutex:
            self._wanted = [each for each in self._wanted if each is not objects]
            if not self._wanted:
                self._lock.release()

    def is_wanted(self, number: int) -> bool:
        """Tell whether a running pull relies on an object."""
        return any(holds(objects, number) for objects in self._wanted)

    @contextmanager
    def removing(self) -> Iterator[Callable[[int], bool] | None]:
        """Remove blobs for the length of the block, which should be short: pulls wait to begin.

        Gives the test for what must stay; or None if another process relies on blobs, none of
        which may be removed then.
        """
        with self._mutex:
            if not self._lock.be_alone():
                yield None
                return
            try:
                yield self.is_wanted
            finally:
                if self._wanted:
                    self._lock.share()
                else:
                    self._lock.release()
