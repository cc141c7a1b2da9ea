"""When a failed request is asked again: pure arithmetic, the waiting is the caller's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from snapd.model.settings import TransferSettings


@dataclass(frozen=True, slots=True)
class Backoff:
    """Full jitter: after the n-th failure a pause from [0, min(max, base * 2**(n - 1))).

    Ends after `attempts_max` tries, the first included, or when the next one would begin more than
    `deadline_seconds` after the first. A Retry-After comes before the jitter, never after it, so
    that those who were told the same time do not come back together.
    """

    base_seconds: float
    max_seconds: float
    attempts_max: int
    deadline_seconds: float

    @classmethod
    def of(cls, settings: TransferSettings) -> Backoff:
        """Take the bounds from `[transfer]`."""
        return cls(
            settings.backoff_base_seconds,
            settings.backoff_max_seconds,
            settings.attempts_max,
            settings.deadline_seconds,
        )

    def delay_seconds(
        self, failures: int, *, retry_after_seconds: float, random: Callable[[], float]
    ) -> float:
        """Choose the pause after so many failures; `random` returns a number from [0, 1)."""
        grown = self.base_seconds * 2.0 ** min(failures - 1, 62)
        return max(retry_after_seconds, 0.0) + min(self.max_seconds, grown) * random()

    def allows(self, failures: int, *, elapsed_seconds: float, delay_seconds: float) -> bool:
        """Tell whether to ask again, after that pause."""
        in_time = elapsed_seconds + delay_seconds <= self.deadline_seconds
        return in_time and failures < self.attempts_max
