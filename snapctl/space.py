"""How evictions and their reasons are shown."""

from __future__ import annotations

import time
from collections.abc import Sequence

from snapctl.output import Output
from snapd.model.eviction import Verdict
from snapd.model.units import format_duration, format_size


def show_verdicts(output: Output, verdicts: Sequence[Verdict]) -> None:
    """Print a table of snapshots: what becomes of each, and why."""
    if not verdicts:
        return
    now = time.time()  # noqa: TID251 - only for showing how long ago something was
    columns = ("SNAPSHOT", "SIZE", "USED", "FREES", "WHY")
    output.table(columns, [_row(verdict, now) for verdict in verdicts])


def _row(verdict: Verdict, now: float) -> tuple[str, ...]:
    return (
        verdict.snapshot_id,
        format_size(verdict.size_bytes),
        f"{format_duration(max(0.0, now - verdict.used_at))} ago",
        format_size(verdict.freed_bytes) if verdict.evict else "stays",
        verdict.explain(),
    )
