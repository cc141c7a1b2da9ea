"""`snapctl status`."""

from __future__ import annotations

from typing import Any

from snapctl.context import Context
from snapctl.frame import verb
from snapd.model.units import format_duration, format_size


@verb("status", examples=["snapctl status", "snapctl status --json"])
def command(context: Context) -> None:
    """Tell how the daemon and its cache are: jobs, snapshots, sizes, free space, stores."""
    status = context.client().status()
    if context.output.as_json:
        context.output.print_json(status)
        return
    for name, value in _rows(status):
        context.output.line(f"{name:<11}{value}")


def _rows(status: dict[str, Any]) -> list[tuple[str, str]]:
    stores = status["stores"]
    return [
        ("daemon", f"snapd {status['version']}, pid {status['pid']}"),
        ("up", format_duration(status["uptime_seconds"])),
        ("state", status["state_directory"]),
        ("trees", status["trees_directory"]),
        ("jobs", f"{status['jobs_running']} running, {status['jobs_queued']} queued"),
        ("cache", f"{status['snapshots']} snapshots, {format_size(status['cache_bytes'])}"),
        (
            "disk",
            f"{format_size(status['disk_free_bytes'])} free"
            f" of {format_size(status['disk_total_bytes'])}",
        ),
        ("sealed", _sealed(status.get("seal"))),
        ("stores", ", ".join(stores) if stores else "none allowed"),
        ("health", status["listen"] or "off"),
    ]


def _sealed(seal: dict[str, Any] | None) -> str:
    if seal is None:
        return "unknown"
    return "yes, by fs-verity" if seal["active"] else f"no: {seal['reason']}"
