"""Which destinations a checkout must refuse, decided on resolved paths alone.

One rule for every mode, with and without deletion: a destination may neither be, nor hold, nor lie
in a cache or a store; and it may neither be nor hold the home directory or `/`. A checkout that
deletes nothing is no exception, because a snapshot may hold names that would overwrite what lies
there.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

from snapd.model.errors import DangerousDestination


class ProtectedPlace(NamedTuple):
    """A resolved directory that must not be overwritten, and what it is, for the message.

    `below_allowed` is for a home directory: it holds destinations, but is none.
    """

    path: PurePosixPath
    what: str
    below_allowed: bool = False


ROOT = ProtectedPlace(PurePosixPath("/"), "the root of the file system", below_allowed=True)


def refuse_dangerous(destination: PurePosixPath, places: Iterable[ProtectedPlace]) -> None:
    """Raise `DangerousDestination` if the resolved `destination` touches a protected place.

    `/` is always one of them.
    """
    for place in (ROOT, *places):
        relation = _relation(destination, place)
        if relation:
            raise DangerousDestination(
                f"the destination {relation} {place.what}: {destination}",
                destination=str(destination),
                protected=str(place.path),
            )


def _relation(destination: PurePosixPath, place: ProtectedPlace) -> str:
    if destination == place.path:
        return "is"
    if destination in place.path.parents:
        return f"holds {place.path}, which is"
    if place.path in destination.parents and not place.below_allowed:
        return f"lies in {place.path}, which is"
    return ""
