"""What tests on runs begin with, and how they look at a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.e2e.installed import Host, Ran, write_files


def done(host: Host, *words: str | Path, store: str, given: str | None = None) -> Any:
    ran = host.snapctl(*words, "--store", store, "--json", given=given)
    assert ran.code == 0, ran.stderr
    return ran.document


def refused(ran: Ran, exit_code: int, code: str, *words: str) -> None:
    assert (ran.code, ran.error["code"]) == (exit_code, code), ran.stderr
    assert ran.error["hint"]
    for word in words:
        assert word in ran.error["message"]
    assert "Traceback" not in ran.stderr


def push(host: Host, tmp_path: Path, store: str, text: str, *more: str) -> str:
    source = write_files(tmp_path / f"source-{text}", {"labels": text.encode()})
    snapshot_id: str = done(host, "push", source, *more, store=store)["id"]
    return snapshot_id
