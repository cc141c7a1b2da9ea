"""What the engine tells whoever watches it; metrics and traces listen, tests use the silent one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Literal

from snapd.model.jobs import JobView, Step

EvictionCause = Literal["admission", "watermark", "request"]
"""A pull needed room; the cache grew above its high watermark; somebody asked for it."""

RefusalReason = Literal["quota", "disk"]
"""A pull would exceed the quota of the cache; or what is to stay free on its disk."""

ObjectSource = Literal["store", "cache", "shared"]
"""Fetched from the store; already in the cache; brought by another job's flight."""


class Observer:
    """Receives counts at the steps of a pull; every method returns at once and never raises.

    Here they do nothing: an observer overrides those that it cares for.
    """

    def on_requests(
        self, operation: str, outcome: str, count: int, seconds: float, size_bytes: int
    ) -> None:
        """Take note of store requests that ended alike; `outcome` is `ok` or an error's code.

        Each of the `count` took so many seconds; `size_bytes` is the sum of what they moved.
        """

    def on_retry(self, operation: str, reason: str) -> None:
        """Take note that a request is asked again; `reason` is an error's code."""

    def on_credentials(self, store: str, expires_at: float | None) -> None:
        """Take note of when a store's credentials expire; None: never, or it is closed."""

    def on_transfer_limit(self, kind: Literal["small", "rest"], objects: int) -> None:
        """Take note of how many requests of a kind may be in flight now, as far as it pays."""

    def on_objects(self, source: ObjectSource, objects: int, size_bytes: int) -> None:
        """Take note of objects that a pull now has, and where they came from."""

    def on_verification_failure(self) -> None:
        """Take note that an object's bytes did not match its digest."""

    def on_pull_refused(self, reason: str) -> None:
        """Take note of a pull that was not begun, or ended for want of space.

        `reason` is a `RefusalReason` or an error's code.
        """

    def on_pull_ended(self, view: JobView, steps: Sequence[Step]) -> None:
        """Take note of a pull that is done, failed or cancelled, and of the steps it went."""

    def on_evicted(self, cause: EvictionCause, snapshots: int, freed_bytes: int) -> None:
        """Take note of snapshots that were evicted and of the bytes that came free."""

    def on_rehashed(self, size_bytes: int, right: bool) -> None:
        """Take note of a cached object that looked changed and was hashed again."""

    def on_scrubbed(self, objects: int, size_bytes: int, progress: float) -> None:
        """Take note of what the scrub has hashed, and how far its round is, 0 to 1."""

    def on_scrub_round(self, ended_at: float) -> None:
        """Take note of the end of a round of the scrub."""

    def on_scrub_damage(self, objects: int) -> None:
        """Take note of objects that the scrub found damaged."""

    def on_repaired(self, objects: int) -> None:
        """Take note of damaged objects that are right again in all trees."""


class SilentObserver(Observer):
    """Watches nothing."""


class Observers(Observer):
    """Tells several observers; what only one of them listens to goes straight to that one."""

    def __init__(self, *observers: Observer) -> None:
        self.all = tuple(chain.from_iterable(map(_each, observers)))
        for name in (name for name in vars(Observer) if name.startswith("on_")):
            deaf = getattr(Observer, name)
            listening = [each for each in self.all if getattr(type(each), name) is not deaf]
            methods = [getattr(each, name) for each in listening]
            if methods:
                setattr(self, name, methods[0] if len(methods) == 1 else partial(_tell, methods))


def _each(observer: Observer) -> Iterable[Observer]:
    return observer.all if isinstance(observer, Observers) else (observer,)


def _tell(methods: Sequence[Callable[..., None]], *facts: object) -> None:
    for method in methods:
        method(*facts)
