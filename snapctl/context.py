"""What a command is given: the environment, the common options, and where its output goes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from snapctl.output import Output
from snapd.model.places import client_sockets, default_places

if TYPE_CHECKING:
    from snapctl.client import Client


@dataclass
class Context:
    """One invocation of `snapctl`; the common options are set on it while they are parsed.

    `environment` is a copy of the process's own, taken by `__main__`.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    as_json: bool = False
    events: bool = False
    quiet: bool = False
    verbose: bool = False
    color: str = "auto"
    socket: str = ""
    config: str = ""

    @cached_property
    def output(self) -> Output:
        """Everything a command prints goes through this; first used after parsing."""
        return Output(
            sys.stdout,
            sys.stderr,
            as_json=self.as_json or self.events,
            events=self.events,
            quiet=self.quiet,
            color=self.color,
            environment=self.environment,
        )

    def client(self) -> Client:
        """Make a client of the daemon's control socket; nothing is connected yet."""
        from snapctl.client import Client

        if self.socket:
            return Client([self.socket])
        uid = os.getuid()
        own = default_places(self.environment, uid=uid).socket
        paths = [str(path) for path in client_sockets(self.environment, uid=uid)]
        return Client(paths, own_directory=str(own.parent) if uid else "", uid=uid)
