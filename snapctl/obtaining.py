"""Get a snapshot into a cache of this node: through the daemon, or with its engine in here."""

from __future__ import annotations

import time

from snapctl.context import Context
from snapctl.progress import pull_progress
from snapctl.reattaching import follow_attached
from snapd.model.errors import DaemonNotRunning, Interrupted
from snapd.model.jobs import JobView, PullRequest
from snapd.model.units import parse_duration_seconds


def works_here(context: Context, standalone: str) -> bool:
    """Decide whether this process does the work itself; `auto`: only if no daemon runs."""
    return standalone == "always" or (standalone == "auto" and not _has_daemon(context))


def obtain(
    context: Context,
    request: PullRequest,
    *,
    here: bool,
    cache_dir: str | None,
    timeout: str | None,
) -> JobView:
    """Pull through the daemon or here, showing progress; return the view of a job that is done.

    `timeout` is a duration as people write it. A daemon that is started again meanwhile is asked
    again. Raises the job's error, `TimedOut`, `Interrupted`.
    """
    deadline = time.monotonic() + parse_duration_seconds(timeout) if timeout else None
    if here:
        from snapctl.engine import pull_here

        return pull_here(context, request, cache_dir=cache_dir, deadline=deadline)
    try:
        with pull_progress(context.output, time.monotonic) as progress:
            client = context.client()
            return follow_attached(
                lambda: client.pull(request, deadline=deadline), progress, deadline=deadline
            )
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted: this command left the pull, which goes on only if others wait for it"
        ) from None


def _has_daemon(context: Context) -> bool:
    try:
        context.client().status()
    except DaemonNotRunning as absent:
        context.output.note(f"{absent.message}; pulling in this process")
        return False
    return True
