"""Authors and models for tests of the registry's rules."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from snapd.model.ids import SnapshotId, digest_of
from snapd.model.models import Model
from snapd.model.registry import Author
from snapd.model.stages import NewVersion, add, move, new_model
from snapd.model.versions import Version, parse_version

AT = 1_800_000_000.0
_tokens = (f"c{number}" for number in itertools.count())


def author(note: str = "", *, by: str = "ann@host", at: float = AT) -> Author:
    return Author(by, at, next(_tokens), note)


def snapshot(text: str) -> SnapshotId:
    return SnapshotId(digest_of(text.encode()))


def v(number: int) -> Version:
    return parse_version(f"v{number}.0.0")


def model_with(count: int, *, produced: Iterable[int] = ()) -> Model:
    """Make a model of versions v1.0.0, v2.0.0, ...; those named were in production, in order."""
    model = new_model("iris_clf")
    for number in range(1, count + 1):
        model = add(model, v(number), NewVersion(snapshot(f"{number}")), author())
    for number in produced:
        model = move(model, v(number), "production", author())
    return model


def stages_of(model: Model) -> dict[str, str]:
    return {each.version: each.stage for each in model.versions}
