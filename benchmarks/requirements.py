"""What the benchmarks need of the machine, asked for before they begin."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from benchmarks.server import ECHO_MODULE, SEARCH_PATH

NEEDED = {
    "nginx": "nginx-light",
    str(ECHO_MODULE): "libnginx-mod-http-echo",
    "gcc": "gcc",
    "/usr/include/openssl/ssl.h": "libssl-dev",
}
USEFUL = {"mkfs.xfs": "xfsprogs", "mkfs.btrfs": "btrfs-progs"}
"""Without them rows are left out or need more room; the report says so."""


def check() -> None:
    """End with what to install if something is missing."""
    missing = _missing(NEEDED)
    if missing:
        raise SystemExit(f"the benchmarks need: apt-get install {' '.join(missing)}")
    useful = _missing(USEFUL)
    if useful:
        print(f"better with: apt-get install {' '.join(useful)}", file=sys.stderr)


def _missing(wanted: dict[str, str]) -> list[str]:
    return [package for what, package in wanted.items() if not _is_there(what)]


def _is_there(what: str) -> bool:
    if what.startswith("/"):
        return Path(what).exists()
    return shutil.which(what, path=SEARCH_PATH + ":/sbin") is not None
