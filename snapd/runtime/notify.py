"""What systemd tells a service and is told by it: the notify protocol, watchdog and sockets."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Mapping

import anyio

logger = logging.getLogger(__name__)

LISTEN_FDS_START = 3
"""The first descriptor that a socket unit hands over."""
BEAT_MAX_SECONDS = 10.0
EXTENSION_SECONDS = 60
"""How much longer a start or a stop may take, told again at every beat."""


class Supervisor:
    """Whoever started the daemon and wants to be told; without an address nobody is.

    `address` is what `NOTIFY_SOCKET` says: a path, or `@name` for an abstract one. Telling never
    blocks and never fails: a supervisor that does not listen is logged and is no reason to stop.
    `watchdog_seconds` is how long it waits for a sign of life before it kills; 0: for ever.
    """

    def __init__(self, address: str = "", *, watchdog_seconds: float = 0.0) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_seconds = watchdog_seconds
        self._unheard = False

    @property
    def beat_seconds(self) -> float:
        """How often it is told that the daemon lives: three times as often as it asks for."""
        if not self._watchdog_seconds:
            return BEAT_MAX_SECONDS
        return min(BEAT_MAX_SECONDS, self._watchdog_seconds / 3)

    def ready(self, status: str) -> None:
        """The service is up (again, after a reload)."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """The configuration is being read again; `ready` follows."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """The service is on its way out."""
        self._tell("STOPPING=1", f"STATUS={status}")

    def beat(self, *, in_transition: bool) -> None:
        """The service lives; one that starts or stops needs more time than it was given."""
        lines = ["WATCHDOG=1"] if self._watchdog_seconds else []
        if in_transition:
            lines.append(f"EXTEND_TIMEOUT_USEC={EXTENSION_SECONDS * 1_000_000}")
        if lines:
            self._tell(*lines)

    async def keep_beating(self, in_transition: Callable[[], bool]) -> None:
        """Beat for ever, from the event loop: if that hangs, so does this, and the daemon ends.

        `in_transition` tells whether it starts or stops at the moment.
        """
        if not self._address:
            return
        while True:
            self.beat(in_transition=in_transition())
            await anyio.sleep(self.beat_seconds)

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as messenger:
                messenger.setblocking(False)
                messenger.sendto("\n".join(lines).encode(), self._address)
            self._unheard = False
        except OSError as error:
            # Once, not at every beat.
            if not self._unheard:
                logger.warning("the supervisor could not be told %s: %s", lines[0], error)
            self._unheard = True


def supervisor_of(environment: Mapping[str, str], process_id: int) -> Supervisor:
    """Find out who supervises this process, and how often it wants to hear."""
    watched = environment.get("WATCHDOG_PID", str(process_id)) == str(process_id)
    microseconds = environment.get("WATCHDOG_USEC", "")
    seconds = int(microseconds) / 1e6 if watched and microseconds.isdecimal() else 0.0
    return Supervisor(environment.get("NOTIFY_SOCKET", ""), watchdog_seconds=seconds)


def sockets_handed_over(environment: Mapping[str, str], process_id: int) -> int:
    """Tell how many listening sockets, from `LISTEN_FDS_START` on, this process was given."""
    count = environment.get("LISTEN_FDS", "")
    mine = environment.get("LISTEN_PID") == str(process_id)
    return int(count) if mine and count.isdecimal() else 0
