"""The user's own directory for what outlives a cache: `$XDG_STATE_HOME/snapsync`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def own_state(environment: Mapping[str, str]) -> Path | None:
    """Give the directory, which need not exist; None without a home."""
    for variable, below in (("XDG_STATE_HOME", ""), ("HOME", ".local/state")):
        base = environment.get(variable, "")
        if base.startswith("/"):
            return Path(base) / below / "snapsync"
    return None
