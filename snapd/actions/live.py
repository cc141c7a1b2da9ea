"""Where something is kept live: proven, and reached in a thread as far as whoever asked may."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
from anyio import from_thread, to_thread

from snapd.actions.pulls import Pulls
from snapd.disk.cache import Cache
from snapd.disk.live_link import LiveLink, open_live_link
from snapd.model.errors import DangerousDestination, TimedOut, UsageError
from snapd.model.follow_records import FollowRecord
from snapd.model.follows import LINK
from snapd.model.ids import SnapshotId
from snapd.model.leases import LeaseRequest
from snapd.model.manifest import Manifest

PLACES_AT_ONCE = 4
"""So many destinations are looked at side by side, and as many of callers."""
PLACE_MAX_SECONDS = 10.0
"""A destination that takes longer hangs; until it answers it is left alone."""
PLACES_HANGING_MAX = 16
"""So many threads may wait in destinations that hang."""

T = TypeVar("T")


class Places:
    """Looks at destinations, any of which may hang, on a network file system for example.

    Nobody waits long for one that does, and it costs one thread, whoever asks for it again.
    """

    def __init__(self) -> None:
        self._few = anyio.CapacityLimiter(PLACES_AT_ONCE)
        self._looked_at: set[str] = set()

    async def look(self, dest: str, act: Callable[[], T]) -> T:
        """Do something in a thread; raises `TimedOut` if the destination hangs.

        Cancelling waits for the thread, so that it does nothing behind the back of the next one.
        """
        async with self._few:
            if dest in self._looked_at or len(self._looked_at) >= PLACES_HANGING_MAX:
                raise _hangs(dest)
            self._looked_at.add(dest)

            def looking() -> T:
                try:
                    return act()
                finally:
                    self._looked_at.discard(dest)

            try:
                with anyio.fail_after(PLACE_MAX_SECONDS, shield=True):
                    return await to_thread.run_sync(
                        looking, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
                    )
            except TimeoutError as error:
                raise _hangs(dest) from error


def _hangs(dest: str) -> TimedOut:
    return TimedOut(
        f"{dest} does not answer",
        hint="Does it lie on a network file system that is away?",
        destination=dest,
    )


@dataclass(frozen=True, slots=True)
class Means:
    """What all follows of a node share.

    The places of callers are apart, so that nobody can keep the configuration's waiting.
    """

    cache: Cache
    pulls: Pulls
    owner: str
    """How this daemon signs the directories that it has taken over."""
    now: Callable[[], float]
    random: Callable[[], float]
    places: Places = field(default_factory=Places)
    places_of_callers: Places = field(default_factory=Places)


async def at_link(
    means: Means, record: FollowRecord, act: Callable[[LiveLink], T], *, make: bool
) -> T:
    """Do something in the directory of a follow, in a thread.

    With `make` it may be made. Raises `DangerousDestination` for one in or around the cache,
    `TimedOut` for one that hangs, and what `open_live_link` raises.
    """
    places = means.places if record.asker is None else means.places_of_callers
    return await places.look(record.follow.dest, partial(_at_link, means, record, act, make=make))


def _at_link(means: Means, record: FollowRecord, act: Callable[[LiveLink], T], *, make: bool) -> T:
    # Of what the daemon's own user may, the kernel is the judge.
    own = record.asker is None or record.asker.uid == os.geteuid()
    dest, root = Path(record.follow.dest), means.cache.root.resolve()
    # Nobody follows a link for somebody else, so that then there is none to resolve.
    real = dest.parent.resolve() / dest.name if own else dest
    if real == root or root in real.parents or real in root.parents:
        raise DangerousDestination(
            f"{dest} is, holds or lies in the cache", destination=str(dest), protected=str(root)
        )
    with open_live_link(
        str(dest),
        owner=means.owner,
        durable=means.cache.follows.durable,
        asker=None if own else record.asker,
        make=make,
    ) as link:
        return act(link)


def is_sound(cache: Cache, snapshot_id: SnapshotId) -> bool:
    """Compare the objects with what is known of them, and hash those that look changed; blocking.

    What is damaged goes to the quarantine. For threads of anyio, which it lets be cancelled.
    """
    text = cache.manifests.load(snapshot_id)
    if text is not None:
        manifest = Manifest.parse(text, expected_id=snapshot_id)
        cache.trust.check(manifest, manifest.objects(), from_thread.check_cancelled)
    return cache.complete(snapshot_id) is not None


def let_go(cache: Cache, dest: str) -> None:
    """Hand what is held over to its link, which holds it as long as it leads there; blocking.

    If that can't be written down everything stays held, and it is raised.
    """
    held = [each for each in cache.leases.iterate() if each.kind == "follow"]
    for lease in held:
        if lease.subject == dest:
            link = f"{dest}/{LINK}"
            request = LeaseRequest(lease.snapshot_id, "link", link, "no longer followed")
            # The link leads to one of them at most, and may be gone.
            with suppress(UsageError):
                cache.leases.add(request)
    cache.leases.hold_for_follow(dest, ())
    cache.follows.forget(dest)
