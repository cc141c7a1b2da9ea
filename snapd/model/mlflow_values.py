"""What the record of an MLflow run becomes in a model version: metrics, parameters, its ID."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from snapd.model.errors import SnapsyncError
from snapd.model.models import VALUES_MAX, check_values
from snapd.model.values import read_value

_PYTHON_WORDS = {"True": "true", "False": "false"}


def run_id_in(uri: str) -> str:
    """Take the run's ID out of `runs:/ID/PATH`; empty for another kind of URI."""
    head, _, rest = uri.partition(":")
    return rest.strip("/").partition("/")[0] if head == "runs" else ""


def fit_metrics(metrics: Mapping[str, float]) -> tuple[dict[str, float], list[str]]:
    """Give the metrics that a version can hold, and the names of the others: NaN, or too many."""
    return _fit(metrics, "metrics")


def fit_parameters(
    parameters: Mapping[str, str],
) -> tuple[dict[str, str | float | bool], list[str]]:
    """Give the parameters that a version can hold, with numbers as such, and the others' names.

    MLflow keeps them as texts, as Python prints them.
    """
    values = {key: _PYTHON_WORDS.get(text, text) for key, text in parameters.items()}
    return _fit({key: read_value(text) for key, text in values.items()}, "parameters")


def _fit(values: Mapping[str, Any], kind: str) -> tuple[dict[str, Any], list[str]]:
    taken: dict[str, Any] = {}
    left: list[str] = []
    for key, value in sorted(values.items()):
        try:
            check_values({key: value}, kind)
        except SnapsyncError:
            left.append(key)
            continue
        if len(taken) < VALUES_MAX:
            taken[key] = value
        else:
            left.append(key)
    return taken, left
