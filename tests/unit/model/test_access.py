from __future__ import annotations

import pytest

from snapd.model.access import Access, Grant, Peer, Role, Subject, parse_subject
from snapd.model.errors import UsageError

ACCESS = Access(
    read=Grant(everybody=True),
    pull=Grant(uids=frozenset({10}), gids=frozenset({50})),
    administer=Grant(uids=frozenset({0}), gids=frozenset({60})),
)


@pytest.mark.parametrize(
    ("peer", "role"),
    [
        (Peer(1, 0, 0), Role.ADMINISTER),
        (Peer(1, 10, 10), Role.PULL),
        (Peer(1, 11, 50), Role.PULL),
        (Peer(1, 11, 11, frozenset({50})), Role.PULL),
        (Peer(1, 11, 11, frozenset({50, 60})), Role.ADMINISTER),
        (Peer(1, 11, 11, frozenset({10})), Role.READ),
        (Peer(1, 50, 11), Role.READ),
    ],
)
def test_the_greatest_role_counts_and_users_are_no_groups(peer: Peer, role: Role) -> None:
    assert ACCESS.role_of(peer) is role


def test_who_is_in_no_list_may_nothing() -> None:
    nobody = Access(Grant(), Grant(), Grant(uids=frozenset({0})))
    assert nobody.role_of(Peer(1, 5, 5, frozenset({0}))) is Role.NOBODY


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("*", Subject("everybody")),
        ("owner", Subject("owner")),
        ("root", Subject("root")),
        ("user:alice", Subject("user", "alice")),
        ("group:1000", Subject("group", "1000")),
    ],
)
def test_a_subject(text: str, subject: Subject) -> None:
    assert parse_subject(text) == subject


@pytest.mark.parametrize("text", ["", "alice", "user:", "group: x", "Root", "uid:7", "**"])
def test_no_subject(text: str) -> None:
    with pytest.raises(UsageError, match="user or group"):
        parse_subject(text)
