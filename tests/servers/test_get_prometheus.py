"""What the fresh machine of a check gets: the tools without a service, or a clear word."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.servers import prometheus

SCRIPT = Path(__file__).parent / "get_prometheus.sh"


def test_the_tools_are_here() -> None:
    assert "version" in prometheus.promtool("--version")


def test_a_machine_without_them_fails_with_a_word_on_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(prometheus, "FETCHED", tmp_path / "usr" / "bin")
    with pytest.raises(AssertionError, match="promtool is missing: run tests/servers"):
        prometheus.tool("promtool")


def test_a_machine_without_apt_is_told_and_goes_on(tmp_path: Path) -> None:
    ran = subprocess.run(
        ["/bin/bash", str(SCRIPT), str(tmp_path / "tools")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0
    assert "no apt-get" in ran.stderr
