"""`snapctl plan`."""

from __future__ import annotations

from snapctl.context import Context
from snapctl.frame import id_option, store_option, verb
from snapctl.references import resolve
from snapctl.space import show_verdicts
from snapd.model.errors import CacheFull
from snapd.model.jobs import PullRequest
from snapd.model.references import parse_id_or_reference
from snapd.model.space import PlanView
from snapd.model.units import format_size
from snapd.model.uris import parse_store_uri


@verb(
    "plan",
    examples=[
        "snapctl plan --id ID --store s3://datasets/imagenet",
        "snapctl plan --id ID --store s3://datasets/imagenet --json",
    ],
)
@id_option()
@store_option()
def command(context: Context, snapshot_id: str, store: str) -> int:
    """Tell what a pull would do now: bytes in the cache, to fetch and to evict. Changes nothing.

    Exits 11 if the pull would be refused because there is no room for it.
    """
    named, uri = parse_id_or_reference(snapshot_id), str(parse_store_uri(store))
    request = PullRequest(resolve(context, named, uri, here=False), uri)
    view = context.client().patient().plan(request)
    if context.output.as_json:
        context.output.print_json(view.to_json())
    else:
        _print(context, view)
    return 0 if view.fits else int(CacheFull.exit_code)


def _print(context: Context, view: PlanView) -> None:
    lines = [
        ("snapshot", _describe_size(view.bytes_total, view.objects_total)),
        ("cached", _describe_size(view.bytes_cached, view.objects_cached)),
        (
            "to fetch",
            _describe_size(view.bytes_to_fetch, view.objects_total - view.objects_cached),
        ),
    ]
    if view.complete:
        lines.append(("room", "the snapshot is complete in the cache"))
    else:
        required, available = format_size(view.required_bytes), format_size(view.available_bytes)
        lines.append(("room", f"{required} needed on disk, {available} there"))
        lines.append(("to evict", _describe_evictions(view)))
    for name, value in lines:
        context.output.line(f"{name:<10}{value}")
    show_verdicts(context.output, view.evict if view.fits else view.kept)


def _describe_size(size_bytes: int, objects: int) -> str:
    return f"{format_size(size_bytes)}, {objects} objects"


def _describe_evictions(view: PlanView) -> str:
    if not view.fits:
        return f"no room: only {format_size(view.freed_bytes)} could come free"
    if not view.freed_bytes:
        return "nothing"
    return f"{format_size(view.freed_bytes)}, {len(view.evict)} snapshots"
