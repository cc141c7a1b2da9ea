"""Who is at the other end of the control socket, and what the configuration lets them do."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Protocol

from snapd.model.access import Access, Grant, Peer, Subject, parse_subject
from snapd.model.errors import InvalidConfig
from snapd.model.settings import AccessSettings

_CREDENTIALS = struct.Struct("3i")
_SO_PEERGROUPS = 59  # not named by Python's socket module
_GROUPS_MAX_BYTES = 1024
"""Python's bound on an answer: 256 groups."""


class Connected(Protocol):
    """A connected socket, or what an event loop shows of one."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """See `socket.getsockopt`."""
        ...


def peer_of(connected: Connected) -> Peer:
    """Ask the kernel who connected; it wrote that down at that moment."""
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return Peer(pid, uid, gid, _groups_of(connected))


def _groups_of(connected: Connected) -> frozenset[int]:
    """Ask for the supplementary groups; none if there are too many, or before Linux 4.13."""
    try:
        raw = connected.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_MAX_BYTES)
    except OSError:
        return frozenset()
    return frozenset(struct.unpack(f"{len(raw) // 4}I", raw))


def resolve_access(settings: AccessSettings, *, owner_uid: int | None = None) -> Access:
    """Look the names of users and groups up; raises `InvalidConfig` naming one that is unknown.

    `owner_uid` is who runs the daemon; without it, who runs this process.
    """
    owner = os.geteuid() if owner_uid is None else owner_uid
    return Access(
        read=_grant(settings.read, owner),
        pull=_grant(settings.pull, owner),
        administer=_grant(settings.administer, owner),
    )


def _grant(texts: Iterable[str], owner_uid: int) -> Grant:
    subjects = [parse_subject(text) for text in texts]
    fixed = {"owner": owner_uid, "root": 0}
    uids = {fixed[each.kind] for each in subjects if each.kind in fixed}
    uids |= {_number(each, _uid_of) for each in subjects if each.kind == "user"}
    gids = {_number(each, _gid_of) for each in subjects if each.kind == "group"}
    everybody = any(each.kind == "everybody" for each in subjects)
    return Grant(everybody, frozenset(uids), frozenset(gids))


def _uid_of(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _gid_of(name: str) -> int:
    return grp.getgrnam(name).gr_gid


def _number(subject: Subject, look_up: Callable[[str], int]) -> int:
    if subject.name.isascii() and subject.name.isdecimal():
        return int(subject.name)
    try:
        return look_up(subject.name)
    except KeyError:
        raise InvalidConfig(
            f"[access] there is no {subject.kind} {subject.name!r} on this host",
            hint="Create it first, or write its number.",
        ) from None
