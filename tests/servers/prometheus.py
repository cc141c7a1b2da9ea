"""A real Prometheus that scrapes what a test runs, and its `promtool`.

They are Debian's; `tests/servers/get_prometheus.sh` gets them without installing anything, and
`make test` calls it. A test that can't find them fails and says so.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.servers.ports import reserved_port

READY_SECONDS = 60.0
ANSWER_SECONDS = 60.0
POLL_SECONDS = 0.1
FETCHED = Path(sys.prefix) / "tools" / "usr" / "bin"

_T = TypeVar("_T")


def tool(name: str) -> str:
    """Find `prometheus` or `promtool`; a machine without them fails the test."""
    found = shutil.which(name) or shutil.which(name, path=str(FETCHED))
    assert found, (
        f"{name} is missing: run tests/servers/get_prometheus.sh {FETCHED.parents[1]}"
        " (make test does), or install Debian's package prometheus"
    )
    return found


def promtool(*arguments: str | Path, given: str = "") -> str:
    """Run `promtool`, which must find nothing to complain about; gives what it said."""
    ran = subprocess.run(
        [tool("promtool"), *map(str, arguments)],
        input=given,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    said = ran.stdout + ran.stderr
    assert ran.returncode == 0, said
    return said


class Prometheus:
    """A running server."""

    def __init__(self, address: str) -> None:
        self.url = f"http://{address}"

    def ask(self, path: str, **parameters: str) -> Any:
        """Ask its API; gives the `data` of the answer."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as reply:
            answer = json.load(reply)
        assert answer["status"] == "success"
        return answer["data"]

    def query(self, promql: str) -> dict[tuple[str, ...], float]:
        """Evaluate an expression now: label values without job and instance -> value."""
        rows = self.ask("query", query=promql)["result"]
        usual = ("__name__", "job", "instance")
        return {
            tuple(text for label, text in sorted(row["metric"].items()) if label not in usual): (
                float(row["value"][1])
            )
            for row in rows
        }

    def until(self, look: Callable[[], _T], expected: str = "") -> _T:
        """Look again with every scrape until there is something to see."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline:
            if seen := look():
                return seen
            time.sleep(POLL_SECONDS)
        raise AssertionError(f"Prometheus never saw it: {expected}")

    def until_is(self, promql: str, wanted: dict[tuple[str, ...], float]) -> None:
        """Wait until an expression gives just this: a late scrape hides everything for a while."""
        seen: list[dict[tuple[str, ...], float]] = [{}]

        def look() -> bool:
            seen[0] = self.query(promql)
            return seen[0] == wanted

        try:
            self.until(look)
        except AssertionError:
            raise AssertionError(f"{promql} is {seen[0]}, not {wanted}") from None

    def until_true(self, promql: str) -> dict[tuple[str, ...], float]:
        """Wait until an expression gives something."""
        return self.until(lambda: self.query(promql), promql)


@contextmanager
def running_prometheus(
    directory: Path, *, targets: Sequence[str], rules: Path, every: str = "200ms"
) -> Iterator[Prometheus]:
    """Run a server that scrapes the targets as the job `snapd`, for the length of the block."""
    config = directory / "prometheus.yml"
    directory.mkdir(parents=True, exist_ok=True)
    config.write_text(
        f"global: {{scrape_interval: {every}, scrape_timeout: {every}, evaluation_interval: 1s}}\n"
        f"rule_files: [{json.dumps(str(rules))}]\n"
        "scrape_configs:\n"
        "  - job_name: snapd\n"
        f"    static_configs: [{{targets: {json.dumps(list(targets))}}}]\n",
        encoding="utf-8",
    )
    log = directory / "prometheus.log"
    with reserved_port() as port, log.open("wb") as output:
        address = f"127.0.0.1:{port}"
        process = subprocess.Popen(
            [
                tool("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address={address}",
                "--query.lookback-delta=10s",
                "--log.level=warn",
            ],
            stdout=output,
            stderr=output,
        )
        try:
            server = Prometheus(address)
            _await(server, process, log)
            yield server
        finally:
            process.terminate()
            process.wait(READY_SECONDS)


def _await(server: Prometheus, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.url}/-/ready", timeout=5) as reply:
                if reply.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"Prometheus is not ready:\n{log.read_text(errors='replace')}")
