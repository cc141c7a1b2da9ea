"""What Schemathesis does not know by itself: how a stream of lines is read."""

from __future__ import annotations

import json
from typing import Any

import schemathesis


@schemathesis.deserializer("application/x-ndjson")
def last_line(_context: Any, response: Any) -> Any:
    """Read the last document of a stream; all have one schema."""
    return json.loads(response.content.splitlines()[-1])
