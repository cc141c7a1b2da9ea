"""Clients that mean no good, at a real daemon: what they do to others, and what they learn."""

from __future__ import annotations

import json
import os
import resource
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.installed import Host, write_files
from tests.ordinary_user import as_ordinary_user, nobodys_directory
from tests.servers.seaweed import Seaweed

CONNECTIONS = 5000


def resident_bytes(process_id: int) -> int:
    fields = Path(f"/proc/{process_id}/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize()


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    # A blocking connect waits while the daemon has more to accept than fits its backlog.
    connection.connect(str(path))
    connection.settimeout(30)
    return connection


@contextmanager
def many_open_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    if before[1] != resource.RLIM_INFINITY and before[1] < CONNECTIONS + 500:
        pytest.fail(f"this test needs {CONNECTIONS + 500} open files; the hard limit is {before}")
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.slow
def test_thousands_of_connections_keep_nobody_out(host: Host) -> None:
    with host.daemon() as daemon, many_open_files(), ExitStack() as held:
        before_bytes = resident_bytes(daemon.process.pid)
        for number in range(CONNECTIONS):
            connection = held.enter_context(connect(host.socket))
            if number % 2:
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.sendall(b"GET /v1/status HTTP/1.1\r\nHost:")
        assert host.snapctl("status").code == 0
        descriptors = len(os.listdir(f"/proc/{daemon.process.pid}/fd"))
        assert descriptors < 4096 + 200
        grown_bytes = resident_bytes(daemon.process.pid) - before_bytes
        assert grown_bytes < 40_000 * 4096, "at most 40 kB a connection"


@pytest.mark.parametrize("head", ["Content-Length: 1000000000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("path", ["/v1/pulls", "/v1/nothing"])
def test_an_endless_body_is_not_listened_to(host: Host, head: str, path: str) -> None:
    with host.daemon() as daemon:
        piece = b"10000\r\n" + b"x" * 65536 + b"\r\n" if "chunked" in head else b"x" * 65536
        with connect(host.socket) as connection:
            connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                while True:
                    connection.sendall(piece)
        assert resident_bytes(daemon.process.pid) < 400_000_000
        assert host.snapctl("status").code == 0


def test_watchers_that_do_not_read_slow_nobody(host: Host, tmp_path: Path) -> None:
    tree = write_files(tmp_path / "tree", {f"f{n}": os.urandom(2000) for n in range(300)})
    store = f"file://{tmp_path / 'store'}"
    snapshot_id = host.snapctl("push", tree, "--store", store, "--json").document["id"]
    body = json.dumps({"id": snapshot_id, "store": store}).encode()
    request = b"POST /v1/pulls HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
    with host.daemon("--store", store), ExitStack() as held:
        for _ in range(200):
            watcher = held.enter_context(connect(host.socket))
            watcher.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            watcher.sendall(request % (len(body), body))
        assert host.snapctl("pull", "--id", snapshot_id, "--store", store).code == 0


OPENED = """
import os, sys, threading
log = os.open(os.environ["SNAPSYNC_TEST_OPENED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
inside = threading.local()
def hook(event, arguments):
    if event in ("open", "os.listdir", "os.scandir", "os.mkdir", "os.rename", "os.remove",
                 "os.link", "os.symlink", "os.chmod", "os.chown", "os.truncate", "shutil.rmtree"):
        if not getattr(inside, "busy", False):
            inside.busy = True
            os.write(log, (event + " " + repr(arguments) + "\\n").encode())
            inside.busy = False
sys.addaudithook(hook)
"""


def test_no_path_of_a_client_is_opened(host: Host, tmp_path: Path) -> None:
    """Everything that the daemon's Python opens or lists is written down by an audit hook."""
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "sitecustomize.py").write_text(OPENED)
    mine = tmp_path / "clients-own"
    write_files(mine, {"secret": b"x"})
    (mine / "link").symlink_to("/somewhere/" + "ab" * 32)
    host.variables["PYTHONPATH"] = str(tmp_path / "hooks")
    host.variables["SNAPSYNC_TEST_OPENED"] = str(tmp_path / "opened")
    allowed = tmp_path / "store"
    allowed.mkdir()
    with host.daemon("--store", f"file://{allowed}"):
        host.variables.pop("PYTHONPATH")
        for store in (mine, mine / "..", allowed / ".." / mine.name, f"/./{mine}", allowed / "sub"):
            ran = host.snapctl("pull", "--id", "ab" * 32, "--store", f"file://{store}")
            assert ran.code in (2, 10, 13, 15)
        for subject in (mine / "link", mine / "secret", mine):
            body = {"id": "ab" * 32, "kind": "link", "subject": str(subject)}
            with connect(host.socket) as connection:
                text = json.dumps(body)
                head = f"POST /v1/leases HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n\r\n"
                connection.sendall((head + text).encode())
                assert connection.recv(65536).startswith(b"HTTP/1.1 ")
    opened = (tmp_path / "opened").read_text()
    assert str(host.cache) in opened, "the hook sees what is opened"
    assert str(allowed) in opened
    assert str(mine) not in opened


def answers_to(path: Path, requests: list[str]) -> list[tuple[int, Any]]:
    """Send requests written as `METHOD path body`; status and document of each answer."""
    answers = []
    for line in requests:
        method, target, *rest = line.split(" ", 2)
        body = "".join(rest)
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        with connect(path) as connection:
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            with connection.makefile("rb") as reader:
                status_line, _, rest_of_it = reader.read().partition(b"\r\n")
        answers.append((int(status_line.split()[1]), json.loads(rest_of_it.split(b"\r\n\r\n")[1])))
    return answers


def test_an_ordinary_user_does_what_the_configuration_says(tmp_path: Path) -> None:
    """As root: the daemon is root's and the client nobody's. Otherwise both are who runs this."""
    with nobodys_directory() as directory:
        host = Host(directory)
        tree = write_files(tmp_path / "tree", {"a": b"1"})
        store = f"file://{directory / 'store'}"
        snapshot_id = host.snapctl("push", tree, "--store", store, "--json").document["id"]
        for parent in (host.root / "run", host.socket.parent):
            parent.mkdir(exist_ok=True)
            parent.chmod(0o755)
        root = os.geteuid() == 0
        config = (
            f'[daemon]\nlisten = ""\nsocket_mode = "0666"\nstores = ["{store}"]\n'
            '[access]\nread = ["*"]\npull = ["user:65534", "owner"]\n'
        )
        with host.daemon(config=config):
            assert host.snapctl("pull", "--id", snapshot_id, "--store", store).code == 0
            pinned = host.snapctl("cache", "pin", snapshot_id, "--json").document
            asked = [
                ("GET /v1/status", 200),
                (f'POST /v1/plan {{"id": "{snapshot_id}", "store": "{store}"}}', 200),
                (f'POST /v1/leases {{"id": "{snapshot_id}", "kind": "pin"}}', 201),
                (f"DELETE /v1/leases/{pinned['lease_id']}", 403),
                ("POST /v1/sweep {}", 403),
                ('POST /v1/sweep {"dryrun": true}', 200),
                (f"DELETE /v1/snapshots/{snapshot_id}", 403),
                ('POST /v1/plan {"id": "%s", "store": "file:///etc"}' % ("ab" * 32), 403),
            ]
            report = directory / "report"

            lines = [line for line, _ in asked]
            as_ordinary_user(lambda: report.write_text(json.dumps(answers_to(host.socket, lines))))
            answers = json.loads(report.read_text())
            role = answers[0][1]["role"]
            assert role == ("pull" if root else "administer")
            if root:
                assert [status for status, _ in answers] == [code for _, code in asked]
                assert answers[3][1]["code"] == "lease_of_another"
                leases = host.snapctl("leases", "--json").document["leases"]
                assert sum(lease["kind"] == "pin" for lease in leases) == 2


def test_no_secret_is_shown_anywhere(cloud_host: Host, seaweed: Seaweed) -> None:
    """Keys, tokens, signatures: in no answer, no page, no metric and no line of the log."""
    bucket = seaweed.make_bucket("secrets-are-safe")
    secrets = [seaweed.secret_key, "wrong+secret/of=mine", "Signature=", "session-token-of-mine"]
    cloud_host.variables["AWS_SECRET_ACCESS_KEY"] = "wrong+secret/of=mine"
    config = f'[daemon]\nlisten = "127.0.0.1:0"\nstores = ["s3://{bucket}"]\n'
    config += '[log]\nlevel = "debug"\n'
    with cloud_host.daemon(config=config) as daemon:
        ran = cloud_host.snapctl("pull", "--id", "ab" * 32, "--store", f"s3://{bucket}/x", "--json")
        assert ran.code != 0
        shown = [ran.stdout, ran.stderr]
        commands = ("jobs --all --json", "status --json", "top --json", "leases --json")
        shown += [cloud_host.snapctl(*command.split()).stdout for command in commands]
        for path in ("", "metrics", "v1/overview", "assets/page.js"):
            with urllib.request.urlopen(f"http://{daemon.status['listen']}/{path}") as answer:
                shown.append(answer.read().decode())
        shown.append(daemon.log_text())
    assert any("access_denied" in text for text in shown), "the failure itself is told"
    for secret in secrets:
        assert not any(secret in text for text in shown), secret


def test_an_address_for_others_takes_a_token(host: Host, tmp_path: Path) -> None:
    for words in (["--listen", "0.0.0.0:0"], ["--listen", "[::]:0"]):
        ran = host.run("snapd", *words, "--check-config")
        assert ran.code == 2
        assert "token" in ran.stderr
    (tmp_path / "token").write_text("sixteen letters and more")
    words = ["--listen", "0.0.0.0:0", "--listen-token-file", str(tmp_path / "token")]
    assert host.run("snapd", *words, "--check-config").code == 0
