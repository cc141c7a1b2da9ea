"""A configuration document, checked whole, becomes `Settings`; every complaint names the key."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from types import MappingProxyType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from snapd.model.access import parse_subject
from snapd.model.addresses import is_loopback
from snapd.model.errors import InvalidConfig, UsageError
from snapd.model.follows import (
    KEEP_PREVIOUS_MAX,
    check_dest,
    check_follows,
    check_hook,
    check_poll,
)
from snapd.model.references import parse_reference
from snapd.model.settings import (
    AccessSettings,
    CacheSettings,
    DaemonSettings,
    FollowSettings,
    LogSettings,
    ScrubSettings,
    Settings,
    StoreSettings,
    TracingSettings,
    TransferSettings,
)
from snapd.model.units import parse_duration_seconds, parse_size_bytes
from snapd.model.uris import parse_store_uri

SECTIONS: Mapping[str, type] = MappingProxyType(
    {
        "daemon": DaemonSettings,
        "access": AccessSettings,
        "cache": CacheSettings,
        "scrub": ScrubSettings,
        "transfer": TransferSettings,
        "log": LogSettings,
        "tracing": TracingSettings,
    }
)
"""The tables of a document; `[[store]]` and `[[follow]]` are arrays of tables beside them."""

LANES_MAX = 64
"""More workers or threads than this are a slip of the pen."""

_MAY_BE_ZERO = frozenset(
    {
        "quarantine_max_bytes",
        "bytes_per_second",
        "requests_per_second",
        "workers",
        "max_bytes",
        "min_free_bytes",
        "orphan_seconds",
        "lease_seconds",
        "socket_mode",
        "pulls_queued_max",
        "jobs_remembered",
        "grace_seconds",
        "backoff_base_seconds",
        "keep_previous",
    }
)
_OCTAL = re.compile(r"(?:0o?)?[0-7]+", re.ASCII)
_T = TypeVar("_T")


def load_settings(text: str) -> Settings:
    """Read a TOML document; raises `InvalidConfig` for its syntax and its content alike."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise InvalidConfig(f"the configuration is not TOML: {exc}") from exc
    return settings_from_document(document)


def settings_from_document(document: Mapping[str, Any]) -> Settings:
    """Check names, types and ranges of a parsed document, and fill in the defaults.

    Raises `InvalidConfig` naming the section, the key and, for an unknown one, the nearest that
    exists. Nothing is read or opened: that a path or a store exists is checked by its user.
    """
    _refuse_unknown(document, [*SECTIONS, "store", "follow"], "section")
    tables = {name: _table(document.get(name, {}), name) for name in SECTIONS}
    daemon = _section(DaemonSettings, tables["daemon"], "daemon")
    transfer = _section(TransferSettings, tables["transfer"], "transfer")
    cache = _section(CacheSettings, tables["cache"], "cache")
    _check_daemon(daemon)
    _check_cache(cache)
    _check_transfer(transfer)
    return Settings(
        daemon=daemon,
        access=_section(AccessSettings, tables["access"], "access"),
        cache=cache,
        scrub=_section(ScrubSettings, tables["scrub"], "scrub"),
        transfer=transfer,
        log=_section(LogSettings, tables["log"], "log"),
        tracing=_section(TracingSettings, tables["tracing"], "tracing"),
        stores=_stores(document.get("store", [])),
        follows=_follows(document.get("follow", [])),
    )


def check_whole(settings: Settings) -> Settings:
    """Check what takes several sources to be wrong: file, environment and options put together."""
    daemon = settings.daemon
    if daemon.listen and not daemon.listen_token_file and not is_loopback(daemon.listen):
        raise InvalidConfig(
            f"[daemon] listen = {daemon.listen!r} can be reached from outside and has no token",
            hint="Listen at 127.0.0.1, or name a file with a token: `[daemon] listen_token_file`.",
            key="listen_token_file",
        )
    return check_follows(settings)


