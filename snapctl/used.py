"""Tell a surrounding `snapctl run` which snapshots are used below it, by a file that it names."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snapctl.context import Context

VARIABLE = "SNAPSYNC_RUN_DATA"


def note_use(context: Context, snapshot_id: str, **facts: str | None) -> None:
    """Note that a snapshot is used: its `path`, its `store`, or the `reference` that led to it.

    Does nothing outside a run. The run goes on without it if it can't be written.
    """
    path = context.environment.get(VARIABLE)
    if not path:
        return
    known = {name: value for name, value in facts.items() if value}
    line = json.dumps({"snapshot_id": snapshot_id, **known}) + "\n"
    with suppress(OSError, UnicodeEncodeError):
        # One write to the end of the file, so that lines of several commands stay whole.
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.write(file, line.encode())
        finally:
            os.close(file)
