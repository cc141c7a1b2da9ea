"""An OpenTelemetry collector in the test's process: takes OTLP over HTTP, keeps the spans."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

WAIT_SECONDS = 30.0


class Collector:
    """What arrived; `resources` are the attributes of the senders, `headers` what they sent."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self._arrived = threading.Condition()

    def take(self, request: ExportTraceServiceRequest) -> None:
        with self._arrived:
            for sender in request.resource_spans:
                self.resources.append(attributes_of(sender.resource))
                self.spans += [span for scope in sender.scope_spans for span in scope.spans]
            self._arrived.notify_all()

    def wait_for(self, count: int) -> list[Any]:
        """Wait until so many spans have arrived."""
        with self._arrived:
            came = self._arrived.wait_for(lambda: len(self.spans) >= count, WAIT_SECONDS)
            assert came, f"only {len(self.spans)} spans came"
            return list(self.spans)


def attributes_of(holder: Any) -> dict[str, Any]:
    """Give the attributes of a span, an event or a resource as plain values."""
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in holder.attributes
    }


@contextmanager
def running_collector() -> Iterator[Collector]:
    """Run a collector on a free port for the length of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.take(ExportTraceServiceRequest.FromString(body))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
