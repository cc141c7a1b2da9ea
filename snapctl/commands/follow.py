"""`snapctl follow`: keep what a reference leads to live at a path of this node."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from snapctl.context import Context
from snapctl.frame import HelpEnding, timeout_option, verb
from snapctl.reattaching import outlast
from snapd.model.errors import FollowNotFound, TimedOut, UsageError
from snapd.model.units import format_duration, parse_duration_seconds

if TYPE_CHECKING:
    from snapd.model.follow_views import FollowView

_PAUSE_SECONDS = 0.2
_BEGIN = "begin"


class FollowGroup(click.Group, HelpEnding):
    """`follow REF ...` follows; `follow status` and `follow stop` are about what is followed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the verb in front that `follow REF --dest DIR` leaves out."""
        first = next((word for word in args if not word.startswith("-")), "")
        if first not in self.commands and args and not {"-h", "--help"} & set(args):
            args = [_BEGIN, *args]
        return super().parse_args(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load what begins a follow only where it is needed."""
        return _begin() if cmd_name == _BEGIN else super().get_command(ctx, cmd_name)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show what may be said of a new follow before the verbs."""
        records = [found for each in _begin().params if (found := each.get_help_record(ctx))]
        with formatter.section("Options of a new follow"):
            formatter.write_dl(records)
        self.format_commands(ctx, formatter)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Show the usual way first."""
        return ["REF --dest DIR [OPTIONS] | status | stop"]


def _begin() -> click.Command:
    from snapctl.commands.follow_beginning import begin

    return begin


@click.group(
    "follow",
    cls=FollowGroup,
    examples=[
        "snapctl follow iris_clf@production --dest /srv/models/iris_clf --store s3://ml/store",
        "snapctl follow iris_clf@production --dest ./live --poll 5s --keep-previous 2",
        "snapctl follow iris_clf@production --dest /srv/iris --hook 'reload-iris --graceful'",
        "snapctl follow status --json",
        "snapctl follow status iris_clf@production --wait-for v0.1.0 --timeout 60s",
        "snapctl follow stop /srv/models/iris_clf",
    ],
)
def command() -> None:
    """Keep what a reference leads to live at DIR/current, through the daemon, over restarts.

    The daemon looks the reference up every few seconds, pulls what it leads to, and then switches
    the link DIR/current in one step. A snapshot that fails verification is never switched to. What
    was live before stays in the cache, so that a rollback downloads nothing.

    DIR is made if it is missing, must be empty, and you must be able to write to it. A hook runs
    as the daemon's user after each switch, so that only this user or root may set one.
    """


@verb(
    "status",
    examples=[
        "snapctl follow status",
        "snapctl follow status /srv/models/iris_clf --json",
        "snapctl follow status iris_clf@production --wait-for v0.1.0 --timeout 60s",
    ],
)
@click.argument("which", metavar="[REF|DIR]", required=False)
@click.option("--wait-for", metavar="VERSION", help="Wait until this version is live.")
@timeout_option
def status(context: Context, which: str | None, wait_for: str | None, timeout: str | None) -> None:
    """Tell what is followed, what is live, and how far behind that is.

    With --wait-for the command ends when the version is live everywhere it was asked about, and its
    hook, if there is one, has ended.
    """
    if wait_for is None:
        views = _chosen(context.client().follows(), which)
    else:
        seconds = parse_duration_seconds(timeout) if timeout else None
        views = _awaited(context, which, _version(wait_for), seconds)
    if context.output.as_json:
        context.output.print_json({"follows": [view.to_json() for view in views]})
        return
    now = time.time()  # noqa: TID251 - only for showing how long ago something was
    columns = ("REFERENCE", "LIVE", "SINCE", "STATE", "BEHIND", "CHECKED", "PATH")
    context.output.table(columns, [_row(view, now) for view in views])
    for view in views:
        _note(context, view)


def _version(text: str) -> str:
    from snapd.model.versions import parse_version

    return str(parse_version(text))


def _awaited(
    context: Context, which: str | None, version: str, seconds: float | None
) -> list[FollowView]:
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        views = _chosen(outlast(context.client().follows, deadline=deadline), which)
        waiting = [view for view in views if view.version != version or view.hook_running]
        if views and not waiting:
            return views
        if deadline is not None and time.monotonic() >= deadline:
            shown = ", ".join(f"{x.reference} is {x.version or 'nothing'}" for x in waiting[:5])
            raise TimedOut(
                f"{version} is not live after {seconds:g} s: {shown or 'nothing is followed'}",
                hint="`snapctl follow status` tells what keeps it.",
            )
        time.sleep(_PAUSE_SECONDS)


def _chosen(views: Sequence[FollowView], which: str | None) -> list[FollowView]:
    """Take what a person meant: all, those of a reference, the one at a directory."""
    if which is None:
        return list(views)
    if "@" in which and "/" not in which:
        from snapd.model.references import parse_reference

        wanted = str(parse_reference(which))
        found = [view for view in views if view.reference == wanted]
    else:
        place = os.path.abspath(which).removesuffix("/current")
        found = [view for view in views if view.dest in (place, os.path.realpath(place))]
    if not found:
        raise FollowNotFound(f"nothing is followed as {which[:80]!r}")
    return found


def _row(view: FollowView, now: float) -> tuple[str, ...]:
    def ago(moment: float | None) -> str:
        return f"{format_duration(max(0.0, now - moment))} ago" if moment else "-"

    return (
        view.reference,
        view.version or view.snapshot_id[:12] or "-",
        ago(view.live_since),
        view.state,
        format_duration(view.behind_seconds) if view.behind_seconds else "-",
        ago(view.checked_at),
        view.link,
    )


def _note(context: Context, view: FollowView) -> None:
    if view.target_version and view.target_snapshot_id != view.snapshot_id:
        context.output.note(f"{view.dest}: {view.target_version} is to be live")
    if view.error is not None:
        context.output.note(f"{view.dest}: {view.error['message']}")
        if view.error.get("hint"):
            context.output.note(f"hint: {view.error['hint']}")
    if view.hook is not None and view.hook.failed:
        context.output.note(f"{view.dest}: the hook {view.hook.said()}")


@verb(
    "stop",
    examples=[
        "snapctl follow stop /srv/models/iris_clf",
        "snapctl follow stop iris_clf@production",
    ],
)
@click.argument("which", metavar="REF|DIR")
def stop(context: Context, which: str) -> None:
    """End a follow. The link stays, and keeps its snapshot as long as it leads there.

    A reference that is followed at several directories is not enough to tell which is meant.
    """
    client = context.client()
    found = _chosen(client.follows(), which)
    if len(found) > 1:
        raise UsageError(
            f"{which} is followed at {len(found)} directories",
            hint=f"Name the one to end: {', '.join(view.dest for view in found[:5])}.",
        )
    view = client.stop_following(found[0].follow_id)
    if context.output.as_json:
        context.output.print_json(view.to_json())
    else:
        context.output.line(f"{view.dest} is not followed any more")


for each in (status, stop):
    command.add_command(each)
