"""Read a JSON text of any length value by value, holding one of them at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from typing import Any, NoReturn

from snapd.model.errors import ManifestRefused

VALUE_MAX_CHARACTERS = 1024 * 1024
"""A longer value within the list is refused; an entry of a file has some hundred characters."""
_PIECE_CHARACTERS = 64 * 1024
_SPACE = " \t\r\n"


class JsonStream:
    """The values of a list or of an object, as they come.

    `read(n)` gives the next at most `n` characters, and nothing at the end. Raises
    `ManifestRefused` for what is not JSON, has a key twice, or has a value that is too long.
    """

    def __init__(self, read: Callable[[int], str]) -> None:
        self._read = read
        self._text = ""
        self._at = 0
        self._passed = 0
        self._ended = False
        self._decoder = json.JSONDecoder(
            object_pairs_hook=_without_repeats, parse_constant=_refuse_constant
        )

    def peek(self) -> str:
        """Give the next character that is no white space, without taking it; empty at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def members(self, containers: Collection[str] = ()) -> Iterator[tuple[str | None, Any]]:
        """Go through the list or the object that begins here: (None, value) or (key, value).

        Of a list or an object at a key that is one of `containers`, the value is an iterator of its
        own members, which has to be used up before the next is asked for.
        """
        opening = self.peek()
        self._at += 1
        closing = "]" if opening == "[" else "}"
        if self.peek() == closing:
            self._at += 1
            return
        while True:
            key = None if opening == "[" else self._key()
            if key in containers and self.peek() in ("[", "{"):
                yield key, self.members()
            else:
                yield key, self._value()
            separator = self.peek()
            self._at += 1
            if separator == closing:
                return
            if separator != ",":
                self._refuse(f"',' or '{closing}' is missing")

    def end(self) -> None:
        """Refuse what follows the text."""
        if self.peek():
            self._refuse("there is more after its end")

    def _key(self) -> str:
        if self.peek() != '"':
            self._refuse("a key is missing")
        key = self._value()
        if self.peek() != ":":
            self._refuse("':' is missing")
        self._at += 1
        return str(key)

    def _value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._more():
                    continue
                self._refuse(error.msg)
            except (ValueError, RecursionError) as error:
                self._refuse(str(error))
            # A number may go on behind what is there of it: `1`, `1.`, `1.5e3`.
            if isinstance(value, (int, float)) and not self._ends_at(end) and self._more():
                continue
            self._at = end
            return value

    def _ends_at(self, end: int) -> bool:
        return end < len(self._text) and self._text[end] in f",]}}{_SPACE}"

    def _more(self) -> bool:
        if self._ended:
            return False
        if len(self._text) - self._at > VALUE_MAX_CHARACTERS:
            self._refuse(f"a value has more than {VALUE_MAX_CHARACTERS} characters")
        piece = self._read(_PIECE_CHARACTERS)
        self._passed += self._at
        self._text, self._at = self._text[self._at :] + piece, 0
        self._ended = not piece
        return not self._ended

    def _refuse(self, why: str) -> NoReturn:
        raise ManifestRefused(
            f"it is not JSON as expected, about character {self._passed + self._at}: {why}"
        )


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has a key twice")
    return members


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no value")
