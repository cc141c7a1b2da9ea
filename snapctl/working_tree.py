"""Which commit a directory is at, asked of git itself."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from snapd.model.run_parts import Code
from snapd.model.secrecy import without_credentials

_SECONDS = 60.0
_OUTPUT_MAX_CHARACTERS = 1024


@dataclass(frozen=True, slots=True)
class WorkingTree:
    """A directory of a git repository: its code, and where the repository's files begin."""

    code: Code
    top: str


def working_tree(directory: str, environment: Mapping[str, str]) -> WorkingTree | str:
    """Tell the commit of a directory and what differs from it, or why that can't be told."""
    try:
        found = _git(directory, environment, "rev-parse", "--show-toplevel", "--show-prefix")
        commit = _git(directory, environment, "rev-parse", "--verify", "HEAD^{commit}")
        remote = _git(directory, environment, "remote", "get-url", "origin")
    except _Refused as refused:
        return f"git says: {refused}"
    except FileNotFoundError:
        return "there is no git here"
    except (OSError, subprocess.SubprocessError) as error:
        return f"git failed: {error}"
    if found is None:
        return "this directory is in no git repository"
    if commit is None:
        return "the git repository here has no commit yet"
    top, _, prefix = found.partition("\n")
    changed = _changed(top, environment)
    entries = None if changed is None else [each for each in changed.split("\0") if each]
    untracked = None if entries is None else sum(each.startswith("??") for each in entries)
    address = without_credentials(remote) if remote else ""
    code = Code(
        commit.strip(),
        dirty=None if entries is None else len(entries) > (untracked or 0),
        repository=address if _fits(address) else None,
        untracked=untracked,
        directory=directory_in(prefix),
    )
    return WorkingTree(code, top)


def directory_in(prefix: str) -> str | None:
    """`train/` -> `train`, nothing -> `.`; None for what a record can't hold."""
    name = prefix.strip("\n").rstrip("/") or "."
    return name if _fits(name) else None


def _fits(text: str) -> bool:
    return bool(text) and text.isprintable() and len(text) <= _OUTPUT_MAX_CHARACTERS


class _Refused(Exception):
    """Git does not look into a repository, mostly because it belongs to somebody else."""


def _changed(top: str, environment: Mapping[str, str]) -> str | None:
    """Ask what differs from the commit; None if that takes too long, as in a huge tree."""
    try:
        return _git(top, environment, "status", "--porcelain=v1", "-z", "--no-renames")
    except (OSError, subprocess.SubprocessError, _Refused):
        return None


def _git(directory: str, environment: Mapping[str, str], *words: str) -> str | None:
    """Ask git; None if it says that there is no such thing."""
    # It may be that others work in the tree: nothing is locked and nothing refreshed for us.
    done = subprocess.run(
        ["git", "-C", directory, *words],
        env={**environment, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        if b"dubious ownership" in done.stderr:
            said = done.stderr.decode("utf-8", "replace").splitlines()[0]
            raise _Refused(said.removeprefix("fatal: ")[:200])
        return None
    text = done.stdout.decode("utf-8", "backslashreplace")
    return text if words[0] == "status" else text.removesuffix("\n")
