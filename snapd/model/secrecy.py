"""What must not be written into a record: passwords and tokens in command lines and addresses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

MASK = "***"
_NAMES = frozenset(
    {"password", "passwd", "pwd", "passphrase", "secret", "secrets", "token", "bearer"}
    | {"credential", "credentials", "apikey", "accesskey", "secretkey", "privatekey", "auth"}
    | {"authorization", "cookie"}
)
_ENDS = ("password", "passwd", "passphrase", "apikey")
"""Of words that are written together: `PGPASSWORD`."""
_KEYS = frozenset({"api", "access", "secret", "private", "account", "encryption", "signing"})
"""Before `key`."""
_VOCABULARY = frozenset(
    {"pad", "eos", "bos", "unk", "mask", "sep", "cls", "stop", "special", "start", "end", "image"}
)
"""Before `token`: the kind that models read."""
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_SHAPES = re.compile(
    r"\b(?:gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|hf_\w{20,}|sk-[\w-]{20,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}|xox[abprs]-[\w-]{10,}|AIza[\w-]{30,}"
    r"|(?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
_SCHEME = r"(?<![A-Za-z0-9+.-])([A-Za-z][A-Za-z0-9+.-]{0,31}://"
_USER_INFO = re.compile(rf"{_SCHEME})[^/?#\s]+@")
_PASSWORD = re.compile(rf"{_SCHEME}[^/?#@:\s]*):[^/?#\s]*@")
_SIGNATURE = re.compile(r"(?i)([?&](?:x-amz-signature|x-amz-security-token|sig|token|key)=)[^&\s]+")
_QUOTED = r"\"[^\"]*\"|'[^']*'"
_SAID = re.compile(
    rf"(?<![\w.-])([\w.-]{{1,64}})(?:(=|[ \t]+)({_QUOTED})"
    rf"|([\"']?[ \t]*:[ \t]*)(?!//)({_QUOTED}|(?:Basic|Bearer|Digest|Token)[ \t]+[^\s\"']+"
    r"|[^\s,;\"'}\])]+))"
)
"""`name="a value"`, `--name "a value"`, `name: value`, `"name": "a value"`, as in headers, JSON and
YAML."""
_VALUE_MIN_CHARACTERS = 8


def is_secret_name(name: str) -> bool:
    """Tell whether what is called so should not be shown: `--hf-token`, `DB_PASSWORD`."""
    words = [word.lower() for word in _WORDS.findall(name)]
    for before, word in zip(["", *words], words, strict=False):
        if word in _NAMES and not (word == "token" and before in _VOCABULARY):
            return True
        if word.endswith(_ENDS) or (word == "key" and before in _KEYS):
            return True
    return False


def secret_values(environment: Mapping[str, str]) -> list[str]:
    """Choose the values of variables that are called like secrets."""
    return [
        value
        for name, value in environment.items()
        if len(value) >= _VALUE_MIN_CHARACTERS and is_secret_name(name)
    ]


def mask_arguments(arguments: Sequence[str], values: Iterable[str] = ()) -> tuple[str, ...]:
    """Mask in a command line what looks like a secret, and `values` wherever they stand.

    After an option that is called like one, the next argument counts as its value.
    """
    known = sorted(set(values), key=len, reverse=True)
    masked: list[str] = []
    is_value = False
    for argument in arguments:
        if is_value and not argument.startswith("-"):
            masked.append(MASK)
            is_value = False
            continue
        is_value = argument.startswith("-") and "=" not in argument and _is_option(argument)
        masked.append(_mask_text(argument, known))
    return tuple(masked)


def without_credentials(address: str) -> str:
    """Take user and password out of a repository's address; `git@host:path` names no secret."""
    stripped = _SIGNATURE.sub(rf"\g<1>{MASK}", address.strip())
    if stripped.startswith(("ssh://", "git+ssh://")):
        return _PASSWORD.sub(r"\1@", stripped)
    return _USER_INFO.sub(r"\1", stripped)


def _mask_text(text: str, known: Sequence[str]) -> str:
    for value in known:
        text = text.replace(value, MASK)
    text = _SHAPES.sub(MASK, text)
    text = _SIGNATURE.sub(rf"\g<1>{MASK}", _PASSWORD.sub(rf"\1:{MASK}@", text))
    text = _SAID.sub(_mask_said, text)
    if any(character.isspace() for character in text):
        # A script for a shell: its words are looked at one by one, its spaces kept.
        parts = re.split(r"(\s+)", text)
        words = mask_arguments(parts[::2])
        return "".join(word + space for word, space in zip(words, [*parts[1::2], ""], strict=True))
    name, equals, value = text.partition("=")
    if equals and value and is_secret_name(name):
        return f"{name}={MASK}"
    return text


def _mask_said(found: re.Match[str]) -> str:
    name, before_quoted, _, before_any, _ = found.groups()
    between = before_quoted or before_any
    if not is_secret_name(name) or (between.isspace() and not name.startswith("-")):
        return found[0]
    quote = found[0][-1] if found[0][-1] in "\"'" else ""
    return f"{name}{between}{quote}{MASK}{quote}"


def _is_option(argument: str) -> bool:
    return not any(character.isspace() for character in argument) and is_secret_name(argument)
