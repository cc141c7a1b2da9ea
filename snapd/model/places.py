"""Where the socket, the cache and the configuration lie when nobody says otherwise.

The daemon and its clients follow the same rule, so that they meet without being configured.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

SOCKET_NAME = "snapd.sock"
SYSTEM_SOCKET = Path("/run/snapsync") / SOCKET_NAME


class Places(NamedTuple):
    """The default paths of one user. The configuration is read only if it exists."""

    socket: Path
    cache_dir: Path
    config_file: Path


SYSTEM_PLACES = Places(
    socket=SYSTEM_SOCKET,
    cache_dir=Path("/var/lib/snapsync"),
    config_file=Path("/etc/snapsync/config.toml"),
)


def default_places(environment: Mapping[str, str], *, uid: int) -> Places:
    """Tell the default paths of a user: the system's for root, XDG's for anybody else.

    Without `XDG_RUNTIME_DIR` the socket lies in `/tmp/snapsync-<uid>`, not below the home
    directory, because homes are often shared by many nodes and a socket belongs to one. Whoever
    uses that directory checks that it belongs to the user and is closed to others.
    """
    if uid == 0:
        return SYSTEM_PLACES
    runtime = _absolute(environment, "XDG_RUNTIME_DIR")
    home = _absolute(environment, "HOME") or Path(f"/tmp/snapsync-{uid}")
    cache = _absolute(environment, "XDG_CACHE_HOME") or home / ".cache"
    config = _absolute(environment, "XDG_CONFIG_HOME") or home / ".config"
    socket_dir = runtime / "snapsync" if runtime else Path(f"/tmp/snapsync-{uid}")
    return Places(
        socket=socket_dir / SOCKET_NAME,
        cache_dir=cache / "snapsync",
        config_file=config / "snapsync" / "config.toml",
    )


def client_sockets(environment: Mapping[str, str], *, uid: int) -> tuple[Path, ...]:
    """List the sockets that a client tries, best first: the user's own daemon, then the node's.

    A client uses the first that exists, and names them all when none does.
    """
    own = default_places(environment, uid=uid).socket
    return (SYSTEM_SOCKET,) if own == SYSTEM_SOCKET else (own, SYSTEM_SOCKET)


def _absolute(environment: Mapping[str, str], name: str) -> Path | None:
    """Read a path; the XDG rules say that a relative or an empty one counts as unset."""
    text = environment.get(name, "")
    return Path(text) if text.startswith("/") else None
