"""Where something is kept live: reached in a thread, as far as whoever asked for it may."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import anyio
from anyio import to_thread

from snapd.actions.pulls import Pulls
from snapd.disk.cache import Cache
from snapd.disk.live_link import LiveLink, open_live_link
from snapd.model.errors import DangerousDestination, SnapsyncError
from snapd.model.follow_records import FollowRecord
from snapd.model.follows import LINK
from snapd.model.leases import LeaseRequest
from snapd.model.releases import Release

logger = logging.getLogger(__name__)

PLACES_AT_ONCE = 4
"""So many destinations are looked at side by side, and as many of callers."""

T = TypeVar("T")


def _few() -> anyio.CapacityLimiter:
    return anyio.CapacityLimiter(PLACES_AT_ONCE)


@dataclass(frozen=True, slots=True)
class Means:
    """What all follows of a node share.

    A destination may hang, on a network file system for example. Those of callers have threads of
    their own, so that nobody can keep the configuration's waiting.
    """

    cache: Cache
    pulls: Pulls
    owner: str
    """How this daemon signs the directories that it has taken over."""
    now: Callable[[], float]
    random: Callable[[], float]
    places: anyio.CapacityLimiter = field(default_factory=_few)
    places_of_callers: anyio.CapacityLimiter = field(default_factory=_few)


async def at_link(
    means: Means, record: FollowRecord, act: Callable[[LiveLink], T], *, make: bool
) -> T:
    """Do something in the directory of a follow, in a thread.

    With `make` it may be made. Raises `DangerousDestination` for one in or around the cache, and
    what `open_live_link` raises.
    """
    limiter = means.places if record.asker is None else means.places_of_callers
    opened = partial(_at_link, means, record, act, make=make)
    return await to_thread.run_sync(opened, abandon_on_cancel=True, limiter=limiter)


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


def let_go(cache: Cache, dest: str, live: Release | None) -> None:
    """Hand what is live over to its link, which holds it as long as it leads there; blocking."""
    if live is not None:
        request = LeaseRequest(live.snapshot_id, "link", f"{dest}/{LINK}", "no longer followed")
        try:
            cache.leases.add(request)
        except SnapsyncError as error:
            logger.warning("the link %s/%s holds nothing: %s", dest, LINK, error.message)
    cache.leases.hold_for_follow(dest, ())
    cache.follows.forget(dest)
