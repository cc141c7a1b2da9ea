from __future__ import annotations

import logging

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from snapd.api.replies import reply_to
from snapd.model.errors import (
    AccessDenied,
    CacheUnusable,
    ConnectionRefused,
    DaemonStopping,
    DigestMismatch,
    InvalidId,
    JobNotFound,
    ManifestRefused,
    NoSpace,
    QueueFull,
    SnapshotNotFound,
    SnapsyncError,
    Stalled,
    StoreNotAllowed,
)
from tests.unit.api.conftest import Api

REQUEST = make_mocked_request("GET", "/v1/thing")


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (InvalidId, 400),
        (StoreNotAllowed, 403),
        (AccessDenied, 403),
        (JobNotFound, 404),
        (SnapshotNotFound, 404),
        (QueueFull, 429),
        (ConnectionRefused, 502),
        (DaemonStopping, 503),
        (Stalled, 504),
        (NoSpace, 507),
        (DigestMismatch, 500),
        (ManifestRefused, 500),
        (CacheUnusable, 500),
    ],
)
def test_each_error_has_its_status_and_its_whole_story(
    kind: type[SnapsyncError], status: int
) -> None:
    error = kind("what happened", path="./a")
    reply = reply_to(error, REQUEST)
    assert (reply.status, reply.content_type) == (status, "application/json")
    assert reply.text is not None
    assert web.json_response(error.to_json()).text == reply.text


def test_a_busy_daemon_says_when_to_come_back() -> None:
    assert "Retry-After" in reply_to(QueueFull("full"), REQUEST).headers
    assert "Retry-After" not in reply_to(NoSpace("full"), REQUEST).headers


def test_a_defect_is_logged_once_and_its_text_is_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        reply = reply_to(ValueError("secret detail"), REQUEST)
    assert reply.status == 500
    assert reply.text is not None
    assert "internal_error" in reply.text
    assert "secret detail" not in reply.text
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ValueError


async def test_unknown_routes_and_methods_are_answered_in_json(api: Api) -> None:
    status, error = await api.ask("GET", "/v2/anything")
    assert (status, error["code"], error["exit_code"]) == (404, "usage", 2)
    assert "/v2/anything" in error["message"]
    async with api.client.put("http://snapd/v1/pulls") as response:
        assert (response.status, response.content_type) == (405, "application/json")
        assert response.headers["Allow"] == "POST"
