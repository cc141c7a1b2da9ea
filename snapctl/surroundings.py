"""What a command runs in: its interpreter, the file that pins its packages, image and system."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from snapctl.file_hash import hash_of
from snapd.model.run_parts import Environment

LOCK_FILES = (
    *("uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "conda-lock.yml", "pixi.lock"),
    *("requirements.lock", "requirements.txt"),
)
_PYTHON = re.compile(r"(?:python|pypy)[0-9.]*")
_VERSION = re.compile(r"[0-9]+\.[0-9]+[0-9A-Za-z.+-]{0,40}")
_ASK = "import sys; print(sys.version.split()[0])"
"""Nothing is imported that the working directory could have a file of the same name for."""
_SECONDS = 20.0
_FIRST_LINE_BYTES = 512


def surroundings(
    program: str,
    directory: Path,
    top: Path | None,
    environment: Mapping[str, str],
    *,
    image: str | None,
    lock: str | None,
) -> Environment:
    """Describe what `program` will run in; `top` is where the repository begins.

    Variables are not recorded: they hold secrets. Raises `UsageError` for a `lock` that can't be
    read.
    """
    lock_file = Path(lock) if lock else find_lock_file([directory, *([top] if top else [])])
    system = os.uname()
    return Environment(
        python=python_of(program, environment),
        lock_file=None if lock_file is None else _below(lock_file, top or directory),
        lock_hash=None if lock_file is None else hash_of(lock_file),
        image=image or None,
        platform=f"{system.sysname}-{system.release}-{system.machine}",
    )


def find_lock_file(directories: Sequence[Path]) -> Path | None:
    """Choose the file that pins the packages: in the first directory, else in the next."""
    for directory in directories:
        more = sorted(each.name for each in directory.glob("requirements*.txt"))
        for name in (*LOCK_FILES, *more):
            if (directory / name).is_file():
                return directory / name
    return None


def python_of(program: str, environment: Mapping[str, str]) -> str:
    """Ask the command's interpreter for its version; of what is no Python it is our own."""
    found = _interpreter(program, environment)
    if found is not None:
        try:
            done = subprocess.run(
                [found, "-c", _ASK],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                check=False,
            )
        except (OSError, subprocess.SubprocessError):
            return platform.python_version()
        if _VERSION.fullmatch(done.stdout.strip()):
            return done.stdout.strip()
    return platform.python_version()


def _interpreter(program: str, environment: Mapping[str, str]) -> str | None:
    """Name the Python that runs a program: itself, or that of a script's first line."""
    if _PYTHON.fullmatch(os.path.basename(program)):
        return program
    try:
        with open(program, "rb") as file:
            first = file.read(_FIRST_LINE_BYTES).split(b"\n", 1)[0]
    except OSError:
        return None
    if not first.startswith(b"#!"):
        return None
    words = os.fsdecode(first[2:]).split()
    for word in words[:3]:
        if _PYTHON.fullmatch(os.path.basename(word)):
            return shutil.which(word, path=environment.get("PATH", os.defpath))
    return None


def _below(path: Path, top: Path) -> str | None:
    try:
        name = str(path.resolve().relative_to(top.resolve()))
    except ValueError:
        name = str(path)
    return name if name.isprintable() and len(name) <= 1024 else None
