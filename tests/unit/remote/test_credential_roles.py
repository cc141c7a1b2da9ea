"""Roles of pods, tasks and instances, from servers that speak as AWS's own do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from snapd.model.settings import StoreSettings
from snapd.model.uris import parse_store_uri
from snapd.remote.credentials import Account

STS_ANSWER = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId>
<SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken>
<Expiration>{expires}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
<ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></AssumeRoleWithWebIdentityResponse>"""


@dataclass
class Issuer:
    """Hands out numbered keys, each valid for `valid_seconds`."""

    url: str = ""
    valid_seconds: float = 3600.0
    issued: int = 0
    asked: list[tuple[str, str, dict[str, str], str]] = field(default_factory=list)

    def next_key(self) -> tuple[str, str]:
        self.issued += 1
        expires = datetime.now(UTC) + timedelta(seconds=self.valid_seconds)
        return f"key{self.issued}", expires.strftime("%Y-%m-%dT%H:%M:%SZ")

    def answer(self, method: str, path: str) -> str:
        if path == "/latest/api/token":
            return "imds-token"
        if path == "/latest/meta-data/iam/security-credentials/":
            return "node-role"
        key, expires = self.next_key()
        if method == "POST":
            return STS_ANSWER.format(key=key, expires=expires)
        return json.dumps(
            {
                "Code": "Success",
                "AccessKeyId": key,
                "SecretAccessKey": "secret",
                "Token": "token",
                "Expiration": expires,
            }
        )


@contextmanager
def serving(issuer: Issuer) -> Iterator[Issuer]:
    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length).decode()
            issuer.asked.append((self.command, self.path, dict(self.headers), body))
            answer = issuer.answer(self.command, self.path).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_PUT = do_POST = handle_any  # noqa: N815 - the names that the base class calls

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield issuer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def issuer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Issuer]:
    """A fresh environment without any other identity, and a server that gives one."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with serving(Issuer()) as running:
        yield running


def account() -> Account:
    return Account(parse_store_uri("s3://bucket"), StoreSettings("s3://bucket"))


async def test_a_pod_identity_or_task_role_with_its_token_file(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("pod-token")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{issuer.url}/v1/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token_file))
    origin = await account().origin()
    assert (origin.access_key, origin.token, origin.region) == ("key1", "token", "eu-central-1")
    method, path, headers, _ = issuer.asked[0]
    assert (method, path) == ("GET", "/v1/credentials")
    assert headers["Authorization"] == "pod-token"


async def test_a_web_identity_as_irsa_gives_it(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("web-token")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/training")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token_file))
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", issuer.url)
    origin = await account().origin()
    assert (origin.access_key, origin.token) == ("key1", "token")
    body = issuer.asked[0][3]
    assert "AssumeRoleWithWebIdentity" in body
    assert "web-token" in body


async def test_an_instance_role(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "false")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", issuer.url)
    origin = await account().origin()
    assert origin.access_key == "key1"
    assert [path for _, path, _, _ in issuer.asked] == [
        "/latest/api/token",
        "/latest/meta-data/iam/security-credentials/",
        "/latest/meta-data/iam/security-credentials/node-role",
    ]


async def test_a_role_is_asked_again_before_its_keys_expire(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long-lived process never signs with keys that end within the next minutes."""
    issuer.valid_seconds = 60.0
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{issuer.url}/v1/credentials")
    ours = account()
    first = await ours.origin()
    second = await ours.origin()
    assert first.access_key != second.access_key
    issuer.valid_seconds = 3600.0
    third = await ours.origin()
    assert await ours.origin() is third
