from __future__ import annotations

import logging
import secrets
import socket
import time
from pathlib import Path

import pytest

from snapd.runtime.notify import Supervisor


@pytest.mark.parametrize("abstract", [False, True])
def test_the_supervisor_is_told(tmp_path: Path, abstract: bool) -> None:
    name = f"@snapsync-test-{secrets.token_hex(8)}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name.replace("@", "\0") if abstract else name)
        supervisor = Supervisor(name)
        supervisor.ready("serving")
        assert systemd.recv(4096) == b"READY=1\nSTATUS=serving"
        supervisor.reloading()
        first, _, moment = systemd.recv(4096).partition(b"\nMONOTONIC_USEC=")
        assert first == b"RELOADING=1"
        assert abs(int(moment) - time.monotonic_ns() // 1000) < 5_000_000
        supervisor.stopping("draining")
        assert systemd.recv(4096) == b"STOPPING=1\nSTATUS=draining"


def test_without_a_supervisor_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    Supervisor().ready("serving")
    assert not caplog.records


def test_a_supervisor_that_is_gone_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        Supervisor(str(tmp_path / "gone")).ready("serving")
    (record,) = caplog.records
    assert "READY=1" in record.getMessage()
