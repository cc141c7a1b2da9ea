"""Tell systemd how the service stands, in its datagram protocol."""

from __future__ import annotations

import logging
import socket
import time

logger = logging.getLogger(__name__)


class Supervisor:
    """Whoever started the daemon and wants to be told; without an address nobody is.

    `address` is what `NOTIFY_SOCKET` says: a path, or `@name` for an abstract one. Telling never
    blocks and never fails: a supervisor that does not listen is logged and is no reason to stop.
    """

    def __init__(self, address: str = "") -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    def ready(self, status: str) -> None:
        """The service is up (again, after a reload)."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """The configuration is being read again; `ready` follows."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """The service is on its way out."""
        self._tell("STOPPING=1", f"STATUS={status}")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as messenger:
                messenger.setblocking(False)
                messenger.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            logger.warning("the supervisor could not be told %s: %s", lines[0], error)
