"""What the commands on names share: who does it and why, the store's registry, tables."""

from __future__ import annotations

import os
import pwd
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import click

from snapctl.context import Context
from snapctl.frame import Decorated, HelpEnding
from snapctl.stores import with_store
from snapctl.walking import late_meter
from snapd.actions.publish import Certifier
from snapd.actions.verify import VerifyProgress
from snapd.model.errors import Interrupted, RegistryUnreadable, UsageError
from snapd.model.references import NameKind
from snapd.model.registry import Author
from snapd.registry.beginning import beginning
from snapd.registry.names import Registry
from snapd.registry.side_by_side import side_by_side
from snapd.remote.base import RemoteStore

T = TypeVar("T")


class VerbGroup(click.Group, HelpEnding):
    """`snapctl dataset ...` and `snapctl model ...`, with the same end of their help."""


def author_options(decorated: Decorated) -> Decorated:
    """Add `--by WHO` and `--note TEXT`; the parameters are called `by` and `note`."""
    decorated = click.option(
        "--by", metavar="WHO", envvar="SNAPSYNC_BY", help="Who does it; user@host if not given."
    )(decorated)
    return click.option(
        "--note", metavar="TEXT", default="", help="Why; kept with the change for good."
    )(decorated)


def limit_option(decorated: Decorated) -> Decorated:
    """Add `--limit N`; the parameter is called `limit`."""
    return click.option(
        "--limit",
        type=click.IntRange(1, 10_000),
        default=1000,
        show_default=True,
        help="Show at most so many.",
    )(decorated)


def author_of(by: str | None, note: str) -> Author:
    """Say who changes something now; raises `InvalidName` for text that is not accepted."""
    now = time.time()  # noqa: TID251 - the clock that the change is dated by
    return Author.checked(by or _user_at_host(), now, secrets.token_hex(8), note)


def with_registry(context: Context, store: str, action: Callable[[Registry], Awaitable[T]]) -> T:
    """Run `action` on the registry of a store, with the caller's own credentials."""

    async def run(opened: RemoteStore) -> T:
        return await action(Registry(opened))

    return with_store(context, store, run)


@contextmanager
def check_meter(context: Context, what: str) -> Iterator[Callable[[VerifyProgress], None]]:
    """Give a function that shows how many objects have been looked for, if it takes a while."""
    with late_meter(context, f"check {what}") as show:

        def on_progress(now: VerifyProgress) -> None:
            text = f"{now.files_done} of {now.files_total} objects"
            show(text, now.files_done, now.files_total)

        yield on_progress


def certified(
    context: Context, store: str, what: str, deep: bool, action: Callable[..., Awaitable[T]]
) -> T:
    """Run `action(registry, certifier)` while a meter shows how far the proof is."""
    settings = context.settings().transfer
    try:
        with check_meter(context, what) as on_progress:
            certifier = Certifier(settings, on_progress, deep=deep)
            return with_registry(context, store, lambda registry: action(registry, certifier))
    except KeyboardInterrupt:
        raise Interrupted("interrupted: no version was added") from None


def listed(
    context: Context,
    store: str,
    kind: NameKind,
    limit: int,
    describe: Callable[[Registry, str], Awaitable[dict[str, Any]]],
) -> tuple[list[dict[str, Any]], bool]:
    """Describe the first names of a kind; tell whether there are more.

    A document that can't be read is listed with its `error`, and hides no other.
    """

    async def run(registry: Registry) -> tuple[list[dict[str, Any]], bool]:
        async def look(name: str) -> dict[str, Any]:
            try:
                return await describe(registry, name)
            except RegistryUnreadable as error:
                return {"name": name, "error": error.to_json()}

        names, more = await beginning(registry.names(kind), limit)
        return await side_by_side([partial(look, name) for name in names]), more

    return with_registry(context, store, run)


def print_listed(
    context: Context,
    kind: NameKind,
    found: tuple[list[dict[str, Any]], bool],
    columns: tuple[str, ...],
    row: Callable[[dict[str, Any]], tuple[str, ...]],
) -> None:
    """Print what `listed` found as a table or as JSON; what is unreadable is noted on stderr."""
    rows, more = found
    if context.output.as_json:
        context.output.print_json({f"{kind}s": rows, "more": more})
        return
    good = [each for each in rows if "error" not in each]
    context.output.table(columns, [row(each) for each in good])
    for each in rows:
        if "error" in each:
            context.output.note(f"{each['name']}: {each['error']['message']}")
    if more:
        context.output.note(f"there are more than {len(rows)}; show more with --limit")


def one_line(text: str) -> str:
    """Fit a note into a table."""
    return " ".join(text.split())


def read_values(pairs: tuple[str, ...], option: str) -> dict[str, str]:
    """Split `NAME=VALUE`; raises `UsageError` for one without a name or given twice."""
    values: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"{option} takes NAME=VALUE, not {pair[:80]!r}")
        if name.strip() in values:
            raise UsageError(f"{option} names {name.strip()[:80]!r} twice")
        values[name.strip()] = value
    return values


def _user_at_host() -> str:
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    return f"{user}@{os.uname().nodename}"
