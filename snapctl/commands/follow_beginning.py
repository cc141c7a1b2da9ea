"""What `snapctl follow REF --dest DIR` does."""

from __future__ import annotations

import os
from contextlib import suppress

import click

from snapctl.context import Context
from snapctl.frame import verb
from snapd.model.errors import AccessDenied, UsageError
from snapd.model.follows import KEEP_PREVIOUS_MAX, FollowRequest, check_dest
from snapd.model.references import parse_reference
from snapd.model.settings import FollowSettings
from snapd.model.units import parse_duration_seconds

_USUAL = FollowSettings("", "")


@verb("begin")
@click.argument("reference", metavar="REF")
@click.option("--dest", metavar="DIR", required=True, help="The link will be DIR/current.")
@click.option(
    "--store",
    metavar="URI",
    envvar="SNAPSYNC_STORE",
    default="",
    help="Whose registry has the reference; the daemon's only one if not given."
    "  [env: SNAPSYNC_STORE]",
)
@click.option(
    "--poll",
    metavar="DURATION",
    default=f"{_USUAL.poll_seconds:g}s",
    show_default=True,
    help="How often the reference is looked up, 1s at least.",
)
@click.option(
    "--keep-previous",
    type=click.IntRange(0, KEEP_PREVIOUS_MAX),
    default=_USUAL.keep_previous,
    show_default=True,
    help="Former snapshots that stay in the cache.",
)
@click.option(
    "--hook", metavar="COMMAND", default="", help="Run after each switch, without a shell."
)
@click.option(
    "--hook-timeout",
    metavar="DURATION",
    default=f"{_USUAL.hook_timeout_seconds:g}s",
    show_default=True,
    help="The hook is killed after this time.",
)
@click.option("--wait", is_flag=True, help="REF need not lead anywhere yet.")
def begin(
    context: Context,
    reference: str,
    dest: str,
    store: str,
    poll: str,
    keep_previous: int,
    hook: str,
    hook_timeout: str,
    wait: bool,
) -> None:
    """Follow a reference."""
    parse_reference(reference)
    place = check_dest(os.path.realpath(dest))
    document = {
        "reference": reference,
        "dest": place,
        "poll_seconds": parse_duration_seconds(poll),
        "keep_previous": keep_previous,
        "hook": _words(hook),
        "hook_timeout_seconds": parse_duration_seconds(hook_timeout),
        "wait": wait,
    }
    request = FollowRequest.from_json(document | ({"store": store} if store else {}))
    made = _make(place)
    try:
        view = context.client().follow(request)
    except BaseException:
        # Where the answer got lost the daemon follows there, and something is in it.
        if made:
            with suppress(OSError):
                os.rmdir(place)
        raise
    if context.output.as_json:
        context.output.print_json(view.to_json())
    else:
        context.output.note(f"following {view.reference} of {view.store}")
        context.output.line(view.link)


def _words(hook: str) -> list[str]:
    """Split a command as a shell would, and find its program as one would."""
    if not hook.strip():
        return []
    import shlex
    import shutil

    try:
        words = shlex.split(hook)
    except ValueError as error:
        raise UsageError(f"--hook can't be read: {error}") from error
    found = shutil.which(words[0])
    if found is None:
        raise UsageError(f"--hook: there is no program {words[0][:80]!r}")
    return [os.path.abspath(found), *words[1:]]


def _make(place: str) -> bool:
    """Make the directory with the caller's own permissions; the one around it has to be there."""
    try:
        os.mkdir(place, 0o755)
    except FileExistsError:
        return False
    except FileNotFoundError as error:
        raise UsageError(
            f"there is no directory {os.path.dirname(place)}",
            hint="Make it first, or mount the volume that it lies on.",
        ) from error
    except OSError as error:
        raise AccessDenied(
            f"can't make {place}: {error.strerror}", hint="Choose a directory of your own."
        ) from error
    return True
