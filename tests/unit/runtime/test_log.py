from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import anyio
import pytest
from anyio import to_thread

from snapd.model.settings import LogSettings
from snapd.runtime.log import current_job_id, job_context, set_up_logging

logger = logging.getLogger("snapd.test")


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(settings: LogSettings) -> io.StringIO:
    stream = io.StringIO()
    set_up_logging(settings, stream)
    return stream


def test_a_text_line_names_time_level_logger_fields_and_job() -> None:
    stream = lines(LogSettings())
    with job_context("j1"):
        logger.info("fetched %d", 3, extra={"store": "s3://b", "note": "two words"})
    moment, level, name, rest = stream.getvalue().split(" ", 3)
    assert moment.endswith("Z")
    assert (level, name) == ("info", "snapd.test:")
    assert rest == 'fetched 3 job_id=j1 store=s3://b note="two words"\n'


def test_a_json_line_is_one_object() -> None:
    stream = lines(LogSettings(format="json"))
    with job_context("j2"):
        logger.warning("odd\nname", extra={"path": "./a"})
    document = json.loads(stream.getvalue())
    assert document.pop("time").endswith("Z")
    assert document == {
        "level": "warning",
        "logger": "snapd.test",
        "message": "odd\nname",
        "job_id": "j2",
        "path": "./a",
    }


def test_a_hostile_name_cannot_forge_a_line() -> None:
    stream = lines(LogSettings())
    logger.info("took %s", "a\nb\x1b[2J\u2028", extra={"path": "x\r\ny"})
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert "\x1b" not in text
    assert r"a\nb\x1b[2J\u2028" in text


@pytest.mark.parametrize("shape", ["text", "json"])
def test_an_exception_brings_its_traceback(shape: str) -> None:
    stream = lines(LogSettings(format="json" if shape == "json" else "text"))
    try:
        int("seen")
    except ValueError:
        logger.exception("it broke")
    assert "Traceback" in stream.getvalue()
    assert "ValueError: invalid literal" in stream.getvalue()


def test_the_level_can_be_changed_and_lines_are_not_doubled() -> None:
    lines(LogSettings())
    stream = lines(LogSettings(level="error"))
    logger.warning("hidden")
    logger.error("shown")
    assert stream.getvalue().count("\n") == 1


def test_libraries_are_quiet_even_when_we_debug() -> None:
    stream = lines(LogSettings(level="debug"))
    logging.getLogger("botocore.auth").debug("secret-ish detail")
    logger.debug("ours")
    assert "secret-ish" not in stream.getvalue()
    assert "ours" in stream.getvalue()


async def test_tasks_and_threads_begun_inside_know_their_job() -> None:
    seen: list[str] = []

    async def task() -> None:
        seen.append(current_job_id())
        seen.append(await to_thread.run_sync(current_job_id))

    async with anyio.create_task_group() as tasks:
        with job_context("j3"):
            tasks.start_soon(task)
        tasks.start_soon(task)
    assert sorted(seen) == ["", "", "j3", "j3"]
