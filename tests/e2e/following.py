"""Models in a store and nodes that follow them, for tests and for the rollback drill."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snapd.model.ids import SnapshotId
from tests.e2e.installed import Daemon, Host, write_files

REFERENCE = "iris_clf@production"
PATIENCE_SECONDS = 40.0
POLL = "1s"


@dataclass
class Models:
    """A store with a model whose versions differ in what `version` says."""

    host: Host
    store: str
    scratch: Path

    def do(self, *words: str) -> Any:
        """Run a command on the store that must succeed."""
        ran = self.host.snapctl(*words, "--store", self.store, "--json")
        assert ran.code == 0, ran.stderr
        return ran.document

    def add(self, version: str, name: str = "iris_clf", **files: bytes) -> SnapshotId:
        """Push a snapshot and add it as a version."""
        source = self.scratch / f"source-{name}-{version}"
        write_files(
            source, {"version": version.encode(), "weights": version.encode() * 999} | files
        )
        words = ("push", str(source), "--model", f"{name}@{version}")
        return SnapshotId(self.do(*words)["id"])

    def promote(self, version: str, name: str = "iris_clf") -> None:
        self.do("model", "promote", f"{name}@{version}", "--to", "production")

    def roll_back(self, note: str = "", name: str = "iris_clf") -> None:
        self.do("model", "rollback", name, "--note", note, "--by", "ann@example.org")

    @contextmanager
    def node(self, name: str, more: str = "", **variables: str) -> Iterator[tuple[Host, Daemon]]:
        """Run another node's daemon on the same store."""
        host = Host(self.scratch / name, {**self.host.variables, **variables})
        with host.daemon(config=self.config(more)) as daemon:
            yield host, daemon

    def config(self, more: str = "") -> str:
        return f'[daemon]\nlisten = "127.0.0.1:0"\nstores = ["{self.store}"]\n{more}'


def follow_table(dest: Path, *more: str, ref: str = REFERENCE, poll: str = POLL) -> str:
    """Write a `[[follow]]`."""
    lines = [f'ref = "{ref}"', f'dest = "{dest}"', f'poll_seconds = "{poll}"', *more]
    return "\n[[follow]]\n" + "\n".join(lines) + "\n"


def follows(host: Host) -> list[dict[str, Any]]:
    ran = host.snapctl("follow", "status", "--json")
    assert ran.code == 0, ran.stderr
    found: list[dict[str, Any]] = ran.document["follows"]
    return found


def until(host: Host, is_so: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Wait until the only follow of a node is as it should be."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        [view] = follows(host)
        if is_so(view):
            return view
        assert time.monotonic() < deadline, view
        time.sleep(0.05)


def until_live(host: Host, version: str) -> dict[str, Any]:
    ran = host.snapctl("follow", "status", "--wait-for", version, "--timeout", "40s", "--json")
    assert ran.code == 0, ran.stderr
    [view] = ran.document["follows"]
    assert view["version"] == version
    return dict(view)


def served(dest: Path) -> str:
    """Read which version a reader of `current` gets."""
    return (dest / "current" / "version").read_text()


def error_code(view: dict[str, Any]) -> str:
    return str((view["error"] or {}).get("code", ""))


def links_below(directory: Path) -> dict[str, str]:
    return {path.name: os.readlink(path) for path in directory.iterdir() if path.is_symlink()}
