"""Runs the command line as its users do: a process of its own, with an environment of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_KEPT = ("PATH", "LANG", "LC_ALL", "PYTHONPATH", "COVERAGE_PROCESS_START")

IN_BACKGROUND = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")
"""Starts a command as a shell starts those that end in `&`: with Ctrl-C ignored."""


def environment_of(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment in which every default path lies below `home`."""
    import os

    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    places = {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_CONFIG_HOME": str(home / "config"),
    }
    return kept | places | dict(extra or {})


def said_beside_progress(ran: subprocess.CompletedProcess[str], shown: str) -> list[str]:
    """Give the lines on stderr but those of the progress of `shown`.

    That is shown of what takes longer than a second, as all may on a busy machine.
    """
    return [line for line in ran.stderr.splitlines() if not line.startswith(shown)]


def snapctl(
    *arguments: str, home: Path, extra: Mapping[str, str] | None = None, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `snapctl` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "snapctl", *arguments],
        env=environment_of(home, extra),
        cwd=home,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
