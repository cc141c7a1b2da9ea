"""All rows in their order, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from benchmarks.results import Result
from benchmarks.rows import checkout, cold, identity, memory, planning, push, start, warm
from benchmarks.server import HTTP, HTTPS, LATE
from benchmarks.workshop import Workshop

Row = Callable[[Workshop], Result]

WIRES = {"http": HTTP, "https": HTTPS, "late": LATE}

ROWS: dict[str, Row] = {
    f"cold-{word}-{name}": partial(cold.measure, wire, name)
    for word, wire in WIRES.items()
    for name in ("T", "S", "L")
}
ROWS |= {
    "warm-S": warm.measure,
    "checkout-hardlink": checkout.by_hardlink,
    "checkout-reflink": checkout.by_reflink,
    **{f"id-{name}": partial(identity.measure, name) for name in ("T", "S", "L")},
    "push-S": partial(push.whole, "S"),
    "push-L": partial(push.whole, "L"),
    "repush-S": push.again,
    "plan": planning.measure,
    "start": start.measure,
    "memory": memory.measure,
}


def chosen(prefixes: list[str]) -> list[str]:
    """List the rows that begin with one of the prefixes; all of them without any."""
    unknown = [each for each in prefixes if not any(row.startswith(each) for row in ROWS)]
    if unknown:
        raise SystemExit(f"no row begins with {unknown[0]}; there are {', '.join(ROWS)}")
    return [row for row in ROWS if not prefixes or row.startswith(tuple(prefixes))]
