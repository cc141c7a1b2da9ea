"""Models in a store and nodes that follow them, for tests and for the rollback drill."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from snapd.model import stages
from snapd.model.ids import SnapshotId
from snapd.model.registry import Author
from snapd.model.settings import TransferSettings
from snapd.model.uris import parse_store_uri
from snapd.model.versions import Version, parse_version
from snapd.registry.names import Registry
from snapd.remote.directory import DirectoryStore
from tests.e2e.installed import Daemon, Host, write_files
from tests.samples import Sample, sample

REFERENCE = "iris_clf@production"
PATIENCE_SECONDS = 60.0
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


class QuickModels(Models):
    """The same in a directory, written from inside the test: commands take a second each."""

    def add(self, version: str, name: str = "iris_clf", **files: bytes) -> SnapshotId:
        """Publish a version."""
        made = sample_of(version, **files)
        anyio.run(self._add, name, parse_version(version), made)
        return made.id

    def promote(self, version: str, name: str = "iris_clf") -> None:
        """Put a version into production."""
        anyio.run(self._promote, name, parse_version(version))

    async def _add(self, name: str, version: Version, made: Sample) -> None:
        for key, data in made.keys().items():
            await self._opened().put(key, data)
        new, who = stages.NewVersion(made.id), _somebody()
        await Registry(self._opened()).change_model(
            name, lambda model: stages.add(model, version, new, who), who, new=stages.new_model
        )

    async def _promote(self, name: str, version: Version) -> None:
        who = _somebody()
        await Registry(self._opened()).change_model(
            name, lambda model: stages.move(model, version, "production", who), who
        )

    def _opened(self) -> DirectoryStore:
        return DirectoryStore(parse_store_uri(self.store), TransferSettings())


def files_of(version: str) -> dict[str, bytes]:
    return {"version": version.encode(), "weights": version.encode() * 999}


def sample_of(version: str, **more: bytes) -> Sample:
    return sample(files_of(version) | more)


def _somebody() -> Author:
    return Author("ann@example.org", time.time(), os.urandom(8).hex())


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
        # In the middle of a reload there may be none, or the former one beside the next.
        views = follows(host)
        if len(views) == 1 and is_so(views[0]):
            return views[0]
        assert time.monotonic() < deadline, views
        time.sleep(0.05)


def until_live(host: Host, version: str) -> dict[str, Any]:
    ran = host.snapctl("follow", "status", "--wait-for", version, "--timeout", "55s", "--json")
    assert ran.code == 0, ran.stderr
    [view] = ran.document["follows"]
    assert view["version"] == version
    return dict(view)


def served(dest: Path) -> str:
    """Read which version a reader of `current` gets."""
    return (dest / "current" / "version").read_text()


def error_code(view: dict[str, Any]) -> str:
    return str((view["error"] or {}).get("code", ""))
