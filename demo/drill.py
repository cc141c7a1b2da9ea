"""The rollback drill: how long from the command until the last node serves the old version again.

Used by the demo (`python -m demo.rollback`) and by a test.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

LOOK_SECONDS = 0.005
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Round:
    """One rollback. Seconds from the beginning of the command."""

    command_seconds: float
    """When the command had ended."""
    switched_seconds: tuple[float, ...]
    """When each node had switched, in the order of the nodes."""

    @property
    def last_seconds(self) -> float:
        """When the last node had switched."""
        return max(self.switched_seconds)


def live_at(dest: Path) -> str:
    """Name the snapshot that a node serves; empty if it serves none."""
    try:
        return os.path.basename(os.readlink(dest / "current"))
    except FileNotFoundError:
        return ""


def await_live(dests: Sequence[Path], snapshot_id: str) -> None:
    """Wait until all nodes serve a snapshot."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(live_at(dest) != snapshot_id for dest in dests):
        if time.monotonic() > deadline:
            raise SystemExit(f"{snapshot_id} is not live everywhere after {PATIENCE_SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)


def timed(dests: Sequence[Path], snapshot_id: str, roll_back: Callable[[], object]) -> Round:
    """Roll back in a thread, and note when each node serves the snapshot that it leads to."""
    from concurrent.futures import ThreadPoolExecutor

    switched: dict[Path, float] = {}
    with ThreadPoolExecutor(1) as executor:
        began = time.monotonic()

        def command() -> float:
            roll_back()
            return time.monotonic() - began

        running = executor.submit(command)
        while len(switched) < len(dests):
            now = time.monotonic() - began
            for dest in dests:
                if dest not in switched and live_at(dest) == snapshot_id:
                    switched[dest] = now
            if now > PATIENCE_SECONDS:
                raise SystemExit("the rollback did not reach every node")
            if running.done():
                running.result()
            time.sleep(LOOK_SECONDS)
        return Round(running.result(), tuple(switched[dest] for dest in dests))
