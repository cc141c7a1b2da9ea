"""What must not be written into a record: passwords and tokens in command lines and addresses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

MASK = "***"
_NAMES = frozenset(
    {"password", "passwd", "pwd", "passphrase", "secret", "secrets", "token", "bearer"}
    | {"credential", "credentials", "apikey", "accesskey", "secretkey", "privatekey", "auth"}
)
_PAIRS = frozenset(
    {("api", "key"), ("access", "key"), ("secret", "key"), ("private", "key"), ("account", "key")}
)
_VOCABULARY = frozenset(
    {"pad", "eos", "bos", "unk", "mask", "sep", "cls", "stop", "special", "start", "end", "image"}
)
"""Before `token`: the kind that models read."""
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_SHAPES = re.compile(
    r"\b(?:gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|hf_\w{20,}|sk-[\w-]{20,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}|xox[abprs]-[\w-]{10,}|AIza[\w-]{30,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
_USER_INFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/@\s]+@")
_PASSWORD = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^/@:\s]*):[^/@\s]*@")
_SIGNATURE = re.compile(r"(?i)([?&](?:x-amz-signature|x-amz-security-token|sig|token|key)=)[^&\s]+")
_VALUE_MIN_CHARACTERS = 8


def is_secret_name(name: str) -> bool:
    """Tell whether what is called so should not be shown: `--hf-token`, `DB_PASSWORD`."""
    words = [word.lower() for word in _WORDS.findall(name)]
    for before, word in zip(["", *words], words, strict=False):
        if word in _NAMES and not (word == "token" and before in _VOCABULARY):
            return True
        if (before, word) in _PAIRS:
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
    if any(character.isspace() for character in text):
        # A script for a shell: its words are looked at one by one, its spaces kept.
        parts = re.split(r"(\s+)", text)
        words = mask_arguments(parts[::2])
        return "".join(word + space for word, space in zip(words, [*parts[1::2], ""], strict=True))
    name, equals, value = text.partition("=")
    if equals and value and is_secret_name(name):
        return f"{name}={MASK}"
    return text


def _is_option(argument: str) -> bool:
    return not any(character.isspace() for character in argument) and is_secret_name(argument)
