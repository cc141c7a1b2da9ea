"""Tell a program of the administrator's that another snapshot is live."""

from __future__ import annotations

import logging
from collections.abc import Callable

from snapd.model.errors import HookFailed
from snapd.model.follow_records import FollowRecord
from snapd.model.follow_views import HookResult
from snapd.model.follows import LINK
from snapd.runtime.hooks import run_hook

logger = logging.getLogger(__name__)


class Hook:
    """The hook of one follow: whether it runs, how it ended last, how often it failed."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.runs = False
        self.failures = 0
        self.result: HookResult | None = None

    async def run(self, record: FollowRecord) -> HookFailed | None:
        """Run it for what is live, if there is one; returns what went wrong, which it logs."""
        follow, began = record.follow, self._now()
        if not follow.hook:
            return None
        self.runs = True
        try:
            ran = await run_hook(
                follow.hook, told_to_hook(record), timeout_seconds=follow.hook_timeout_seconds
            )
        finally:
            self.runs = False
        ended = self._now()
        seconds = max(0.0, ended - began)
        result = self.result = HookResult(ended, seconds, ran.status, ran.timed_out)
        message = f"the hook of {follow.ref} at {follow.dest} {result.said()}"
        if not result.failed:
            logger.info("%s", message)
            return None
        self.failures += 1
        logger.warning("%s", message, extra={"code": HookFailed.code, "said": ran.said})
        return HookFailed(message)


def told_to_hook(record: FollowRecord) -> dict[str, str]:
    """Make the variables that a hook finds in its environment."""
    live, previous = record.live, record.previous[0] if record.previous else None
    return {
        "SNAPSYNC_REF": record.follow.ref,
        "SNAPSYNC_VERSION": live.version if live else "",
        "SNAPSYNC_ID": live.snapshot_id if live else "",
        "SNAPSYNC_PREVIOUS_ID": previous.snapshot_id if previous else "",
        "SNAPSYNC_PATH": f"{record.follow.dest}/{LINK}",
    }
