"""A real HTTP server on a Unix socket that answers as a test tells it to."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

Script = Callable[["Exchange"], None]


class Exchange(BaseHTTPRequestHandler):
    """One request; the script of the test writes the reply."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def reply(self, status: int, document: Any) -> None:
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send_line(self, document: Any) -> None:
        raw = (json.dumps(document) if document is not None else "").encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(raw), raw))
        self.wfile.flush()

    def end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def stream(self, *documents: Any) -> None:
        self.begin_stream()
        for document in documents:
            self.send_line(document)
        self.end_stream()

    def wait_until_left(self) -> None:
        """Return when the client has closed the connection."""
        self.connection.settimeout(60)
        assert self.connection.recv(1) == b""
        self.server.left.set()
        self.close_connection = True

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.server.requests.append((self.command, self.path, body))
        script = self.server.scripts.get((self.command, self.path))
        if script is None:
            self.reply(404, {"code": "failed", "message": f"nothing scripted for {self.path}"})
        else:
            script(self)

    do_GET = do_POST = do_DELETE = _handle  # noqa: N815 - names that http.server asks for

    def log_request(self, code: object = "-", size: object = "-") -> None:
        pass


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, path: Path, scripts: Mapping[tuple[str, str], Script]) -> None:
        self.scripts = scripts
        self.requests: list[tuple[str, str, Any]] = []
        self.left = threading.Event()
        super().__init__(str(path), Exchange)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


@contextmanager
def scripted_daemon(path: Path, scripts: Mapping[tuple[str, str], Script]) -> Iterator[_Server]:
    """Serve `scripts` (by method and path) on the socket at `path` for the length of the block."""
    with _Server(path, scripts) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def view(state: str = "fetching", **changes: Any) -> dict[str, Any]:
    """A job as the daemon shows it."""
    base: dict[str, Any] = {
        "job_id": "j1",
        "snapshot_id": "a" * 64,
        "store": "s3://bucket/prefix",
        "state": state,
        "bytes_total": 100,
        "objects_total": 4,
        "created_at": 10.0,
    }
    if state == "done":
        base |= {"bytes_fetched": 75, "objects_fetched": 3, "bytes_cached": 25}
        base |= {"objects_cached": 1, "ended_at": 12.5, "tree": "/cache/trees/" + "a" * 64}
    return base | changes
