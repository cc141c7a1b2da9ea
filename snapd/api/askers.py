"""Which users asked for a job: who alone asked for it may also end it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager


class Askers:
    """The users behind each job that has not ended.

    Whoever waits counts as long as they wait. Whoever asked for a job that goes on by itself counts
    until the job is forgotten.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Counter[int]] = {}
        self._detached: dict[str, set[int]] = {}

    def detached(self, job_id: str, uid: int, *, known: Collection[str]) -> None:
        """Take note of a user who does not wait. `known` are the jobs that there are at all."""
        for gone in self._detached.keys() - set(known):
            del self._detached[gone]
        self._detached.setdefault(job_id, set()).add(uid)

    @contextmanager
    def waiting(self, job_id: str, uid: int) -> Iterator[None]:
        """Count a user for the length of the block."""
        counts = self._waiting.setdefault(job_id, Counter())
        counts[uid] += 1
        try:
            yield
        finally:
            counts[uid] -= 1
            if not counts[uid]:
                del counts[uid]
            if not counts:
                del self._waiting[job_id]

    def of(self, job_id: str) -> set[int]:
        """Name the users who want this job now."""
        return set(self._waiting.get(job_id, ())) | self._detached.get(job_id, set())
