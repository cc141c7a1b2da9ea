from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from snapctl.repositories import lay_out_commit, look_for_commit
from snapd.model.errors import ActionFailed, UsageError
from tests.e2e.installed import files_below

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


def git(directory: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=directory, env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "-q")
    (root / "train.py").write_text("1")
    git(root, "add", ".")
    git(root, "commit", "-qm", "one")
    return root


def test_a_commit_is_looked_for_where_it_is_named(repository: Path, tmp_path: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    (repository / "sub").mkdir()
    found = look_for_commit(str(repository / "sub"), commit[:9], ENVIRONMENT)
    assert (found.where, found.has_commit) == (str(repository), True)
    assert found.head is not None
    assert (found.head.commit, found.head.dirty) == (commit, False)
    assert look_for_commit(str(repository), "0" * 40, ENVIRONMENT).has_commit is False
    git(tmp_path, "clone", "-q", "--bare", str(repository), "bare")
    bare = look_for_commit(str(tmp_path / "bare"), commit, ENVIRONMENT)
    assert (bare.has_commit, bare.head) == (True, None)


def test_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert look_for_commit(None, "0" * 40, ENVIRONMENT).has_commit is None
    for named in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UsageError, match="no git repository"):
            look_for_commit(str(named), "0" * 40, ENVIRONMENT)
    with pytest.raises(ActionFailed, match="no git here"):
        look_for_commit(str(tmp_path), "0" * 40, {**ENVIRONMENT, "PATH": str(tmp_path)})


def test_variables_of_a_hook_do_not_mislead(repository: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    misled = {**ENVIRONMENT, "GIT_DIR": str(other / ".git"), "GIT_WORK_TREE": str(other)}
    commit = git(repository, "rev-parse", "HEAD")
    assert look_for_commit(str(repository), commit, misled).where == str(repository)
    lay_out_commit(str(repository), commit, tmp_path / "code", misled)
    assert (tmp_path / "code/train.py").read_text() == "1"
    assert files_below(other).keys() == {
        name for name in files_below(other) if name.startswith(".git/")
    }


def test_a_copy_is_of_that_commit_even_if_nothing_leads_to_it(
    repository: Path, tmp_path: Path
) -> None:
    old = git(repository, "rev-parse", "HEAD")
    (repository / "train.py").write_text("2")
    git(repository, "commit", "-qam", "two", "--amend")
    hook = repository / ".git/hooks/post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/hooked\n")
    hook.chmod(0o755)
    before = files_below(repository)
    assert lay_out_commit(str(repository), old, tmp_path / "code", ENVIRONMENT) == []
    assert (tmp_path / "code/train.py").read_text() == "1"
    assert git(tmp_path / "code", "rev-parse", "HEAD") == old
    assert files_below(repository) == before
    assert not (tmp_path / "hooked").exists()


def test_what_is_not_laid_out_is_told(repository: Path, tmp_path: Path) -> None:
    (repository / ".gitmodules").write_text("")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "modules")
    [note] = lay_out_commit(str(repository), "HEAD", tmp_path / "code", ENVIRONMENT)
    assert "submodules" in note
    with pytest.raises(ActionFailed, match="check out 0000"):
        lay_out_commit(str(repository), "0" * 40, tmp_path / "more", ENVIRONMENT)
