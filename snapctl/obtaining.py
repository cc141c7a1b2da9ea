"""Get a snapshot into a cache of this node: through the daemon, or with its engine in here."""

from __future__ import annotations

import time

from snapctl.awaiting import Patience, await_daemon
from snapctl.context import Context
from snapctl.progress import pull_progress
from snapctl.reattaching import follow_attached
from snapd.model.errors import DaemonNotRunning, DaemonStopping, Interrupted
from snapd.model.jobs import JobView, PullRequest

NO_PATIENCE = Patience()


def works_here(context: Context, standalone: str, patience: Patience = NO_PATIENCE) -> bool:
    """Decide whether this process does the work itself; `auto`: only if no daemon runs.

    A daemon that does not answer yet is waited for, as long as `patience` says; raises what it
    raises.
    """
    if standalone == "always":
        return True
    if standalone == "auto":
        return not _has_daemon(context, patience)
    if patience.daemon_seconds:
        await_daemon(context, patience)
    return False


def obtain(
    context: Context,
    request: PullRequest,
    *,
    here: bool,
    cache_dir: str | None,
    patience: Patience,
) -> JobView:
    """Pull through the daemon or here, showing progress; return the view of a job that is done.

    A daemon that is started again meanwhile is asked again. Raises the job's error, `TimedOut`,
    `Stalled` for a pull that does not get on, `Interrupted`.
    """
    deadline, stall_seconds = patience.deadline, patience.stall_seconds
    if here:
        from snapctl.engine import pull_here

        return pull_here(
            context, request, cache_dir=cache_dir, deadline=deadline, stall_seconds=stall_seconds
        )
    try:
        with pull_progress(context.output, time.monotonic, stall_seconds) as progress:
            client = context.client()
            return follow_attached(
                lambda: client.pull(request, deadline=deadline), progress, deadline=deadline
            )
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted: this command left the pull, which goes on only if others wait for it"
        ) from None


def _has_daemon(context: Context, patience: Patience) -> bool:
    try:
        if patience.daemon_seconds:
            await_daemon(context, patience)
        else:
            context.client().status()
    except (DaemonNotRunning, DaemonStopping) as absent:
        context.output.note(f"{absent.message}; pulling in this process")
        return False
    return True
