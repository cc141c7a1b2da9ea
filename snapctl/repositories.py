"""The commit of a recorded run in a git repository: whether it is there, and a copy of its files.

Nothing is written into a repository of the user's: a copy is a clone of its own, without hooks.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from snapctl.working_tree import WorkingTree, working_tree
from snapd.model.errors import ActionFailed, UsageError
from snapd.model.run_checks import CodeHere

_SECONDS = 60.0
_CLONE_SECONDS = 3600.0
_SAID_MAX_CHARACTERS = 300
_MISLEADING = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY")


def look_for_commit(
    repository: str | None, commit: str, environment: Mapping[str, str]
) -> CodeHere:
    """Tell whether a repository has a commit, and what is checked out of it.

    Without one that is named it is that of the working directory, if that is in one. Raises
    `UsageError` for one that is named and is none.
    """
    place = repository or "."
    try:
        is_one = _git(place, environment, "rev-parse", "--git-dir").returncode == 0
    except OSError:
        is_one = False
    if not is_one:
        if repository is None:
            return CodeHere("no repository is named, and the working directory is in none")
        raise UsageError(
            f"there is no git repository at {repository!r}",
            hint="--repo names a directory in a working tree, or a bare repository.",
        )
    has_commit = _has_commit(place, commit, environment)
    found = working_tree(place, plain(environment))
    if isinstance(found, WorkingTree):
        return CodeHere(found.top, has_commit, found.code)
    return CodeHere(place, has_commit)


def lay_out_commit(
    repository: str, commit: str, into: Path, environment: Mapping[str, str]
) -> list[str]:
    """Put the files of a commit at `into`, a new clone; give what is to be told of it.

    Raises `ActionFailed` with what git says.
    """
    quiet = ("-c", "core.hooksPath=/dev/null", "-c", "advice.detachedHead=false")
    words = ("clone", "--quiet", "--no-checkout", "--template=", "--", repository, str(into))
    _expect(_git(".", environment, *quiet, *words, seconds=_CLONE_SECONDS), f"clone {repository}")
    if not _has_commit(str(into), commit, environment):
        # A clone brings what refs lead to, and a run's commit may have lost its branch since.
        fetched = _git(str(into), environment, "fetch", "--quiet", "origin", commit)
        if fetched.returncode != 0:
            _expect(_with_unreachable(repository, into, environment), f"copy from {repository}")
    at_commit = ("checkout", "--quiet", "--detach", f"{commit}^{{commit}}")
    out = _git(str(into), environment, *quiet, *at_commit, seconds=_CLONE_SECONDS)
    _expect(out, f"check out {commit}")
    if (into / ".gitmodules").exists():
        return ["the code has submodules, which are not laid out"]
    return []


def plain(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out what would lead git to another repository than the one that is named."""
    return {name: value for name, value in environment.items() if name not in _MISLEADING}


def _with_unreachable(
    repository: str, into: Path, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Let the clone read the objects of the repository that no ref leads to."""
    found = _git(repository, environment, "rev-parse", "--path-format=absolute", "--git-common-dir")
    if found.returncode == 0:
        objects = Path(found.stdout.rstrip("\n")) / "objects"
        alternates = into / ".git" / "objects" / "info" / "alternates"
        alternates.parent.mkdir(exist_ok=True)
        with alternates.open("a") as file:
            file.write(f"{objects}\n")
    return found


def _has_commit(repository: str, commit: str, environment: Mapping[str, str]) -> bool:
    return _git(repository, environment, "cat-file", "-e", f"{commit}^{{commit}}").returncode == 0


def _expect(done: subprocess.CompletedProcess[str], what: str) -> None:
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"git ended with {done.returncode}"]
        raise ActionFailed(
            f"can't {what}: {lines[-1][:_SAID_MAX_CHARACTERS]}",
            hint="Name a repository that has the commit with --repo.",
        )


def _git(
    directory: str, environment: Mapping[str, str], *words: str, seconds: float = _SECONDS
) -> subprocess.CompletedProcess[str]:
    """Run git; raises `ActionFailed` if there is none, or it takes too long."""
    try:
        return subprocess.run(
            ["git", "-C", directory, *words],
            env={
                **plain(environment),
                "GIT_OPTIONAL_LOCKS": "0",
                "GIT_TERMINAL_PROMPT": "0",
                "LC_ALL": "C",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError as error:
        raise ActionFailed("there is no git here", hint="Install git, or leave --repo out.") from (
            error
        )
    except subprocess.TimeoutExpired as error:
        raise ActionFailed(f"git {words[0]} took longer than {seconds:.0f} s") from error
