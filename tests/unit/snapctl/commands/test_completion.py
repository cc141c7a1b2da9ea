from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.snapctl.running import snapctl


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_snapctl_itself(tmp_path: Path, shell: str) -> None:
    ran = snapctl("completion", shell, home=tmp_path)
    assert ran.returncode == 0
    assert "_SNAPCTL_COMPLETE" in ran.stdout


def test_completion_knows_verbs_and_options(tmp_path: Path) -> None:
    asked = {"_SNAPCTL_COMPLETE": "bash_complete", "COMP_WORDS": "snapctl ca", "COMP_CWORD": "1"}
    ran = snapctl(home=tmp_path, extra=asked)
    assert ran.stdout.split() == ["plain,cancel", "plain,cache"]
    asked |= {"COMP_WORDS": "snapctl status --js", "COMP_CWORD": "2"}
    ran = snapctl(home=tmp_path, extra=asked)
    assert ran.stdout.split() == ["plain,--json"]
