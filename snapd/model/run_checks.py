"""What a recorded run is compared with, and how it stands: nothing unchecked counts as fine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from snapd.model.run_parts import Code, Environment, Use
from snapd.model.runs import Run

Area: TypeAlias = Literal["data", "outputs", "code", "environment"]
AREAS: tuple[Area, ...] = ("data", "outputs", "code", "environment")
Status: TypeAlias = Literal["ok", "differs", "not checked"]
_SHA256 = re.compile(r"(?:sha256:)?([0-9a-f]{64})", re.ASCII)
_LOST_CHANGES = "the run's code had changes that are in no commit"


class Check(NamedTuple):
    """One thing that was compared, or could not be."""

    area: Area
    subject: str
    status: Status
    detail: str

    def line(self) -> str:
        """Say it to people: `differs      python: 3.12.1, and it was 3.11.9`."""
        return f"{self.status:<11}  {self.subject}: {self.detail}"


@dataclass(frozen=True, slots=True)
class RunChecks:
    """All checks of one run."""

    run_id: str
    checks: Sequence[Check]

    def count(self, status: Status) -> int:
        """Count the checks that ended so."""
        return sum(each.status == status for each in self.checks)

    def summary(self) -> str:
        """`5 ok, 1 differs, 2 not checked`."""
        return ", ".join(
            f"{self.count(status)} {status}" for status in ("ok", "differs", "not checked")
        )

    def to_json(self) -> dict[str, Any]:
        """Render for `--json`."""
        return {
            "run_id": self.run_id,
            "ok": self.count("ok"),
            "differs": self.count("differs"),
            "not_checked": self.count("not checked"),
            "checks": [each._asdict() for each in self.checks],
        }


def subject_of(area: Area, use: Use) -> str:
    """Name a snapshot of a run: `data 5f0c1f1c2ad9 imagenet@v1.2.0`."""
    kind = "data" if area == "data" else "output"
    return " ".join(filter(None, (kind, use.snapshot_id[:12], use.reference or use.path)))


@dataclass(frozen=True, slots=True)
class CodeHere:
    """What was found of a run's commit in a repository; None: that was not looked at."""

    where: str
    """The repository, or why there is none."""
    has_commit: bool | None = None
    head: Code | None = None


def check_code(code: Code | None, here: CodeHere) -> list[Check]:
    """Compare the code of a run with a repository and what is checked out of it."""
    if code is None:
        return [Check("code", "commit", "not checked", "the run does not say which")]
    checks = []
    if here.has_commit is None:
        checks.append(Check("code", "commit", "not checked", f"{code.commit}: {here.where}"))
    elif here.has_commit:
        checks.append(Check("code", "commit", "ok", f"{code.commit} is in {here.where}"))
    else:
        checks.append(Check("code", "commit", "differs", f"{here.where} has no {code.commit}"))
    if code.dirty or code.untracked:
        lost = _LOST_CHANGES if code.dirty else f"files in no commit: {code.untracked}"
        checks.append(Check("code", "changes", "not checked", lost))
    if here.head is not None:
        checks.append(_check_head(code, here.head))
    return checks


def _check_head(code: Code, head: Code) -> Check:
    if not same_commit(code.commit, head.commit):
        return Check("code", "working tree", "differs", f"it is at {head.commit}")
    if head.dirty:
        return Check(
            "code", "working tree", "differs", "it is at the commit, with changes that are not"
        )
    return Check("code", "working tree", "ok", "it is at the commit")


def same_commit(recorded: str, actual: str) -> bool:
    """Compare commits, of which the recorded one may be short."""
    return len(recorded) >= 7 and actual.startswith(recorded.lower())


def check_environment(recorded: Environment, here: Environment, why: dict[str, str]) -> list[Check]:
    """Compare what a run ran in with what is here; `why` tells of what is not known here.

    Only what the run recorded is compared; of a platform, the kernel's release does not count.
    """
    checks: list[Check] = []

    def compare(subject: str, said: str | None, found: str | None, is_same: bool) -> None:
        if not said:
            return
        if not found:
            reason = why.get(subject, "it can't be told here")
            checks.append(Check("environment", subject, "not checked", f"{said}: {reason}"))
        elif is_same:
            checks.append(Check("environment", subject, "ok", said))
        else:
            checks.append(Check("environment", subject, "differs", f"{found}, and it was {said}"))

    compare("python", recorded.python, here.python, recorded.python == here.python)
    if recorded.lock_hash and not _SHA256.fullmatch(recorded.lock_hash.lower()):
        detail = f"{recorded.lock_hash} is no SHA-256"
        checks.append(Check("environment", "lock file", "not checked", detail))
    else:
        same = _hex(recorded.lock_hash) == _hex(here.lock_hash)
        compare("lock file", recorded.lock_hash, here.lock_hash, same)
    compare("image", recorded.image, here.image, recorded.image == here.image)
    same = _without_release(recorded.platform) == _without_release(here.platform)
    compare("platform", recorded.platform, here.platform, same)
    checks += [
        Check("environment", f"env {name}", "not checked", f"{value}: nobody knows how")
        for name, value in recorded.extra.items()
    ]
    return checks or [
        Check("environment", "environment", "not checked", "the run does not say what it ran in")
    ]


def only(checks: Iterable[Check], areas: Sequence[str]) -> list[Check]:
    """Keep the checks of some areas; of all if none is named."""
    return [each for each in checks if not areas or each.area in areas]


def uses_of(run: Run) -> list[tuple[Area, Use]]:
    """List the snapshots of a run, its data first."""
    data: list[tuple[Area, Use]] = [("data", each) for each in run.data]
    return data + [("outputs", each) for each in run.outputs]


def _hex(text: str | None) -> str | None:
    found = _SHA256.fullmatch(text.lower()) if text else None
    return found[1] if found else text


def _without_release(platform: str | None) -> tuple[str, str] | None:
    """`Linux-6.1.0-x86_64` -> Linux and x86_64."""
    if not platform:
        return None
    return platform.partition("-")[0], platform.rpartition("-")[2]
