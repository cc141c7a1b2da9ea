"""What tests on lineage and on the record of pushes begin with."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.installed import Host, write_files

MOMENT = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}"


def said(host: Host, *words: str | Path, code: int = 0, **extra: str) -> list[str]:
    ran = host.snapctl(*words, extra=extra)
    assert ran.code == code, ran.stderr
    return ran.stdout.splitlines()


def push(host: Host, tmp_path: Path, store: str, text: str, *more: str) -> str:
    """Push a directory that holds this text alone; the same directory for the same `more`."""
    source = write_files(tmp_path / "source", {"text": text.encode()})
    [snapshot_id] = said(host, "push", source, "--store", store, *more)
    return snapshot_id
