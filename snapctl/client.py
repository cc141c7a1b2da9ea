"""A client of the daemon's control socket: HTTP and JSON with the standard library alone."""

from __future__ import annotations


class Client:
    """One daemon, by the path of its socket."""

    def __init__(self, socket_path: str) -> None:
        self.socket_path = socket_path
