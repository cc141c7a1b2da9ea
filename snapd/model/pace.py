"""How many requests to keep in flight: more while that moves more, fewer when the store suffers.

It begins with what the latency of the first answer asks for, and goes to a half or to twice of that
as long as it helps. Then additive increase, multiplicative decrease, as TCP does it: a half when
the store asks to slow down, three quarters when it has become slower by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

REQUEST_WORTH_BYTES = 32 * 1024
"""What one request counts beside its bytes, so that small and large objects can be compared."""

GROWTH_SHARE = 0.5
"""A larger limit stays if latency grew by at most this share of what the limit grew by: by Little's
law it grows as much where nothing more can be moved, and not at all where more can."""

DECLINE_SHARE = 0.9
"""A smaller limit stays if latency fell by at least this share of what the limit fell by: what is
in flight in vain only costs memory that the processor's cache can't hold, and connections."""

QUEUED = 2.0
"""So many times the latency of the first answer mean that requests wait for this node itself."""

GUESSED_REQUESTS_PER_SECOND = 10_000
"""What two processors can do: with the latency of the first answer it tells where to begin."""

GUESS_MOST, GUESS_LEAST = 4, 0.5
"""The guess is between so many times what is configured."""

DOUBLINGS_TRIED = 2
DOUBLING_HOLD_WINDOWS = 5
"""A doubling that brings nothing is tried again after so many windows: on a busy machine chance
decides, and there more in flight make more of each turn that a process gets."""

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
        self._least = max(self.floor, int(self.limit * GUESS_LEAST))
        self._first_latency_seconds = 0.0
        self._course: Literal["unknown", "down", "up", "steps"] = "unknown"
        self._trial: tuple[int, Window] | None = None
        self._hold = 0
        self._doublings_left = DOUBLINGS_TRIED
        self._best: Window | None = None

    def begin(self, latency_seconds: float) -> None:
        """Before the first window: choose the limit by the latency of an answer to one request."""
        self._first_latency_seconds = latency_seconds
        guess = math.ceil(latency_seconds * GUESSED_REQUESTS_PER_SECOND)
        guess = max(self._least, min(guess, self.limit * GUESS_MOST))
        self.limit = min(guess, self.ceiling)

    def judge(self, window: Window) -> int:
        """Take what was seen under the present limit and give the next one."""
        if window.throttled:
            self._shrink(0.5, self.floor)
        elif window.crowded and not self._settle_trial(window):
            self._watch(window)
        return self.limit

    def _settle_trial(self, window: Window) -> bool:
        """See what another limit brought; True if it is taken back."""
        if self._trial is None:
            return False
        limit, before = self._trial
        self._trial = None
        change = self.limit / limit - 1
        share = GROWTH_SHARE if change > 0 else DECLINE_SHARE
        if window.latency_seconds <= before.latency_seconds * (1 + change * share):
            if change < 0:
                self._course = "down"
            return False
        self.limit = limit
        self._best = None
        if self._course == "unknown":
            self._course = "up"
        elif self._course == "up" and self._doublings_left:
            self._doublings_left -= 1
            self._hold = DOUBLING_HOLD_WINDOWS
        else:
            self._settle()
        return True

    def _settle(self) -> None:
        self._course = "steps"
        self._hold = HOLD_WINDOWS

    def _watch(self, window: Window) -> None:
        best = self._best
        if best is None or window.rate > best.rate:
            self._best = best = window
        if (
            window.latency_seconds > best.latency_seconds * SLOWER
            and window.rate < best.rate * WORSE
        ):
            self._shrink(0.75, self._least)
        elif self._hold:
            self._hold -= 1
        else:
            self._try_another(window)

    def _try_another(self, window: Window) -> None:
        if self._course == "unknown" and not self._is_queueing(window):
            self._course = "up"
        if self._course in ("unknown", "down"):
            wanted = max(self._least, self.limit // 2)
        else:
            grown = self.limit * 2 if self._course == "up" else self.limit + STEP
            wanted = min(self.ceiling, grown)
        if wanted != self.limit:
            self._trial = (self.limit, window)
            self.limit = wanted
        elif self._course == "down":
            self._settle()

    def _is_queueing(self, window: Window) -> bool:
        first = self._first_latency_seconds
        return first > 0 and window.latency_seconds > first * QUEUED and self.limit > self._least

    def _shrink(self, factor: float, least: int) -> None:
        self.limit = max(min(least, self.limit), int(self.limit * factor))
        self._trial = None
        self._best = None
        self._settle()
