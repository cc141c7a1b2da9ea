from __future__ import annotations

import json
from pathlib import Path

from snapd import __version__
from tests.unit.snapctl.running import snapctl


def test_the_version_is_the_package_s(tmp_path: Path) -> None:
    for words in ("version", "--version"):
        assert snapctl(words, home=tmp_path).stdout == f"snapctl {__version__}\n"
    as_json = snapctl("--json", "version", home=tmp_path)
    assert json.loads(as_json.stdout) == {"version": __version__}
