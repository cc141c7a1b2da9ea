"""Reading of the test data; README.md tells what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent
HOSTILE = DATA / "hostile"


def vectors() -> list[dict[str, Any]]:
    """List the trees with the manifest and the ID that belong to them."""
    cases: list[dict[str, Any]] = _document(DATA / "vectors" / "public.json")
    return cases


def quirks() -> list[dict[str, Any]]:
    """List the inputs with which the real tool does something unusable."""
    cases: list[dict[str, Any]] = _document(DATA / "vectors" / "quirks.json")
    return cases


def hostile_cases() -> list[dict[str, Any]]:
    """List the hostile stores; the store of a case is `HOSTILE / case["name"]`."""
    cases: list[dict[str, Any]] = _document(HOSTILE / "cases.json")["cases"]
    return cases


def hostile_manifest(name: str) -> bytes:
    """Read the one manifest of a hostile store."""
    (found,) = [path for path in (HOSTILE / name / ".manifests").rglob("*") if path.is_file()]
    return found.read_bytes()


def _document(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