def _table(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidConfig(f"[{name}] is a section, not a single value: {value!r}")
    return value


def _stores(value: object) -> tuple[StoreSettings, ...]:
    if not isinstance(value, list):
        raise InvalidConfig("a store is written as [[store]], with two brackets")
    stores = []
    for item in value:
        table = _table(item, "store")
        if "uri" not in table:
            raise InvalidConfig("[[store]] needs a uri")
        stores.append(_section(StoreSettings, table, "store"))
    uris = [str(parse_store_uri(store.uri)) for store in stores]
    for uri in uris:
        if uris.count(uri) > 1:
            raise InvalidConfig(f"[[store]] {uri} is configured twice")
    return tuple(stores)


def _follows(value: object) -> tuple[FollowSettings, ...]:
    if not isinstance(value, list):
        raise InvalidConfig("what is followed is written as [[follow]], with two brackets")
    follows = []
    for item in value:
        table = _table(item, "follow")
        for needed in ("ref", "dest"):
            if needed not in table:
                raise InvalidConfig(f"[[follow]] needs a {needed}", key=needed)
        follows.append(_section(FollowSettings, table, "follow"))
    return tuple(follows)


def _section(kind: type[_T], table: Mapping[str, Any], name: str) -> _T:
    """Build one dataclass of `settings` from one table, checking each value by its field."""
    hints = get_type_hints(kind)
    _refuse_unknown(table, list(hints), f"key in [{name}]")
    return kind(**{key: _value(value, hints[key], key, name) for key, value in table.items()})


def _refuse_unknown(given: Mapping[str, Any], known: list[str], what: str) -> None:
    for name in given:
        if name in known:
            continue
        home = [section for section, kind in SECTIONS.items() if name in _keys(kind)]
        nearest = get_close_matches(name, known, n=1, cutoff=0.0)[0]
        advice = f"it belongs to [{home[0]}]" if home else f"the nearest is {nearest!r}"
        raise InvalidConfig(f"unknown {what}: {name!r}; {advice}", key=name, nearest=nearest)


def _keys(kind: type) -> list[str]:
    return [field.name for field in fields(kind)]


class _BadValueError(Exception):
    """What is wrong with a value; `_value` adds which one it is."""


def _value(value: object, hint: Any, key: str, section: str) -> object:
    try:
        read = _read(value, hint, key)
        _CHECKS.get(key, _accept)(read)
    except (UsageError, _BadValueError) as exc:
        raise InvalidConfig(f"[{section}] {key} = {value!r}: {exc}", key=key) from exc
    return read


def _read(value: object, hint: Any, key: str) -> object:
    """Turn a TOML value into what the field holds; a `_BadValueError` says what is expected."""
    if get_origin(hint) is Literal:
        return _choice(value, get_args(hint))
    if get_origin(hint) is tuple:
        return _texts(value)
    if get_origin(hint) in (Union, UnionType):
        return _number_or_word(value, hint, key)
    if hint is int or hint is float:
        return _number(_from_text(value, key), hint, key)
    if type(value) is not hint:
        raise _BadValueError(
            "true or false is expected" if hint is bool else "a string is expected"
        )
    return value


def _number_or_word(value: object, hint: Any, key: str) -> object:
    number, words = get_args(hint)
    if isinstance(value, str):
        return _choice(value, (*get_args(words), "a number"))
    return _number(value, number, key)


def _choice(value: object, choices: tuple[str, ...]) -> object:
    if value not in choices:
        raise _BadValueError(f"one of {', '.join(choices)} is expected")
    return value


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _BadValueError("a list of strings is expected")
    return tuple(value)


def _from_text(value: object, key: str) -> object:
    """Read what people write as a string where the field holds a number."""
    if not isinstance(value, str):
        return value
    words = key.split("_")
    if "bytes" in words:
        return parse_size_bytes(value)
    if "seconds" in words:
        return parse_duration_seconds(value)
    if "mode" in words:
        return int(value, 8) if _OCTAL.fullmatch(value) else value
    return value


def _number(value: object, hint: type[int] | type[float], key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _BadValueError("a number is expected")
    if hint is int and not isinstance(value, int):
        raise _BadValueError("a whole number is expected")
    if not math.isfinite(value) or value < 0 or (value == 0 and key not in _MAY_BE_ZERO):
        raise _BadValueError("it is out of range")
    return hint(value)


def _accept(_: Any) -> None:
    """Most values need no check beyond their type and range."""


def _check_mode(mode: int) -> None:
    if mode > 0o777:
        raise _BadValueError('a mode is written as 0o660 or "0660", at most 0777')


def _check_absolute(path: str) -> None:
    if path and not path.startswith("/"):
        raise _BadValueError("an absolute path is expected")


def _check_listen(address: str) -> None:
    host, separator, port = address.rpartition(":")
    if address and not (separator and host and port.isascii() and port.isdecimal()):
        raise _BadValueError("host:port is expected, or nothing")
    if address and int(port) > 65535:
        raise _BadValueError("a port is at most 65535")


def _check_allowed(uris: tuple[str, ...]) -> None:
    for uri in uris:
        if uri != "*":
            parse_store_uri(uri)


def _check_subjects(subjects: tuple[str, ...]) -> None:
    for subject in subjects:
        parse_subject(subject)


def _check_store(uri: str) -> None:
    if uri:
        parse_store_uri(uri)


def _check_kept(count: int) -> None:
    if count > KEEP_PREVIOUS_MAX:
        raise _BadValueError(f"at most {KEEP_PREVIOUS_MAX} are kept")


def _check_endpoint(url: str) -> None:
    if url and not url.startswith(("http://", "https://")):
        raise _BadValueError("http://host:port or https://host is expected")
    if "@" in url:
        raise _BadValueError("it is shown in messages and holds no user or password")


_CHECKS: Mapping[str, Callable[[Any], object]] = MappingProxyType(
    {
        "socket": _check_absolute,
        "socket_mode": _check_mode,
        "listen": _check_listen,
        "listen_token_file": _check_absolute,
        "read": _check_subjects,
        "pull": _check_subjects,
        "administer": _check_subjects,
        "stores": _check_allowed,
        "directory": _check_absolute,
        "kubelet_directory": _check_absolute,
        "uri": parse_store_uri,
        "endpoint_url": _check_endpoint,
        "ref": parse_reference,
        "dest": check_dest,
        "store": _check_store,
        "poll_seconds": check_poll,
        "keep_previous": _check_kept,
        "hook": check_hook,
        "ca_file": _check_absolute,
    }
)


def _check_daemon(daemon: DaemonSettings) -> None:
    if "*" in daemon.stores and len(daemon.stores) > 1:
        raise InvalidConfig("[daemon] stores: '*' allows every store and stands alone")


def _check_cache(cache: CacheSettings) -> None:
    if not cache.low_watermark <= cache.high_watermark <= 1.0:
        raise InvalidConfig(
            "[cache] low_watermark is at most high_watermark, and that at most 1",
            key="high_watermark",
        )


def _check_transfer(transfer: TransferSettings) -> None:
    for key in ("workers", "transfer_threads"):
        if (count := getattr(transfer, key)) != "auto" and count > LANES_MAX:
            raise InvalidConfig(f"[transfer] {key} is at most {LANES_MAX}", key=key)
    for key in ("batch_bytes", "range_bytes"):
        if getattr(transfer, key) > transfer.bytes_in_flight:
            raise InvalidConfig(f"[transfer] {key} is larger than bytes_in_flight", key=key)
    if transfer.backoff_base_seconds > transfer.backoff_max_seconds:
        raise InvalidConfig("[transfer] backoff_base_seconds is larger than backoff_max_seconds")
