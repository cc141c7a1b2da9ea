"""What may be called how in the registry, and what people may write into it."""

from __future__ import annotations

import re

from snapd.model.errors import InvalidName
from snapd.model.ids import is_digest

NAME_MAX_CHARACTERS = 128
ALIAS_MAX_CHARACTERS = 64
NOTE_MAX_CHARACTERS = 1024
CARD_MAX_CHARACTERS = 16 * 1024
AUTHOR_MAX_CHARACTERS = 256

_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{NAME_MAX_CHARACTERS - 1}}}", re.ASCII)
_WORD = re.compile(rf"[a-z][a-z0-9_-]{{0,{ALIAS_MAX_CHARACTERS - 1}}}", re.ASCII)
_VERSION_LIKE = re.compile(r"v?[0-9].*", re.ASCII)
_SHOWN_MAX_CHARACTERS = 60


def shown(text: str) -> str:
    """Quote what somebody typed for a message: short, in one line, without control characters."""
    cut = text if len(text) <= _SHOWN_MAX_CHARACTERS else f"{text[: _SHOWN_MAX_CHARACTERS - 3]}..."
    return ascii(cut) if not cut.isprintable() else repr(cut)


def in_one_line(text: str) -> str:
    """Give a path or another long text as it is, or quoted if it holds what a terminal obeys."""
    return text if text.isprintable() else ascii(text)


def is_name(text: str) -> bool:
    """Tell whether `parse_name` accepts it."""
    return _NAME.fullmatch(text) is not None and not is_digest(text.lower())


def parse_name(text: str) -> str:
    """Check the name of a dataset, a model or a run: one path segment that no shell minds.

    Letters, digits, `.`, `_` and `-`, the first one a letter or a digit. Raises `InvalidName`; 64
    hexadecimal digits are refused too, because they are an ID.
    """
    if len(text) > NAME_MAX_CHARACTERS:
        raise InvalidName(
            f"a name has at most {NAME_MAX_CHARACTERS} characters, not {len(text)}: {shown(text)}"
        )
    if not _NAME.fullmatch(text):
        raise InvalidName(f"not a name: {shown(text)}")
    if is_digest(text.lower()):
        raise InvalidName(f"not a name but a snapshot ID: {text}")
    return text


def parse_word(text: str, kind: str) -> str:
    """Check the name of a stage or an alias, which nobody can take for a version.

    Lowercase letters, digits, `_` and `-`, the first one a letter. Raises `InvalidName`.
    """
    if not _WORD.fullmatch(text) or _VERSION_LIKE.fullmatch(text):
        raise InvalidName(
            f"not {kind}: {shown(text)}",
            hint=f"Lowercase letters, digits, '_' and '-', at most {ALIAS_MAX_CHARACTERS};"
            " and nothing that looks like a version.",
        )
    return text


def parse_author(text: str) -> str:
    """Check who does something: one line that is not empty. Raises `InvalidName`."""
    stripped = text.strip()
    if not stripped or len(stripped) > AUTHOR_MAX_CHARACTERS or not stripped.isprintable():
        raise InvalidName(
            f"not who did it: {shown(text)}",
            hint=f"One line of 1 to {AUTHOR_MAX_CHARACTERS} characters.",
        )
    return stripped


def parse_text(text: str, kind: str, *, characters_max: int = NOTE_MAX_CHARACTERS) -> str:
    """Check a note or a card: text of so many characters in which only lines and tabs are special.

    Raises `InvalidName` naming what `kind` of text it is.
    """
    if len(text) > characters_max:
        raise InvalidName(
            f"{kind} has at most {characters_max} characters, not {len(text)}",
            hint="Put the rest where the text can point to.",
        )
    for character in text:
        if character not in "\n\t" and not character.isprintable():
            raise InvalidName(
                f"{kind} holds the control character U+{ord(character):04X}",
                hint="Only line breaks and tabs are accepted.",
            )
    return text
