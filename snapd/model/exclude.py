"""Exclude patterns: regular expressions of the Rust kind, which the format speaks, and macros.

Python's `re` runs them. What the two kinds write differently is translated, and what only one of
them has is refused, because a pattern that silently means something else changes snapshot IDs.
Other than Rust's engine, `re` can take exponential time for a pattern with nested repetitions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from snapd.model.errors import InvalidPattern

_COMMON = (
    r"(/(.cache|.git|.DS_Store|.vscode-server|.dbus|.gvfs|.local/share/gvfs-metadata"
    r"|.local/share/Trash|.Trash|node_modules|Trash-1000)($|/))"
)
_SYSTEM = (
    "(^(/vscode/|/dev/|/proc/|/sys/|/tmp/|/var/run/|/run/|/mnt/|/media/|/lost+found/"
    "|/var/snap/lxd/common/ns/shmounts/|/var/snap/lxd/common/ns/mntns/|/var/lib/lxcfs/"
    "|{home}/.cache/|{cache_dir}))"
)


@dataclass(frozen=True, slots=True)
class Excludes:
    """A compiled list of patterns; a path matches if any of them is found anywhere in it."""

    patterns: tuple[str, ...]
    """As they were given, without empty ones."""
    no_follow: bool
    """Whether a macro asks not to follow symbolic links."""
    _search: re.Pattern[str] | None

    @classmethod
    def compile(cls, patterns: Iterable[str], *, home: str, cache_dir: str) -> Excludes:
        """Translate patterns; `%common%` and `%system%` in them are expanded first.

        An empty pattern is skipped. Raises `InvalidPattern` naming the pattern and the reason.
        """
        given = tuple(pattern for pattern in patterns if pattern)
        system = _SYSTEM.format(home=re.escape(home), cache_dir=re.escape(cache_dir))
        parts = []
        for pattern in given:
            expanded = pattern.replace("%common%", _COMMON).replace("%system%", system)
            parts.append(_translated(pattern, expanded))
        return cls(
            patterns=given,
            no_follow=any("%system%" in pattern for pattern in given),
            _search=re.compile("|".join(f"(?:{part})" for part in parts)) if parts else None,
        )

    def matches(self, path: str) -> bool:
        """Tell whether a path is excluded.

        Give the absolute path, without a trailing slash and with links as they are written, to
        decide as the reference does; give the `./` form for patterns that are meant relatively.
        """
        return self._search is not None and self._search.search(path) is not None


def _translated(pattern: str, expanded: str) -> str:
    try:
        translated = _Translator(expanded).translate()
        re.compile(translated)
    except (_UnsupportedError, re.error, OverflowError, RecursionError) as exc:
        raise InvalidPattern(
            f"not an exclude pattern: {pattern!r}: {exc}", pattern=pattern
        ) from exc
    return translated


class _UnsupportedError(Exception):
    """Something that Rust's syntax does not have, or that `re` can't do."""


_GROUP_START = re.compile(r"\((?:\?(?:P?<[A-Za-z_][\w.\[\]]*>|:)|(?!\?))")
_FLAGS = re.compile(r"\(\?([a-zA-Z]*)(?:-([a-zA-Z]+))?([:)])")
_REPETITION = re.compile(r"(?:[*+?]|\{\d+(?:,\d*)?\})\??", re.ASCII)
_CODE_POINT = re.compile(
    r"\\(?:[xuU]\{([0-9A-Fa-f]+)\}|x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8}))"
)
_POSIX_CLASS = re.compile(r"\[:(\^?)([a-z]+):\]")
_ESCAPED_PUNCTUATION = frozenset("""!"#$%&'()*+,-./:;=?@[\\]^_`{|}~ """)
_CLASS_ESCAPES = frozenset("dDsSwWafnrtv") | _ESCAPED_PUNCTUATION
_ESCAPES = frozenset("bBA") | _CLASS_ESCAPES
# `re` also counts the separators U+001C to U+001F as white space. Items of a class.
_SPACES = {
    "s": r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000",
    "S": r"\S\x1c-\x1f",
}
_UNICODE_MAX = 0x10FFFF
_ASCII_RANGES = {
    "alnum": ("09", "AZ", "az"),
    "alpha": ("AZ", "az"),
    "ascii": ("\x00\x7f",),
    "blank": ("\t\t", "  "),
    "cntrl": ("\x00\x1f", "\x7f\x7f"),
    "digit": ("09",),
    "graph": ("!~",),
    "lower": ("az",),
    "print": (" ~",),
    "punct": ("!/", ":@", "[`", "{~"),
    "space": ("\t\r", "  "),
    "upper": ("AZ",),
    "word": ("09", "AZ", "__", "az"),
    "xdigit": ("09", "AF", "af"),
}


