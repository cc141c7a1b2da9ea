"""How much of a checkout is done, told now and then."""

from __future__ import annotations

import threading
import time

from snapd.model.checkouts import CheckoutProgress, OnProgress
from snapd.model.manifest import Manifest

PROGRESS_SECONDS = 0.1


class Tally:
    """Counts what is done, from several threads, and tells it from one, not too often."""

    def __init__(self, manifest: Manifest, on_progress: OnProgress) -> None:
        self._files_total = manifest.file_count
        self._bytes_total = manifest.total_bytes
        self._files_done = 0
        self._bytes_done = 0
        self._on_progress = on_progress
        self._next_at = 0.0
        self._lock = threading.Lock()

    def files_done(self, count: int, size_bytes: int) -> None:
        """Count files, and those of their bytes that were not counted while they moved."""
        with self._lock:
            self._files_done += count
            self._bytes_done += size_bytes

    def bytes_moved(self, count: int) -> None:
        """Count bytes of a file that is not done yet."""
        with self._lock:
            self._bytes_done += count

    def tell(self, *, last: bool = False) -> None:
        """Call back if it is time to."""
        now = time.monotonic()
        if now < self._next_at and not last:
            return
        self._next_at = now + PROGRESS_SECONDS
        self._on_progress(
            CheckoutProgress(
                self._files_done, self._files_total, self._bytes_done, self._bytes_total
            )
        )
