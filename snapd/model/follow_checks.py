"""What a doctor says of what a node follows."""

from __future__ import annotations

from collections.abc import Sequence

from snapd.model.checks import Check, ok, warning
from snapd.model.follow_views import FollowView
from snapd.model.units import format_duration

BEHIND_WARNING_SECONDS = 300.0
"""As late as the alert; a large snapshot may take longer to pull."""


def judge_follows(views: Sequence[FollowView]) -> list[Check]:
    """Judge each follow; a node that follows nothing has no line."""
    return [judge_follow(view) for view in views]


def judge_follow(view: FollowView) -> Check:
    """Judge whether what a reference leads to is live, and whether its hook was told."""
    name = f"follow:{view.dest}"
    live = f"{view.reference} is {view.version or view.snapshot_id[:12] or 'not live yet'}"
    details = {"state": view.state, "behind_seconds": round(view.behind_seconds, 1)}
    if view.error is not None:
        message = f"{live}; {view.error['message']}"
        code = int(view.error.get("exit_code") or 1)
        details["code"] = view.error["code"]
        return Check(name, "failure", message, view.error.get("hint", ""), code, details)
    if view.behind_seconds >= BEHIND_WARNING_SECONDS:
        late = format_duration(view.behind_seconds)
        message = f"{live}, and has led to {view.target_version} for {late}"
        return warning(name, message, "`snapctl jobs --all` tells how its pull goes.", **details)
    if view.hook is not None and view.hook.failed:
        hint = "The end of what it wrote is in the daemon's log; it runs again at the next switch."
        return warning(name, f"{live}; its hook {view.hook.said()}", hint, **details)
    return ok(name, live, **details)