class _Translator:
    """One pass over a pattern, from left to right.

    A flag such as `(?i)` holds until its group ends, over alternatives too. `re` knows flags for a
    group of their own only, so such groups are opened, closed at `|` and `)`, and opened again.
    """

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0
        self._written: list[str] = []
        self._flags: list[list[str]] = [[]]  # for each open group the flag groups opened in it
        self._repeatable = False

    def translate(self) -> str:
        while self._at < len(self._pattern):
            self._step(self._pattern[self._at])
        if len(self._flags) != 1:
            raise _UnsupportedError("a group is not closed")
        self._end_flags()
        return "".join(self._written)

    def _step(self, character: str) -> None:
        if character == "\\":
            self._escape()
        elif character == "[":
            self._class()
        elif character == "(":
            self._open_group()
        elif character == ")":
            self._close_group()
        elif character == "|":
            self._end_flags()
            self._take(1, "|" + "".join(self._flags[-1]), repeatable=False)
        elif character in "*+?{":
            self._repetition()
        else:
            # `$` of `re` would also match before a final LF.
            self._take(1, r"\Z" if character == "$" else character)

    def _take(self, length: int, written: str, *, repeatable: bool = True) -> None:
        self._written.append(written)
        self._at += length
        self._repeatable = repeatable

    def _escape(self) -> None:
        code_point = _CODE_POINT.match(self._pattern, self._at)
        escaped = self._pattern[self._at + 1 : self._at + 2]
        if code_point is not None:
            self._take(len(code_point[0]), _literal(code_point))
        elif escaped == "z":
            self._take(2, r"\Z")
        elif self._pattern.startswith(("b{", "B{"), self._at + 1):
            raise _UnsupportedError(f"\\{escaped}{{ is not supported")
        else:
            written = _escape(escaped, _ESCAPES)
            self._take(2, f"[{written}]" if escaped in _SPACES else written)

    def _class(self) -> None:
        start = "[^" if self._pattern.startswith("[^", self._at) else "["
        self._take(len(start), start)
        while self._pattern.startswith("-", self._at):
            self._take(1, r"\-")
        if self._written[-1] == start and self._pattern.startswith("]", self._at):
            self._take(1, r"\]")
        while not self._pattern.startswith("]", self._at):
            self._class_item()
        self._take(1, "]")

    def _class_item(self) -> None:
        rest = self._pattern[self._at : self._at + 2]
        posix = _POSIX_CLASS.match(self._pattern, self._at)
        code_point = _CODE_POINT.match(self._pattern, self._at)
        if not rest:
            raise _UnsupportedError("a class is not closed")
        if posix is not None:
            self._take(len(posix[0]), _posix_items(posix[2], negated=posix[1] != ""))
        elif code_point is not None:
            self._take(len(code_point[0]), _literal(code_point))
        elif rest[0] == "\\":
            self._take(2, _escape(rest[1:], _CLASS_ESCAPES))
        elif rest[0] == "[" or rest in {"&&", "--", "~~"}:
            raise _UnsupportedError("a set inside a class is not supported")
        else:
            self._take(1, rest[0] if rest[0] == "-" else re.escape(rest[0]))

    def _open_group(self) -> None:
        start = _GROUP_START.match(self._pattern, self._at)
        flags = _FLAGS.match(self._pattern, self._at)
        if start is not None:
            self._take(len(start[0]), "(?:", repeatable=False)
            self._flags.append([])
        elif flags is None:
            raise _UnsupportedError("look-around and its like are not supported")
        elif flags[3] == ":":
            self._take(len(flags[0]), _flag_group(flags), repeatable=False)
            self._flags.append([])
        else:
            opening = _flag_group(flags)
            self._take(len(flags[0]), opening, repeatable=False)
            self._flags[-1].append(opening)

    def _close_group(self) -> None:
        if len(self._flags) == 1:
            raise _UnsupportedError("a group is closed that was not opened")
        self._end_flags()
        self._flags.pop()
        self._take(1, ")")

    def _end_flags(self) -> None:
        self._written.append(")" * len(self._flags[-1]))

    def _repetition(self) -> None:
        repetition = _REPETITION.match(self._pattern, self._at)
        if repetition is None:
            raise _UnsupportedError("{ starts no repetition; write \\{ for the character")
        if not self._repeatable:
            raise _UnsupportedError(f"there is nothing that {repetition[0]} could repeat")
        self._take(len(repetition[0]), repetition[0], repeatable=False)


def _flag_group(flags: re.Match[str]) -> str:
    on, off = flags[1], flags[2] or ""
    if not on + off or set(on) - set("isu") or set(off) - set("is"):
        raise _UnsupportedError(f"{flags[0]} is not supported; the flags are i and s")
    on = on.replace("u", "")  # Unicode is what `re` does anyway
    return f"(?{on}-{off}:" if off else f"(?{on}:"


def _escape(escaped: str, allowed: frozenset[str]) -> str:
    if escaped not in allowed:
        raise _UnsupportedError(f"\\{escaped} is not supported")
    if escaped in _SPACES:
        return _SPACES[escaped]
    return f"\\{escaped}" if escaped.isalpha() else re.escape(escaped)


def _literal(code_point: re.Match[str]) -> str:
    number = int(next(digits for digits in code_point.groups() if digits is not None), 16)
    if number > _UNICODE_MAX or 0xD800 <= number < 0xE000:
        raise _UnsupportedError(f"{code_point[0]} is no character")
    return f"\\U{number:08x}"


def _posix_items(name: str, *, negated: bool) -> str:
    if name not in _ASCII_RANGES:
        raise _UnsupportedError(f"[:{name}:] is not a class")
    ranges = [(ord(ends[0]), ord(ends[1])) for ends in _ASCII_RANGES[name]]
    if negated:
        lasts = [-1, *(last for _, last in ranges)]
        firsts = [*(first for first, _ in ranges), _UNICODE_MAX + 1]
        gaps = [(end + 1, start - 1) for end, start in zip(lasts, firsts, strict=True)]
        ranges = [(first, last) for first, last in gaps if first <= last]
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)
