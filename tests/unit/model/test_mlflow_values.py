from __future__ import annotations

import math

from snapd.model.mlflow_values import fit_metrics, fit_parameters, run_id_in
from snapd.model.models import VALUES_MAX


def test_the_run_is_in_the_address_of_its_artifacts() -> None:
    assert run_id_in("runs:/a13c/model") == "a13c"
    assert run_id_in("runs:/a13c") == "a13c"
    assert run_id_in("models:/iris/3") == ""


def test_metrics_that_json_can_carry_are_taken() -> None:
    taken, left = fit_metrics({"f1": 0.5, "loss": math.nan, "auc": math.inf, "n": 3, "": 1.0})
    assert taken == {"f1": 0.5, "n": 3}
    assert left == ["", "auc", "loss"]


def test_parameters_get_their_types_back() -> None:
    texts = {"lr": "0.1", "n": "3", "aug": "True", "opt": "adam", "none": "None", "l": "[1, 2]"}
    taken, left = fit_parameters({**texts, "x": "\x1b[2J", "huge": "h" * 100_000})
    assert taken == {"lr": 0.1, "n": 3, "aug": True, "opt": "adam", "none": "None", "l": "[1, 2]"}
    assert left == ["huge", "x"]


def test_as_many_as_a_version_holds() -> None:
    taken, left = fit_metrics({f"m{number:04}": float(number) for number in range(VALUES_MAX + 2)})
    assert len(taken) == VALUES_MAX
    assert left == [f"m{VALUES_MAX:04}", f"m{VALUES_MAX + 1:04}"]
