"""The API as a real daemon serves it, against the OpenAPI document that it serves.

`SNAPSYNC_FUZZ_EXAMPLES` says how long: `make fuzz` sets it to much more than every run has.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.installed import BIN, Daemon, Host, write_files
from tests.security.bridging import bridged

EXAMPLES = int(os.environ.get("SNAPSYNC_FUZZ_EXAMPLES", "12"))
SEED = [] if "SNAPSYNC_FUZZ_EXAMPLES" in os.environ else ["--seed", "1"]
"""Every short run does the same; the long ones look further."""
HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
TOKEN = "a token for the fuzzer's use"  # not one of anybody's
CONFIG = """
[checks]
# A store that can't be reached, a daemon that stops, a time limit, no space: none is a defect.
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "502", "503", "504", "507"]

[[operations]]
include-path = "/v1/leases"
# A pod or a link has to be there, which no schema can say.
checks.positive_data_acceptance.enabled = false

[[operations]]
include-path = "/v1/follows"
# Name and directory have to be there, too.
checks.positive_data_acceptance.enabled = false

[[operations]]
include-path-regex = "^/v1/jobs"
# A job that was cancelled has ended and is still told of.
checks.use_after_free.enabled = false
checks.ensure_resource_availability.enabled = false
"""


def fuzz(directory: Path, document: dict[str, Any], url: str, *words: str) -> None:
    """Let Schemathesis loose; fails with what it found."""
    (directory / "openapi.json").write_text(json.dumps(document))
    (directory / "schemathesis.toml").write_text(CONFIG)
    command = [BIN / "schemathesis", "--config-file", directory / "schemathesis.toml", "run"]
    command += [directory / "openapi.json", "--url", url, "--max-examples", str(EXAMPLES)]
    command += ["--request-timeout", "20", "--continue-on-failure", "--no-color", *words]
    command += SEED
    ran = subprocess.run(
        list(map(str, command)),
        cwd=directory,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(HOOKS), "PYTHONPATH": str(HOOKS.parents[2])},
        capture_output=True,
        text=True,
        timeout=60 + 20 * EXAMPLES,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def met_no_defect(daemon: Daemon) -> None:
    assert "defect" not in daemon.log_text()
    assert daemon.stop() == 0


def with_what_there_is(document: dict[str, Any], snapshot_id: str, store: str) -> dict[str, Any]:
    """Narrow IDs and stores to some that exist, so that requests get past the first check."""
    ids = {"type": "string", "enum": [snapshot_id, "ab" * 32]}
    stores = {"type": "string", "enum": [store, "s3://not-allowed", f"{store}/nothing"]}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path" and "snapshots" in path:
                    parameter["schema"] = ids
            body = operation.get("requestBody")
            if body is not None:
                properties = body["content"]["application/json"]["schema"]["properties"]
                properties.update({"id": ids} if "id" in properties else {})
                properties.update({"store": stores} if "store" in properties else {})
    return document


@pytest.mark.slow
@pytest.mark.timeout(120 + 60 * EXAMPLES)
def test_the_control_socket_keeps_to_its_document(host: Host, tmp_path: Path) -> None:
    store = f"file://{tmp_path / 'store'}"
    tree = write_files(tmp_path / "tree", {"a": b"1" * 1000, "b/c": b"2"})
    snapshot_id = host.snapctl("push", tree, "--store", store, "--json").document["id"]
    with host.daemon("--store", store) as daemon, bridged(host.socket) as url:
        assert host.snapctl("pull", "--id", snapshot_id, "--store", store).code == 0
        with urllib.request.urlopen(f"{url}/v1/openapi.json") as answer:
            document = with_what_there_is(json.load(answer), snapshot_id, store)
        fuzz(tmp_path, document, url, "--include-path-regex", "^/v1/")
        met_no_defect(daemon)


@pytest.mark.slow
@pytest.mark.timeout(120 + 60 * EXAMPLES)
def test_what_tcp_serves_keeps_to_its_document(host: Host, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    (tmp_path / "token").chmod(0o600)
    config = f'[daemon]\nlisten = "127.0.0.1:0"\nlisten_token_file = "{tmp_path / "token"}"\n'
    with host.daemon(config=config) as daemon:
        url = f"http://{daemon.status['listen']}"
        request = urllib.request.Request(
            f"{url}/v1/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        with urllib.request.urlopen(request) as answer:
            document = json.load(answer)
        document["paths"] = {
            path: methods
            for path, methods in document["paths"].items()
            if any("127.0.0.1" in each["servers"][-1]["url"] for each in methods.values())
        }
        document["paths"]["/assets/{name}"]["get"]["parameters"][0]["schema"] = {
            "type": "string",
            "enum": ["page.css"],
        }
        fuzz(tmp_path, document, url, "--header", f"Authorization:Bearer {TOKEN}")
        met_no_defect(daemon)


RAW = (
    b"\x00" * 9000,
    b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /v1/pulls HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/pulls HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n{}}",
    b"POST /v1/pulls HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    b"POST /v1/pulls HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n",
    b"GET /v1/status HTTP/9.9\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET /v1/jobs/%ff%00%2f..%2f HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
)


def test_bytes_that_are_no_request_are_refused_and_forgotten(host: Host, tmp_path: Path) -> None:
    with host.daemon() as daemon:
        for raw in RAW:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(30)
                connection.connect(str(host.socket))
                try:
                    connection.sendall(raw)
                    connection.shutdown(socket.SHUT_WR)
                    said = connection.recv(65536)
                except (BrokenPipeError, ConnectionResetError):
                    said = b""
            assert said == b"" or said.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4", b"HTTP/1.1 200"))
        assert host.snapctl("status").code == 0
        met_no_defect(daemon)
