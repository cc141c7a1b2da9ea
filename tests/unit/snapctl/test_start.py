from __future__ import annotations

import gc
import sys

import pytest

from snapctl.start import main


@pytest.mark.parametrize(("verb", "code"), [("version", 0), ("no-such-verb", 2)])
def test_a_command_runs_with_the_collector_at_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str, code: int
) -> None:
    monkeypatch.setattr(sys, "argv", ["snapctl", verb])
    try:
        assert main() == code
        assert gc.isenabled()
    finally:
        gc.unfreeze()
    assert (capsys.readouterr().out != "") is (code == 0)
