"""Versions by the rules of semantic versioning 2.0.0, with a `v` in front."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering

from snapd.model.errors import InvalidName
from snapd.model.names import shown

VERSION_MAX_CHARACTERS = 64

_NUMBER = r"(?:0|[1-9][0-9]*)"
_PRERELEASE_PART = rf"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_VERSION = re.compile(
    rf"v?({_NUMBER})\.({_NUMBER})\.({_NUMBER})"
    rf"(?:-({_PRERELEASE_PART}(?:\.{_PRERELEASE_PART})*))?"
    r"(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?",
    re.ASCII,
)
_LOOKS_LIKE = re.compile(r"v?[0-9]", re.ASCII)


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """`v1.2.0-rc.1+build.5`, ordered by precedence; build metadata comes last, as text.

    Semantic versioning gives builds no order; this one is total, so that sorting is stable.
    """

    major: int
    minor: int
    patch: int
    prerelease: tuple[str, ...] = ()
    build: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"v{self.major}.{self.minor}.{self.patch}"
        if self.prerelease:
            text += f"-{'.'.join(self.prerelease)}"
        return f"{text}+{'.'.join(self.build)}" if self.build else text

    def __lt__(self, other: Version) -> bool:
        return self._precedence() < other._precedence()

    def _precedence(self) -> tuple[object, ...]:
        parts = tuple(
            (0, int(part), "") if part.isdigit() else (1, 0, part) for part in self.prerelease
        )
        # A release comes after all its prereleases.
        return (self.major, self.minor, self.patch, not self.prerelease, parts, self.build)


def looks_like_version(text: str) -> bool:
    """Tell whether somebody who wrote this meant a version, right or wrong."""
    return _LOOKS_LIKE.match(text) is not None


def parse_version(text: str) -> Version:
    """Read a version, with or without `v`; raises `InvalidName` naming the text."""
    # The v that is put in front must not make it too long to be read again.
    fits = len(text.removeprefix("v")) <= VERSION_MAX_CHARACTERS
    found = _VERSION.fullmatch(text) if fits else None
    if found is None:
        raise InvalidName(
            f"not a version: {shown(text)}",
            hint="Versions are semantic: v1.2.0, v1.2.0-rc.1; the first three parts are numbers.",
        )
    major, minor, patch, prerelease, build = found.groups()
    return Version(
        int(major),
        int(minor),
        int(patch),
        tuple(prerelease.split(".")) if prerelease else (),
        tuple(build.split(".")) if build else (),
    )
