"""What a command is given: the environment, the common options, and where its output goes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from snapctl.output import Output
from snapd.model.errors import InvalidConfig, UsageError
from snapd.model.places import SYSTEM_PLACES, client_sockets, default_places

if TYPE_CHECKING:
    from snapctl.client import Client
    from snapd.model.settings import Settings


class Context:
    """One invocation of `snapctl`; the common options are set on it while they are parsed.

    `environment` is a copy of the process's own, taken by `__main__`.
    """

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        as_json: bool = False,
        events: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        color: str = "auto",
        socket: str = "",
        config: str = "",
    ) -> None:
        self.environment = environment or {}
        self.as_json = as_json
        self.events = events
        self.quiet = quiet
        self.verbose = verbose
        self.color = color
        self.socket = socket
        self.config = config

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

        trees = self.mapped_trees()
        if self.socket:
            return Client([self.socket], trees=trees)
        uid = os.getuid()
        own = default_places(self.environment, uid=uid).socket
        paths = [str(path) for path in client_sockets(self.environment, uid=uid)]
        return Client(paths, own_directory=str(own.parent) if uid else "", uid=uid, trees=trees)

    def mapped_trees(self) -> str:
        """Tell where this process sees the daemon's trees; empty if where the daemon does."""
        trees = self.environment.get("SNAPSYNC_TREES", "")
        if trees and not trees.startswith("/"):
            raise UsageError(
                f"SNAPSYNC_TREES is not an absolute path: {trees!r}",
                hint="It names the place where this container has the daemon's trees.",
            )
        return trees

    def settings(self) -> Settings:
        """Read the configuration that commands go by which open stores in this process.

        That is the file of `--config`; else the user's own, else the node's, if there is one that
        may be read; else the defaults. Raises `InvalidConfig` naming the file.
        """
        from snapd.model.config import load_settings
        from snapd.model.settings import Settings

        found = self._config_text()
        if found is None:
            return Settings()
        path, text = found
        try:
            return load_settings(text)
        except InvalidConfig as error:
            raise InvalidConfig(f"{path}: {error.message}", **error.details) from error

    def _config_text(self) -> tuple[Path, str] | None:
        if self.config:
            return Path(self.config), _read(Path(self.config))
        own = default_places(self.environment, uid=os.getuid()).config_file
        for path in (own, SYSTEM_PLACES.config_file):
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                return path, path.read_text()
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"can't read the configuration {path}: {error}") from error
