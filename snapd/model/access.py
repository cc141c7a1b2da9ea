"""Who may do what over the control socket: three roles, each of which may do what the former may.

The kernel says who asks (`SO_PEERCRED`); the configuration says which role that is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple, cast

from snapd.model.errors import UsageError


class Role(IntEnum):
    """What a caller may do; the greater may do all that the smaller may."""

    NOBODY = 0
    READ = 1
    """Look: status, jobs, snapshots, leases, receipts."""
    PULL = 2
    """Pull, plan, prove, hold a snapshot, and end what is one's own."""
    ADMINISTER = 3
    """Evict, sweep, and end what is somebody else's."""

    @property
    def word(self) -> str:
        """`Role.PULL` -> `pull`, as the configuration spells it."""
        return self.name.lower()


class Peer(NamedTuple):
    """Who is at the other end, as the kernel knows it, in the daemon's own namespaces.

    `groups` are the supplementary ones that the process had when it connected.
    """

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] = frozenset()


SubjectKind = Literal["everybody", "owner", "root", "user", "group"]


class Subject(NamedTuple):
    """One entry of a list in `[access]`; `name` is a user's or a group's name or number."""

    kind: SubjectKind
    name: str = ""


def parse_subject(text: str) -> Subject:
    """`group:trainers` -> Subject("group", "trainers"); raises `UsageError` naming the text."""
    if text == "*":
        return Subject("everybody")
    if text in ("owner", "root"):
        return Subject(cast(SubjectKind, text))
    kind, _, name = text.partition(":")
    if kind not in ("user", "group") or not name or name != name.strip():
        raise UsageError(
            f"not a user or group: {text[:80]!r}",
            hint="Write '*', 'owner', 'root', 'user:NAME' or 'group:NAME'; numbers work as names.",
        )
    return Subject(cast(SubjectKind, kind), name)


@dataclass(frozen=True, slots=True)
class Grant:
    """Who has a role, in numbers."""

    everybody: bool = False
    uids: frozenset[int] = frozenset()
    gids: frozenset[int] = frozenset()

    def covers(self, peer: Peer) -> bool:
        """Tell whether this caller is meant."""
        if self.everybody or peer.uid in self.uids:
            return True
        return peer.gid in self.gids or not self.gids.isdisjoint(peer.groups)


@dataclass(frozen=True, slots=True)
class Access:
    """The grants of one daemon."""

    read: Grant
    pull: Grant
    administer: Grant

    def role_of(self, peer: Peer) -> Role:
        """Find the greatest role that a caller has."""
        if self.administer.covers(peer):
            return Role.ADMINISTER
        if self.pull.covers(peer):
            return Role.PULL
        return Role.READ if self.read.covers(peer) else Role.NOBODY
