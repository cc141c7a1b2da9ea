"""`snapctl cache gc` and `snapctl cache evict`."""

from __future__ import annotations

import click

from snapctl.context import Context
from snapctl.frame import reference_store_option, verb
from snapctl.references import resolve_anywhere
from snapctl.space import show_verdicts
from snapd.model.errors import ExitCode
from snapd.model.space import SweepReport, SweepRequest
from snapd.model.units import format_size, parse_size_bytes


@verb(
    "gc",
    examples=[
        "snapctl cache gc",
        "snapctl cache gc --dryrun --why",
        "snapctl cache gc --free 100G",
    ],
)
@click.option("--dryrun", is_flag=True, help="Tell what would be evicted, and change nothing.")
@click.option("--why", is_flag=True, help="Tell of each snapshot why it goes or stays.")
@click.option(
    "--free",
    metavar="SIZE",
    help="Free this much at least, instead of sweeping down to the low watermark.",
)
def gc(context: Context, dryrun: bool, why: bool, free: str | None) -> int:
    """Evict the snapshots used longest ago that nobody holds, and objects without a snapshot.

    Without --free the cache is swept down to `[cache] low_watermark` of its quota; without a quota
    only objects without a snapshot go, unless the disk has less than `min_free_bytes` left. Exits 3
    if less came free than was needed.
    """
    free_bytes = 0 if free is None else parse_size_bytes(free)
    report = context.client().patient().sweep(SweepRequest(dryrun, why, free_bytes))
    if context.output.as_json:
        context.output.print_json(report.to_json())
    else:
        show_verdicts(context.output, (*report.evicted, *report.kept))
        context.output.line(_summary(report))
    return int(ExitCode.DONE if report.satisfied else ExitCode.PARTLY_DONE)


@verb("evict", examples=["snapctl cache evict ID", "snapctl cache evict ID --given-out-too"])
@click.argument("snapshot_id", metavar="ID")
@reference_store_option
@click.option(
    "--given-out-too",
    is_flag=True,
    help="Even if its path was given out lately; who holds it otherwise keeps it.",
)
def evict(context: Context, snapshot_id: str, store: str | None, given_out_too: bool) -> None:
    """Take one snapshot out of the cache, unless somebody holds it."""
    wanted = resolve_anywhere(context, snapshot_id, store)
    report = context.client().patient().evict(wanted, given_out_too=given_out_too)
    if context.output.as_json:
        context.output.print_json(report.to_json())
    else:
        context.output.line(_summary(report))


def _summary(report: SweepReport) -> str:
    verb_said = "would evict" if report.dryrun else "evicted"
    comes = "would come" if report.dryrun else "came"
    words = [
        f"{verb_said} {len(report.evicted)} snapshots",
        f"{format_size(report.freed_bytes)} {comes} free",
    ]
    if report.orphan_bytes:
        words.append(f"{format_size(report.orphan_bytes)} of it in objects without a snapshot")
    if report.blobs_in_use:
        words.append("another process pulls: its objects stay until the next sweep")
    if not report.satisfied:
        words.append(f"{format_size(report.needed_bytes)} are needed")
    return "; ".join(words)
