"""nginx as the cheapest S3 reader: a folder laid out as bucket/key, served with sendfile."""

from __future__ import annotations

import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers.seaweed import free_ports

READY_SECONDS = 10.0

CONFIGURATION = """
worker_processes 2;
daemon off;
pid {run}/nginx.pid;
error_log {run}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  log_format asked "$request_method $uri";
  access_log {access};
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  client_body_temp_path {run}/body;
  proxy_temp_path {run}/proxy;
  fastcgi_temp_path {run}/fastcgi;
  uwsgi_temp_path {run}/uwsgi;
  scgi_temp_path {run}/scgi;
  default_type application/octet-stream;
  server {{ listen 127.0.0.1:{port} backlog=4096; root {root}; }}
}}
"""


@contextmanager
def serving(root: Path, run: Path, *, asked: Path | None = None) -> Iterator[str]:
    """Serve `root/<bucket>/<key>` read-only; give the endpoint URL.

    `asked` gets a line for each request: its method and its path.
    """
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if nginx is None:
        raise SystemExit("the benchmarks need nginx: apt-get install nginx-light")
    (port,) = free_ports(1)
    run.mkdir(parents=True, exist_ok=True)
    configuration = run / "nginx.conf"
    access = "off" if asked is None else f"{asked} asked"
    text = CONFIGURATION.format(root=root, run=run, port=port, access=access)
    configuration.write_text("user root;\n" + text, encoding="utf-8")
    process = subprocess.Popen([nginx, "-c", str(configuration), "-p", str(run)])
    endpoint = f"http://127.0.0.1:{port}"
    try:
        _wait(endpoint)
        yield endpoint
    finally:
        process.terminate()
        process.wait(timeout=READY_SECONDS)


def _wait(endpoint: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(endpoint, timeout=1).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("nginx did not start")
