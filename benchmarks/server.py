"""nginx as the cheapest S3 reader: a folder laid out as bucket/key, served with sendfile."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trustme

from tests.servers.seaweed import free_ports

READY_SECONDS = 10.0
SEARCH_PATH = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
ECHO_MODULE = Path("/usr/lib/nginx/modules/ngx_http_echo_module.so")

CONFIGURATION = """
user root;
worker_processes 2;
daemon off;
pid {run}/nginx.pid;
error_log {run}/error.log warn;
{modules}
events {{ worker_connections 4096; }}
http {{
  log_format asked "$request_method $uri";
  access_log {access};
  log_subrequest off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  client_body_temp_path {run}/body;
  proxy_temp_path {run}/proxy;
  fastcgi_temp_path {run}/fastcgi;
  uwsgi_temp_path {run}/uwsgi;
  scgi_temp_path {run}/scgi;
  default_type application/octet-stream;
  server {{
    listen 127.0.0.1:{port} {listening} backlog=4096;
    root {root};
    {tls}
    {locations}
  }}
}}
"""
TLS = """
    ssl_certificate {run}/server.pem;
    ssl_certificate_key {run}/server.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:tls:10m;
"""
DELAYED = """
    location / {{ echo_sleep {delay_seconds:.3f}; echo_exec @files; }}
    location @files {{ }}
"""


FORWARDING = """
user root;
worker_processes 1;
daemon off;
pid {run}/nginx.pid;
error_log {run}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  log_format asked "$request_method $uri";
  access_log {asked} asked;
  keepalive_requests 1000000;
  client_max_body_size 0;
  client_body_temp_path {run}/body;
  proxy_temp_path {run}/proxy;
  fastcgi_temp_path {run}/fastcgi;
  uwsgi_temp_path {run}/uwsgi;
  scgi_temp_path {run}/scgi;
  upstream store {{ server {upstream}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://store;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Connection "";
      proxy_request_buffering off;
      proxy_buffering off;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Wire:
    """How a store is reached: encrypted or not, and how late each answer begins."""

    tls: bool = False
    delay_seconds: float = 0.0

    def __str__(self) -> str:
        late = f" + {1000 * self.delay_seconds:.0f} ms" if self.delay_seconds else ""
        return ("https" if self.tls else "http") + late


HTTP = Wire()
HTTPS = Wire(tls=True)
LATE = Wire(delay_seconds=0.020)


@contextmanager
def serving(
    root: Path, run: Path, *, wire: Wire = HTTP, asked: Path | None = None
) -> Iterator[str]:
    """Serve `root/<bucket>/<key>` read-only; give the endpoint URL.

    `asked` gets a line for each request: its method and its path. With TLS, `ca_file(run)` is whom
    clients must trust.
    """
    (port,) = free_ports(1)
    run.mkdir(parents=True, exist_ok=True)
    with _running(run, _configuration(root, run, port, wire, asked), port):
        yield f"{'https' if wire.tls else 'http'}://127.0.0.1:{port}"


@contextmanager
def forwarding(upstream: str, run: Path, asked: Path) -> Iterator[str]:
    """Stand in front of an S3 server, as `http://host:port`, to write down what it is asked.

    Signatures stay valid, because the server sees the host name that the client signed.
    """
    (port,) = free_ports(1)
    run.mkdir(parents=True, exist_ok=True)
    address = upstream.removeprefix("http://")
    with _running(run, FORWARDING.format(run=run, asked=asked, upstream=address, port=port), port):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _running(run: Path, configuration: str, port: int) -> Iterator[None]:
    nginx = shutil.which("nginx", path=SEARCH_PATH)
    if nginx is None:
        raise SystemExit("the benchmarks need nginx: apt-get install nginx-light")
    (run / "nginx.conf").write_text(configuration, encoding="utf-8")
    process = subprocess.Popen([nginx, "-c", str(run / "nginx.conf"), "-p", str(run)])
    try:
        _wait(port, process)
        yield
    finally:
        process.terminate()
        process.wait(timeout=READY_SECONDS)


def ca_file(run: Path) -> Path:
    """Tell where the authority of a server with TLS lies."""
    return run / "ca.pem"


def _configuration(root: Path, run: Path, port: int, wire: Wire, asked: Path | None) -> str:
    if wire.tls:
        _write_certificates(run)
    if wire.delay_seconds and not ECHO_MODULE.exists():
        raise SystemExit("latency needs nginx's echo: apt-get install libnginx-mod-http-echo")
    return CONFIGURATION.format(
        run=run,
        root=root,
        port=port,
        access="off" if asked is None else f"{asked} asked",
        modules=f"load_module {ECHO_MODULE};" if wire.delay_seconds else "",
        listening="ssl" if wire.tls else "",
        tls=TLS.format(run=run) if wire.tls else "",
        locations=DELAYED.format(delay_seconds=wire.delay_seconds) if wire.delay_seconds else "",
    )


def _write_certificates(run: Path) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(str(ca_file(run)))
    leaf.private_key_pem.write_to_path(str(run / "server.key"))
    for part in leaf.cert_chain_pems:
        part.write_to_path(str(run / "server.pem"), append=part is not leaf.cert_chain_pems[0])


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise SystemExit("nginx did not start")
