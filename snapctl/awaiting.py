"""Wait for a daemon that is still starting, as a pod does on a node that has just joined."""

from __future__ import annotations

import time
from dataclasses import dataclass

from snapctl.context import Context
from snapctl.progress import meter_of
from snapd.model.errors import DaemonNotRunning, DaemonStopping, SnapsyncError, Stalled, TimedOut
from snapd.model.units import format_duration, parse_duration_seconds

_PAUSE_FIRST_SECONDS, _PAUSE_MAX_SECONDS = 0.1, 1.0
_ANSWER_MAX_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a command waits.

    `deadline` is when `time.monotonic()` ends the whole, None for never; `daemon_seconds` is for a
    daemon that does not answer yet; `stall_seconds` for a pull that does not get on, None for ever.
    """

    deadline: float | None = None
    daemon_seconds: float = 0.0
    stall_seconds: float | None = None

    @classmethod
    def parse(
        cls,
        timeout: str | None,
        wait_for_daemon: str | None = None,
        stall_timeout: str | None = None,
    ) -> Patience:
        """Read durations as people write them; the time begins now."""
        deadline = time.monotonic() + parse_duration_seconds(timeout) if timeout else None
        return cls(
            deadline,
            parse_duration_seconds(wait_for_daemon) if wait_for_daemon else 0.0,
            (parse_duration_seconds(stall_timeout) or None) if stall_timeout else None,
        )


def await_daemon(context: Context, patience: Patience) -> None:
    """Return when the daemon takes pulls, showing meanwhile what is waited for.

    Raises what keeps it from answering once `daemon_seconds` have passed, `TimedOut` at the
    deadline, and at once what waiting does not change, such as a socket that is not for this user.
    """
    begun = time.monotonic()
    pause_seconds = _PAUSE_FIRST_SECONDS
    with meter_of(context.output, time.monotonic) as meter:
        while True:
            absent = _absence(context, begun + patience.daemon_seconds)
            if absent is None:
                return
            now = time.monotonic()
            if patience.deadline is not None and now >= patience.deadline:
                raise TimedOut(
                    f"no daemon within --timeout: {absent.message}",
                    hint="Look why snapd does not run on this node, then run it again.",
                ) from absent
            if now - begun >= patience.daemon_seconds:
                raise absent
            waited, all_in_all = now - begun, patience.daemon_seconds
            meter.show(
                "daemon",
                f"waiting for {format_duration(waited)} of {format_duration(all_in_all)}:"
                f" {absent.message}",
            )
            time.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _PAUSE_MAX_SECONDS)


def _absence(context: Context, until: float) -> SnapsyncError | None:
    """Tell why the daemon takes no pulls now; None if it does."""
    # While it opens its cache the socket takes connections that nobody answers.
    bearable_seconds = min(_ANSWER_MAX_SECONDS, max(until - time.monotonic(), 1.0))
    try:
        status = context.client().with_patience(bearable_seconds).status()
    except (DaemonNotRunning, Stalled) as absent:
        return absent
    if status.get("state") == "draining":
        return DaemonStopping("the daemon is stopping and takes no new pulls")
    return None
