"""`snapctl checkout --id ID DEST` with the few options that jobs start it with.

As with `snapctl id`, the machinery of options would take longer than many a checkout. Whatever is
not understood here in full, a wrong word included, is left to the command line.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from snapctl.context import Context
from snapctl.process import prepare
from snapd.model.checkouts import CHECKOUT_MODES, CheckoutOptions
from snapd.model.ids import SnapshotId, is_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

_VALUED = {
    "--id": "id",
    "--mode": "mode",
    "--socket": "socket",
    "--from-cache": "cache",
    "--cache-dir": "cache",
}
_FLAGS = {
    "-q": "quiet",
    "--quiet": "quiet",
    "--delete": "delete",
    "--verify": "verify",
    "--keep-setid": "keep_setid",
}


class PlainCheckout(NamedTuple):
    """What was asked for; an empty text stands for what was not said."""

    snapshot_id: SnapshotId
    dest: str
    options: CheckoutOptions
    cache_dir: str = ""
    socket: str = ""
    config: str = ""
    quiet: bool = False


def plain_checkout(arguments: list[str], environment: Mapping[str, str]) -> PlainCheckout | None:
    """Read the arguments; None if there is anything in them that needs the command line."""
    if arguments[:1] != ["checkout"] or "_SNAPCTL_COMPLETE" in environment:
        return None
    said = _read(arguments[1:])
    if said is None:
        return None
    values, flags = said
    mode = values.get("mode", "auto")
    if not is_digest(values.get("id", "")) or "dest" not in values or mode not in CHECKOUT_MODES:
        return None
    options = CheckoutOptions(
        mode=mode,
        delete="delete" in flags,
        verify="verify" in flags,
        keep_setid="keep_setid" in flags,
    )
    return PlainCheckout(
        SnapshotId(values["id"]),
        values["dest"],
        options,
        values.get("cache") or environment.get("SNAPSYNC_CACHE_DIR", ""),
        values.get("socket") or environment.get("SNAPSYNC_SOCKET", ""),
        environment.get("SNAPSYNC_CONFIG", ""),
        quiet="quiet" in flags,
    )


def _read(words: list[str]) -> tuple[dict[str, str], set[str]] | None:
    """Sort words into values and flags; None if one is unknown, empty or there twice."""
    values: dict[str, str] = {}
    flags: set[str] = set()
    rest = iter(words)
    for word in rest:
        name, has_value, value = word.partition("=")
        if word in _FLAGS:
            flags.add(_FLAGS[word])
            continue
        if name in _VALUED:
            key = _VALUED[name]
            value = value if has_value else next(rest, "")
        else:
            key, value = "dest", word
        if not value or value.startswith("-") or key in values:
            return None
        values[key] = value
    return values, flags


def run_plain_checkout(
    asked: PlainCheckout, arguments: list[str], environment: Mapping[str, str]
) -> int:
    """Lay the snapshot out, print what the command prints, and give the exit code."""
    prepare()
    context = Context(environment, quiet=asked.quiet, socket=asked.socket, config=asked.config)
    failure = _attempt(asked, context)
    if failure is None:
        with suppress(OSError):
            sys.stdout.flush()
            return 0
    from snapctl.__main__ import conclude, explain

    def end() -> int:
        if failure is None:
            return 0  # what is still in the buffer fails again, and is told
        if isinstance(failure, BrokenPipeError):
            raise failure
        return explain(failure, context, arguments)

    return conclude(end, context, arguments)


def _attempt(asked: PlainCheckout, context: Context) -> BaseException | None:
    try:
        from snapctl.checking_out import check_out

        dest, cache_dir = Path(asked.dest), asked.cache_dir or None
        check_out(context, asked.snapshot_id, dest, asked.options, cache_dir)
    except BaseException as failure:  # noqa: BLE001 - the command line tells it
        return failure
    return None
