"""The installed commands, run as a user runs them: own home, own state, real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tests.e2e.forked import Forking

BIN = Path(sys.executable).parent
READY_SECONDS = 60.0
COMMAND_SECONDS = 60.0

SNAPDIR = """
import asyncio, re, sys, snapdir

def typed(text):
    if "://" in text:
        return snapdir.StoreUri(text)
    return snapdir.SnapshotId(text) if re.fullmatch("[0-9a-f]{64}", text) else text

async def main(verb, *arguments):
    return await getattr(snapdir, verb)(*map(typed, arguments))

print(asyncio.run(main(*sys.argv[1:])), flush=True)
"""


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """The JSON document on stdout."""
        return json.loads(self.stdout)

    @property
    def error(self) -> dict[str, Any]:
        """The error document that ends stderr under `--json`."""
        document: dict[str, Any] = json.loads(self.stderr.strip().splitlines()[-1])
        return document


@dataclass
class Host:
    """One user on one host: a home, a runtime directory, an environment."""

    root: Path
    variables: dict[str, str] = field(default_factory=dict)

    forking: ClassVar[Forking | None] = None
    """Set by the fixture `forked_commands`: what `snapctl` runs is forked, not started."""

    @property
    def socket(self) -> Path:
        return self.root / "run" / "snapsync" / "snapd.sock"

    @property
    def cache(self) -> Path:
        return self.root / "cache" / "snapsync"

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        for name in ("home", "cache", "run"):
            (self.root / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        return {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "HOME": str(self.root / "home"),
            "XDG_CACHE_HOME": str(self.root / "cache"),
            "XDG_CONFIG_HOME": str(self.root / "config"),
            "XDG_RUNTIME_DIR": str(self.root / "run"),
            "SNAPSYNC_SOCKET": str(self.socket),
            "SNAPSYNC_CACHE_DIR": str(self.cache),
            "AWS_EC2_METADATA_DISABLED": "true",
            **self.variables,
            **(extra or {}),
        }

    def start(self, *command: str | Path, **options: Any) -> subprocess.Popen[str]:
        """Start a command and return at once."""
        program, *arguments = map(str, command)
        return subprocess.Popen(
            [str(BIN / program), *arguments],
            env=self.environment(options.pop("extra", None)),
            cwd=self.root,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )

    def run(
        self,
        *command: str | Path,
        given: str | None = None,
        extra: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Ran:
        """Run a command to its end."""
        program, *arguments = map(str, command)
        return self.command(
            str(self.program(program)), *arguments, given=given, extra=extra, cwd=cwd
        )

    def program(self, name: str) -> Path:
        """Tell where an installed command lies."""
        return BIN / name

    def command(
        self,
        *command: str,
        given: str | None = None,
        extra: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Ran:
        """Run any command to its end as this user."""
        done = subprocess.run(
            command,
            env=self.environment(extra),
            cwd=cwd or self.root,
            input=given,
            text=True,
            capture_output=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def snapctl(
        self,
        *arguments: str | Path,
        given: str | None = None,
        extra: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Ran:
        """Run `snapctl` to its end."""
        if self.forking is None:
            return self.run("snapctl", *arguments, given=given, extra=extra, cwd=cwd)
        ran = self.forking.run(
            [str(each) for each in arguments],
            environment=self.environment(extra),
            cwd=cwd or self.root,
            given=given,
            timeout_seconds=COMMAND_SECONDS,
        )
        return Ran(*ran)

    def snapdir(self, verb: str, *arguments: str | Path) -> str:
        """Run a verb of the real tool in a process of its own; give what it returned.

        Its process may crash while exiting, after the right result: the output counts.
        """
        done = subprocess.run(
            [sys.executable, "-c", SNAPDIR, verb, *map(str, arguments)],
            env=self.environment(),
            text=True,
            capture_output=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert done.stdout, f"snapdir {verb} said nothing: {done.stderr}"
        return done.stdout.strip()

    @contextmanager
    def daemon(self, *arguments: str, config: str = "") -> Iterator[Daemon]:
        """Run a real `snapd` until the end of the block; it must then stop by itself."""
        environment = self.environment()
        command = [str(BIN / "snapd"), "--log-format", "json", *arguments]
        if config:
            (self.root / "snapd.toml").write_text(config, encoding="utf-8")
            command += ["--config", str(self.root / "snapd.toml")]
        else:
            # Tests run side by side, and only one of them could have the default port.
            command[1:1] = ["--listen", "127.0.0.1:0"]
        log = self.root / "snapd.log"
        with log.open("ab") as output:
            process = subprocess.Popen(command, env=environment, cwd=self.root, stderr=output)
        daemon = Daemon(process, log)
        try:
            self._await(daemon)
            yield daemon
        finally:
            daemon.stop()

    def _await(self, daemon: Daemon) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            if daemon.process.poll() is not None:
                raise AssertionError(f"snapd ended:\n{daemon.log_text()}")
            asked = self.snapctl("status", "--json")
            if asked.code == 0:
                daemon.status = asked.document
                return
            time.sleep(0.05)
        raise AssertionError(f"snapd is not ready:\n{daemon.log_text()}")


@dataclass
class Daemon:
    """A running `snapd`."""

    process: subprocess.Popen[bytes]
    log: Path
    status: dict[str, Any] = field(default_factory=dict)

    def log_text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """Kill it as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Ask it to stop and give its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout=READY_SECONDS)


def files_below(directory: Path) -> dict[str, bytes]:
    """Read a directory whole, by relative path."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def write_files(directory: Path, files: Mapping[str, bytes]) -> Path:
    """Write a directory whole, by relative path."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return directory


def ids_in(text: str) -> Sequence[str]:
    """Find snapshot IDs in an output."""
    return re.findall(r"\b[0-9a-f]{64}\b", text)
