from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from snapctl.working_tree import WorkingTree, directory_in, working_tree

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CEILING_DIRECTORIES": "/tmp",
}


def git(directory: Path, *words: str) -> str:
    who = ["-c", "user.name=ann", "-c", "user.email=ann@example.org"]
    done = subprocess.run(
        ["git", *who, "-C", str(directory), *words],
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    made = tmp_path / "code"
    (made / "train").mkdir(parents=True)
    (made / "train" / "train.py").write_text("print()\n")
    (made / ".gitignore").write_text("data\n")
    git(made, "init", "--quiet")
    git(made, "add", ".")
    git(made, "commit", "--quiet", "--message", "first")
    return made


def look(directory: Path) -> WorkingTree:
    found = working_tree(str(directory), ENVIRONMENT)
    assert isinstance(found, WorkingTree), found
    return found


def test_a_clean_tree_is_its_commit(repository: Path) -> None:
    found = look(repository)
    assert found.code.commit == git(repository, "rev-parse", "HEAD")
    assert (found.code.dirty, found.code.untracked) == (False, 0)
    assert (found.code.repository, found.code.directory) == (None, ".")
    assert Path(found.top).resolve() == repository.resolve()


def test_what_differs_is_told_from_what_is_new_and_what_is_ignored(repository: Path) -> None:
    (repository / "data").mkdir()
    (repository / "data" / "large").touch()
    (repository / "notes").touch()
    found = look(repository / "train")
    assert (found.code.dirty, found.code.untracked) == (False, 1)
    assert found.code.directory == "train"
    (repository / "train" / "train.py").write_text("changed\n")
    assert look(repository).code.dirty is True


def test_the_repository_is_named_without_credentials(repository: Path) -> None:
    git(repository, "remote", "add", "origin", "https://ann:secret@git.example.org/x/y.git")
    assert look(repository).code.repository == "https://git.example.org/x/y.git"


def test_why_there_is_no_commit_is_said(tmp_path: Path, repository: Path) -> None:
    assert "no git repository" in str(working_tree(str(tmp_path), ENVIRONMENT))
    (tmp_path / "new").mkdir()
    git(tmp_path / "new", "init", "--quiet")
    assert "no commit yet" in str(working_tree(str(tmp_path / "new"), ENVIRONMENT))
    assert "no git here" in str(working_tree(str(repository), {"PATH": str(tmp_path)}))


def test_a_directory_that_a_record_can_not_hold_is_left_out() -> None:
    assert directory_in("") == "."
    assert directory_in("a/b/\n") == "a/b"
    assert directory_in("a\x1b/") is None


def test_what_git_refuses_and_what_takes_too_long_is_told(tmp_path: Path, repository: Path) -> None:
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'fatal: detected dubious ownership in x' >&2; exit 128\n")
    program.chmod(0o755)
    instead = ENVIRONMENT | {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    assert "git says: detected dubious" in str(working_tree(str(repository), instead))
    real = shutil.which("git")
    program.write_text(f'#!/bin/sh\ntest "$3" = status && exit 1\nexec {real} "$@"\n')
    found = working_tree(str(repository), instead)
    assert isinstance(found, WorkingTree)
    assert (found.code.dirty, found.code.untracked) == (None, None)
    assert found.code.commit == git(repository, "rev-parse", "HEAD")
