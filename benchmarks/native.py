"""The C program of the benchmarks, compiled when it is needed: gcc, OpenSSL, official BLAKE3."""

from __future__ import annotations

import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parent / "floor.c"
INSTALLED_HEADER = Path("/usr/include/blake3.h")
CRATE_PACKAGE = "librust-blake3-dev"
"""Debian's package of the Rust crate carries the official C sources too; older Debians have no
`libblake3-dev`."""
CRATES = Path("usr/share/cargo/registry")
COMMON = ("blake3.c", "blake3_dispatch.c", "blake3_portable.c")


@dataclass(frozen=True)
class Floor:
    """The compiled program, and what it hashes with."""

    program: Path
    blake3: str


def build_floor(directory: Path) -> Floor:
    """Compile the floor into `directory`; if a tool is missing, say what to install and end."""
    if shutil.which("gcc") is None or not Path("/usr/include/openssl/ssl.h").exists():
        raise SystemExit("the C floor needs a compiler: apt-get install gcc libssl-dev")
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / "floor"
    command = ["gcc", "-O2", "-D_GNU_SOURCE", "-o", str(program), str(SOURCE)]
    if INSTALLED_HEADER.exists():
        blake3 = "libblake3"
        command += ["-lblake3"]
    else:
        sources = _crate(Path("/")) or _downloaded(directory)
        blake3 = f"C sources of {sources.parent.name}"
        command += [f"-I{sources}", *_sources(sources)]
    _run([*command, "-lssl", "-lcrypto", "-lpthread"])
    return Floor(program, blake3)


def _crate(root: Path) -> Path | None:
    return next(iter(sorted((root / CRATES).glob("blake3-*/c"))), None)


def _downloaded(directory: Path) -> Path:
    """Take the sources out of the package without installing it and all that it depends on."""
    unpacked = directory / "blake3"
    if _crate(unpacked) is None:
        unpacked.mkdir(exist_ok=True)
        _run(["apt-get", "download", CRATE_PACKAGE], unpacked)
        (package,) = unpacked.glob("*.deb")
        _run(["dpkg-deb", "-x", str(package), str(unpacked)])
    found = _crate(unpacked)
    if found is None:
        raise SystemExit(f"{CRATE_PACKAGE} has no C sources of BLAKE3")
    return found


def _sources(directory: Path) -> list[str]:
    if platform.machine() == "x86_64":
        fast = sorted(directory.glob("*_x86-64_unix.S"))
        return [str(directory / name) for name in COMMON] + [str(path) for path in fast]
    if platform.machine() == "aarch64":
        return [str(directory / name) for name in (*COMMON, "blake3_neon.c")]
    return [str(directory / name) for name in COMMON]


def _run(command: list[str], directory: Path | None = None) -> None:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed:\n{done.stderr[-2000:]}")
