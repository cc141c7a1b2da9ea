from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from snapd.api.health import health_app
from snapd.api.page import add_page
from snapd.api.serving import serve_tcp
from snapd.api.tokens import Token, read_token
from snapd.model.errors import InvalidConfig
from snapd.runtime.metrics import Metrics
from snapd.runtime.numbers import NodeNumbers

SECRET = "correct horse battery"  # not one of anybody's


class Served:
    """The TCP side, with a token that the test changes."""

    def __init__(self) -> None:
        self.token: Token | None = Token(SECRET)
        self.address = ""

    async def numbers(self) -> NodeNumbers:
        return NodeNumbers()

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        async with aiohttp.request("GET", f"http://{self.address}{path}", headers=headers) as reply:
            return reply.status, reply.headers.get("WWW-Authenticate", "")


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    served = Served()
    app = health_app(
        Metrics(version="1"),
        unready_because=str,
        numbers=served.numbers,
        token=lambda: served.token,
    )
    add_page(app)
    async with serve_tcp(app, "127.0.0.1:0") as served.address:
        yield served


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("", 401),
        (f"Bearer {SECRET}", 200),
        (f"bearer  {SECRET} ", 200),
        (basic(f"anybody:{SECRET}"), 200),
        (basic(SECRET), 401),
        (f"Bearer {SECRET}x", 401),
        (f"Bearer {SECRET[:-1]}", 401),
        ("Bearer", 401),
        (f"Digest {SECRET}", 401),
        ("Basic ???", 401),
        ("Basic \xff\xfe", 401),
        (SECRET, 401),
    ],
)
async def test_page_and_metrics_ask_for_the_token(
    served: Served, authorization: str, status: int
) -> None:
    for path in ("/", "/metrics", "/assets/page.js", "/nothing"):
        got, challenge = await served.get(path, Authorization=authorization)
        assert got == (404 if status == 200 and path == "/nothing" else status)
        assert challenge.startswith("Basic realm") == (status == 401)


async def test_probes_need_no_token_and_lend_it_to_nobody(served: Served) -> None:
    for path, status in [("/livez", 200), ("/readyz", 200), ("/livez/", 401), ("//livez", 401)]:
        assert (await served.get(path))[0] == status


async def test_without_a_token_the_address_has_to_be_named(served: Served) -> None:
    served.token = None
    port = served.address.rpartition(":")[2]
    for host, status in [
        (served.address, 200),
        (f"localhost:{port}", 200),
        (f"[::1]:{port}", 200),
        (f"evil.example:{port}", 403),
        (f"127.0.0.1.evil.example:{port}", 403),
        ("", 403),
    ]:
        assert (await served.get("/metrics", Host=host))[0] == status, host
    assert (await served.get("/livez", Host="node-7.example"))[0] == 200


async def test_a_new_token_counts_from_the_next_request_on(served: Served) -> None:
    served.token = Token("another token of some length")
    assert (await served.get("/metrics", Authorization=f"Bearer {SECRET}"))[0] == 401


def test_the_first_line_of_the_file_is_the_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"  {SECRET} \nsecond line\n")
    token = read_token(str(file))
    assert token is not None
    assert token.matches(SECRET)
    assert not token.matches("second line")
    assert SECRET not in f"{vars(token)} {token!r}"
    assert read_token("") is None


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"", "0 characters"), (b"short\n", "5 characters"), (b"\xff" * 40, "ASCII")],
)
def test_a_token_that_could_be_guessed_is_refused(
    tmp_path: Path, content: bytes, complaint: str
) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(InvalidConfig, match=complaint):
        read_token(str(file))
    with pytest.raises(InvalidConfig, match="No such file"):
        read_token(str(tmp_path / "absent"))


def test_a_token_that_everybody_may_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "token"
    file.write_text(SECRET)
    file.chmod(0o640)
    read_token(str(file))
    assert not caplog.records
    file.chmod(0o644)
    read_token(str(file))
    assert "may read the token" in caplog.text
    assert SECRET not in caplog.text


async def test_the_page_runs_nothing_but_its_own_files(served: Served) -> None:
    headers = {"Authorization": f"Bearer {SECRET}"}
    for path in ("/", "/assets/page.js", "/assets/page.css", "/assets/icon.svg"):
        async with aiohttp.request(
            "GET", f"http://{served.address}{path}", headers=headers
        ) as reply:
            policy = reply.headers["Content-Security-Policy"]
            text = await reply.text()
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        elsewhere = text.replace("http://www.w3.org/2000/svg", "").replace("http://127.0.0.1", "")
        assert "http://" not in elsewhere, "nothing comes from anywhere else"
        assert "https://" not in elsewhere
        assert "innerHTML" not in text
        headers_again = headers | {"If-None-Match": reply.headers["ETag"]}
        async with aiohttp.request(
            "GET", f"http://{served.address}{path}", headers=headers_again
        ) as again:
            assert again.status == 304
    for path in ("/assets/../tokens.py", "/assets/%2e%2e/tokens.py", "/assets/x.css"):
        assert (await served.get(path, Authorization=f"Bearer {SECRET}"))[0] == 404
