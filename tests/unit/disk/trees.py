"""Build directory trees from their description in the vectors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def _content(node: dict[str, Any]) -> bytes:
    if "hex" in node:
        return bytes.fromhex(str(node["hex"]))
    if "repeat" in node:
        unit, size = str(node["repeat"]).encode(), int(node["size"])
        return (unit * (size // len(unit) + 1))[:size]
    return str(node["text"]).encode()


def build(root: Path, nodes: list[dict[str, Any]]) -> None:
    """Lay the nodes out below `root`, 755 and 644 unless they say a mode."""
    root.mkdir()
    root.chmod(0o755)
    modes: list[tuple[Path, int]] = []
    for node in nodes:
        path = root / node["path"]
        missing = [parent for parent in path.parents if not parent.exists()]
        for parent in reversed(missing):
            parent.mkdir()
            parent.chmod(0o755)
        if node["type"] == "dir":
            path.mkdir(exist_ok=True)
            modes.append((path, int(node.get("mode", "755"), 8)))
        elif node["type"] == "file":
            path.write_bytes(_content(node))
            modes.append((path, int(node.get("mode", "644"), 8)))
        elif node["type"] == "symlink":
            path.symlink_to(node["target"])
        else:
            os.mkfifo(path)
    for path, mode in reversed(modes):
        path.chmod(mode)
