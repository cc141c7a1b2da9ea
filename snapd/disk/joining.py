"""Publish objects into a cache that another process of ours keeps open."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from snapd.disk.publishing import Press
from snapd.disk.quarantine import Quarantine
from snapd.disk.seal import Seal, SealMode, SealState
from snapd.disk.staging import Staging


class PressTerms(NamedTuple):
    """What a helper process must know of the cache: plain values, as they travel."""

    root: str
    staging: str
    quarantine_max_bytes: int
    unnamed: bool
    seal_mode: SealMode
    sealed: bool


@contextmanager
def open_press(terms: PressTerms) -> Iterator[Press]:
    """Open a press on the cache for the length of the block.

    Whoever keeps the cache open must outlive the block: its staging directory is used, and what is
    published is noted down by nobody here.
    """
    root = Path(terms.root)
    with (
        closing(Staging.join(Path(terms.staging))) as staging,
        closing(
            Quarantine(
                root / "quarantine",
                max_bytes=terms.quarantine_max_bytes,
                now=time.time,  # noqa: TID251 - a process of its own has no other clock
            )
        ) as quarantine,
        closing(
            Press(
                root / "blobs",
                staging,
                quarantine,
                unnamed=terms.unnamed,
                seal=Seal(SealState(terms.seal_mode, active=terms.sealed)),
            )
        ) as press,
    ):
        yield press
