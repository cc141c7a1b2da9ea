"""How many requests to keep in flight: more while that moves more, fewer when the store suffers.

Additive increase, multiplicative decrease, as TCP does it: doubling at first, then by a step; half
of it when the store asks to slow down, three quarters when it has become slower by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

REQUEST_WORTH_BYTES = 32 * 1024
"""What one request counts beside its bytes, so that small and large objects can be compared."""

GAIN = 1.05
"""A larger limit stays if at least this much more was moved with it ..."""

LATENCY_SHARE = 0.5
"""... or if latency grew by less than this share of what the limit grew by: by Little's law it
grows as much where nothing more can be moved, and not at all where more can."""

STEP = 16
HOLD_WINDOWS = 20
"""How many windows pass after a larger limit brought nothing, until another one is tried."""

SLOWER = 2.0
"""A latency so many times that of the best window means that the store is congested ..."""

WORSE = 0.7
"""... if less than this part of the best rate is moved too."""


@dataclass(frozen=True, slots=True)
class Window:
    """What was seen while a limit held: requests that ended, their bytes, mean latency.

    `throttled` counts those that the store refused because it is busy. `crowded` says that there
    were as many requests as the limit lets through, or more.
    """

    seconds: float
    requests: int
    size_bytes: int
    latency_seconds: float
    throttled: int = 0
    crowded: bool = True

    @property
    def rate(self) -> float:
        """How much was moved a second, in bytes with a charge for each request."""
        return (self.size_bytes + self.requests * REQUEST_WORTH_BYTES) / self.seconds


class Pace:
    """The limit, and what it learned so far. Pure: windows in, `limit` out."""

    def __init__(self, *, start: int, ceiling: int, floor: int = 8) -> None:
        """Begin at `start`; `limit` stays between `floor` (or the ceiling below it) and ceiling."""
        self.ceiling = ceiling
        self.floor = min(floor, ceiling)
        self.limit = max(self.floor, min(start, ceiling))
        self._doubling = True
        self._trial: tuple[int, Window] | None = None
        self._hold = 0
        self._best: Window | None = None

    def judge(self, window: Window) -> int:
        """Take what was seen under the present limit and give the next one."""
        if window.throttled:
            self._shrink(0.5)
        elif window.crowded and not self._settle_trial(window):
            self._watch(window)
        return self.limit

    def _settle_trial(self, window: Window) -> bool:
        """See what the last increase brought; True if it is taken back."""
        if self._trial is None:
            return False
        limit, before = self._trial
        self._trial = None
        faster = window.rate >= before.rate * GAIN
        growth = 1 + (self.limit / limit - 1) * LATENCY_SHARE
        if faster or window.latency_seconds <= before.latency_seconds * growth:
            return False
        self.limit = limit
        self._doubling = False
        self._hold = HOLD_WINDOWS
        self._best = None
        return True

    def _watch(self, window: Window) -> None:
        best = self._best
        if best is None or window.rate > best.rate:
            self._best = best = window
        if (
            window.latency_seconds > best.latency_seconds * SLOWER
            and window.rate < best.rate * WORSE
        ):
            self._shrink(0.75)
        elif self._hold:
            self._hold -= 1
        else:
            self._grow(window)

    def _grow(self, window: Window) -> None:
        if self.limit >= self.ceiling:
            return
        self._trial = (self.limit, window)
        grown = self.limit * 2 if self._doubling else self.limit + STEP
        self.limit = min(self.ceiling, grown)

    def _shrink(self, factor: float) -> None:
        self.limit = max(self.floor, int(self.limit * factor))
        self._doubling = False
        self._trial = None
        self._hold = HOLD_WINDOWS
        self._best = None
