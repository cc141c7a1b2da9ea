from __future__ import annotations

from snapd.model import stages
from snapd.model.changes import change_behind
from snapd.model.datasets import Dataset
from snapd.model.ids import SnapshotId
from snapd.model.registry import Author
from snapd.model.releases import Change
from snapd.model.versions import parse_version

ONE, TWO = (parse_version(f"v{n}.0.0") for n in (1, 2))


def who(at: float, note: str = "") -> Author:
    return Author("ann", at, f"t{int(at)}", note)


def test_the_latest_event_about_a_version_made_it_so() -> None:
    model = stages.new_model("iris")
    for number, version in enumerate((ONE, TWO), start=1):
        new = stages.NewVersion(SnapshotId(f"{number:064x}"))
        model = stages.add(model, version, new, who(100.0 * number))
        model = stages.move(model, version, "production", who(100.0 * number + 1, "fine"))
    model = stages.roll_back(model, None, who(300.0, "bad"))
    assert change_behind(model, "v1.0.0") == Change(300.0, "ann", "rollback", "bad")
    assert change_behind(model, "v9.0.0") == Change(0.0)


def test_a_dataset_s_version_was_added_once() -> None:
    dataset = Dataset("imagenet").add(ONE, SnapshotId("1" * 64), who(100.0, "labels"))
    assert change_behind(dataset, "v1.0.0") == Change(100.0, "ann", "add", "labels")
    assert change_behind(dataset, "v2.0.0") == Change(0.0)
