from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from snapd.api.peers import peer_of, resolve_access
from snapd.model.access import Peer, Role
from snapd.model.errors import InvalidConfig
from snapd.model.settings import AccessSettings

CLIENT = """
import os, socket, sys
path, uid, gid, groups = sys.argv[1], *map(int, sys.argv[2:4]), sys.argv[4].split()
if os.geteuid() == 0:
    os.setgroups([int(group) for group in groups])
    os.setgid(gid)
    os.setuid(uid)
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(path)
    if os.geteuid() == 0:
        os.setgroups([])
    connection.recv(1)
"""


@pytest.mark.parametrize(("count", "told"), [(3, True), (256, True), (257, False)])
def test_the_kernel_names_user_and_groups(tmp_path: Path, count: int, told: bool) -> None:
    """As root the client becomes somebody else; otherwise it is who runs the test.

    More groups than fit into an answer are none: a role is never given by mistake.
    """
    root = os.geteuid() == 0
    uid, gid = (1234, 2345) if root else (os.getuid(), os.getgid())
    groups = [*range(4000, 4000 + count)] if root else os.getgroups()
    path = str(tmp_path / "s")
    for directory in (tmp_path, *tmp_path.parents):
        if directory.owner() and str(directory).startswith("/tmp/"):
            directory.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        os.chmod(path, 0o666)
        listener.listen()
        words = [sys.executable, "-c", CLIENT, path, str(uid), str(gid), " ".join(map(str, groups))]
        client = subprocess.Popen(words)
        listener.settimeout(20)
        connected, _ = listener.accept()
        with connected:
            assert peer_of(connected) == Peer(
                client.pid, uid, gid, frozenset(groups if told or not root else ())
            )
            connected.sendall(b"x")
        assert client.wait() == 0


def test_names_and_numbers() -> None:
    settings = AccessSettings(
        read=("group:root",), pull=("user:77",), administer=("owner", "user:root")
    )
    access = resolve_access(settings, owner_uid=500)
    assert access.role_of(Peer(1, 500, 500)) is Role.ADMINISTER
    assert access.role_of(Peer(1, 0, 0)) is Role.ADMINISTER
    assert access.role_of(Peer(1, 77, 77)) is Role.PULL
    assert access.role_of(Peer(1, 78, 78, frozenset({0}))) is Role.READ
    assert access.role_of(Peer(1, 78, 78)) is Role.NOBODY


def test_root_need_not_administer() -> None:
    """Root in a container without a user namespace of its own is root for the kernel."""
    access = resolve_access(AccessSettings(administer=("user:700",)), owner_uid=0)
    assert access.role_of(Peer(1, 0, 0)) is Role.PULL


@pytest.mark.parametrize("entry", ["user:nobody-of-this-name", "group:nobody-of-this-name"])
def test_an_unknown_name_is_named(entry: str) -> None:
    with pytest.raises(InvalidConfig, match="nobody-of-this-name"):
        resolve_access(AccessSettings(pull=(entry,)))
