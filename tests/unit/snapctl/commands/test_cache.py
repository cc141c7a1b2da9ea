from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from tests.unit.snapctl.running import snapctl
from tests.unit.snapctl.scripted import scripted_daemon


def snapshot(letter: str, used_at: float) -> dict[str, Any]:
    return {
        "snapshot_id": letter * 64,
        "store": "s3://bucket/prefix",
        "tree": f"/cache/trees/{letter * 64}",
        "files": 3,
        "objects": 2,
        "size_bytes": 4096,
        "completed_at": 10.0,
        "used_at": used_at,
    }


def test_the_snapshot_used_last_comes_first(tmp_path: Path) -> None:
    at = tmp_path / "s"
    now = time.time()
    listed = {"snapshots": [snapshot("a", now - 7200), snapshot("b", now - 60)]}
    with scripted_daemon(at, {("GET", "/v1/snapshots"): lambda it: it.reply(200, listed)}):
        ran = snapctl("cache", "ls", "--socket", str(at), home=tmp_path)
        as_json = snapctl("--socket", str(at), "cache", "--json", "ls", home=tmp_path)
    rows = [line.split() for line in ran.stdout.splitlines()]
    assert rows[0] == ["SNAPSHOT", "SIZE", "FILES", "USED", "STORE"]
    assert [row[0] for row in rows[1:]] == ["b" * 64, "a" * 64]
    assert rows[2][1:] == ["4.0", "KiB", "3", "2h00m", "ago", "s3://bucket/prefix"]
    found = json.loads(as_json.stdout)["snapshots"]
    assert found == [listed["snapshots"][1], listed["snapshots"][0]]
