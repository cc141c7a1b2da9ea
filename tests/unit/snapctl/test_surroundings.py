from __future__ import annotations

import hashlib
import os
import platform
import sys
from pathlib import Path

import pytest

from snapctl.file_hash import hash_of
from snapctl.surroundings import find_lock_file, python_of, surroundings
from snapd.model.errors import UsageError

ENVIRONMENT = {"PATH": os.environ["PATH"]}


def script(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_the_version_is_that_of_the_command_s_interpreter(tmp_path: Path) -> None:
    other = script(tmp_path / "python3.99", "#!/bin/sh\necho 3.99.1\n")
    assert python_of(other, ENVIRONMENT) == "3.99.1"
    console = script(tmp_path / "train", f"#!{other}\nimport train\n")
    assert python_of(console, ENVIRONMENT) == "3.99.1"
    found = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    by_env = script(tmp_path / "torchrun", "#!/usr/bin/env python3.99\n")
    assert python_of(by_env, found) == "3.99.1"
    assert python_of(sys.executable, ENVIRONMENT) == platform.python_version()


def test_no_file_of_the_working_directory_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("platform", "os", "site", "encodings", "sitecustomize"):
        (tmp_path / f"{name}.py").write_text("open('was-run', 'w')\nprint('3.0.0')\n")
    assert python_of(sys.executable, ENVIRONMENT) == platform.python_version()
    assert not (tmp_path / "was-run").exists()


def test_of_what_is_no_python_it_is_our_own(tmp_path: Path) -> None:
    for program in (
        "/bin/sh",
        script(tmp_path / "a", "#!/bin/sh\n"),
        script(tmp_path / "b", "#!\n"),
        script(tmp_path / "python", "#!/bin/sh\necho '\x1b[2J'\n"),
        script(tmp_path / "python2", "#!/bin/sh\nexit 1\n"),
        str(tmp_path / "python3"),
    ):
        assert python_of(program, ENVIRONMENT) == platform.python_version()


def test_the_lock_file_is_the_one_nearest_to_the_command(tmp_path: Path) -> None:
    below = tmp_path / "train"
    below.mkdir()
    assert find_lock_file([below, tmp_path]) is None
    (tmp_path / "requirements-dev.txt").touch()
    assert find_lock_file([below, tmp_path]) == tmp_path / "requirements-dev.txt"
    (tmp_path / "requirements.txt").touch()
    assert find_lock_file([below, tmp_path]) == tmp_path / "requirements.txt"
    (tmp_path / "uv.lock").touch()
    assert find_lock_file([below, tmp_path]) == tmp_path / "uv.lock"
    (below / "poetry.lock").touch()
    assert find_lock_file([below, tmp_path]) == below / "poetry.lock"


def test_what_surrounds_a_command_is_described(tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_bytes(b"pinned")
    below = tmp_path / "train"
    below.mkdir()
    found = surroundings(
        sys.executable, below, tmp_path, ENVIRONMENT, image="img@sha256:1", lock=None
    )
    assert found.lock_file == "uv.lock"
    assert found.lock_hash == f"sha256:{hashlib.sha256(b'pinned').hexdigest()}"
    assert found.image == "img@sha256:1"
    assert found.platform is not None
    assert os.uname().machine in found.platform
    (below / "mine").touch()
    chosen = surroundings(
        sys.executable, below, tmp_path, ENVIRONMENT, image=None, lock=str(below / "mine")
    )
    assert (chosen.lock_file, chosen.image) == ("train/mine", None)


def test_a_lock_file_that_can_not_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="absent"):
        hash_of(tmp_path / "absent")
