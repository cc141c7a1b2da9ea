"""A TCP port that leads to the control socket, for tools that do not speak to Unix sockets."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def bridged(path: Path) -> Iterator[str]:
    """Lead every connection to the socket for the length of the block; yields the URL."""

    class Lead(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as far:
                far.connect(str(path))
                there = threading.Thread(target=_carry, args=(self.request, far))
                there.start()
                _carry(far, self.request)
                there.join()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Lead) as server:
        server.request_queue_size = 128
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            serving.join()


def _carry(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes one way until either end is gone; then say so to the other."""
    with suppress(OSError):
        while piece := one.recv(65536):
            other.sendall(piece)
    for end in (one, other):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
