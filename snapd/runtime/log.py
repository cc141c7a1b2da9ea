"""Log lines: one event a line, as text or JSON, each with the job that it belongs to."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TextIO

from snapd.model.settings import LogSettings

_job_id: ContextVar[str] = ContextVar("job_id", default="")

_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_BARE = re.compile(r"[^\s\"=]+")


@contextmanager
def job_context(job_id: str) -> Iterator[None]:
    """Put the job's ID on every line logged inside, in the tasks and threads begun there too."""
    token = _job_id.set(job_id)
    try:
        yield
    finally:
        _job_id.reset(token)


def current_job_id() -> str:
    """Tell whose job the calling code works for; empty outside of any."""
    return _job_id.get()


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    """Collect what the caller gave as `extra`, and the job."""
    fields = {name: value for name, value in vars(record).items() if name not in _STANDARD_FIELDS}
    job_id = fields.pop("job_id", "") or _job_id.get()
    return {"job_id": job_id, **fields} if job_id else fields


def _moment(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.000Z info snapd.daemon: ready socket=/run/... job_id=j1`.

    Control characters in the message and in fields are escaped, so that a hostile name can't forge
    a line; only a traceback takes lines of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        parts = [
            f"{_moment(record)} {record.levelname.lower()} {record.name}:",
            _escaped(record.getMessage()),
            *(f"{name}={_quoted(value)}" for name, value in _fields(record).items()),
        ]
        line = " ".join(parts)
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time`, `level`, `logger`, `message`, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        document: dict[str, Any] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _quoted(value: object) -> str:
    text = _escaped(str(value))
    return text if _BARE.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def set_up_logging(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Send every line to `stream` (stderr) in the configured shape.

    May be called again at any time, for a new level or format. Only the entry points call it.
    """
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonFormatter() if settings.format == "json" else TextFormatter())
    root = logging.getLogger()
    for previous in list(root.handlers):
        root.removeHandler(previous)
    root.addHandler(handler)
    root.setLevel(settings.level.upper())
    # Libraries tell their own story at their own length; ours names what matters of it.
    for chatty in ("aiohttp", "aiobotocore", "botocore", "asyncio", "urllib3"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
