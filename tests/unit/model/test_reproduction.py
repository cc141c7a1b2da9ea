from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapd.model.ids import SnapshotId, digest_of
from snapd.model.reproduction import OutputCheck, Plan, is_masked, plan_reproduction
from snapd.model.run_parts import Code, Use
from snapd.model.runs import Run

ROOT = "/scratch/again"
A, B = SnapshotId(digest_of(b"a")), SnapshotId(digest_of(b"b"))
COMMIT = Code("693e354a", dirty=False, directory="src")


def plan(
    words: tuple[str, ...] = (),
    *,
    data: tuple[Use, ...] = (),
    outputs: tuple[Use, ...] = (),
    code: Code | None = COMMIT,
    **more: Any,
) -> Plan:
    run = Run(
        "r7",
        "2026-03-01T09:30:01Z",
        "ann",
        "1f",
        code=code,
        data=data,
        outputs=outputs,
        command=words,
    )
    return plan_reproduction(run, ROOT, **more)


def places(made: Plan) -> list[str | None]:
    return [each.path for each in (*made.data, *made.outputs)]


def test_the_command_is_run_where_it_was_in_the_code() -> None:
    assert plan().directory == f"{ROOT}/code/src"
    assert plan(code=None).directory == f"{ROOT}/code"
    assert plan(code=Code("c", directory="../..")).directory == f"{ROOT}/code"
    assert plan(code=Code("c", directory="/etc")).directory == f"{ROOT}/code"


@pytest.mark.parametrize(
    ("word", "replaced"),
    [
        ("/data/imagenet", "X"),
        ("--data=/data/imagenet/train", "--data=X/train"),
        ("/data/imagenet:/other", "X:/other"),
        ("cat /data/imagenet/* | x", "cat X/* | x"),
        ("/data/imagenet2", "/data/imagenet2"),
        ("/mnt/data/imagenet", "/mnt/data/imagenet"),
    ],
)
def test_a_path_of_then_is_replaced_as_a_whole(word: str, replaced: str) -> None:
    made = plan(("train", "/data/imagenet/", word), data=(Use(A, path="/data/imagenet"),))
    place = f"{ROOT}/data/imagenet"
    assert made.command[2] == replaced.replace("X", place)
    assert made.command[1] == f"{place}/"
    assert places(made) == [place]
    assert made.notes == ()


def test_the_longer_of_two_paths_is_replaced_first() -> None:
    uses = (Use(A, path="/d"), Use(B, path="/d/labels"))
    made = plan(("train", "/d", "/d/labels"), data=uses)
    assert made.command == ("train", f"{ROOT}/data/d", f"{ROOT}/data/labels")


def test_data_lies_where_relative_words_look_for_it() -> None:
    made = plan(("train", "--data=./in/x"), data=(Use(A, path="/home/ann/iris/src/in/x"),))
    assert places(made) == [f"{ROOT}/code/src/in/x"]
    assert made.command == ("train", "--data=./in/x")
    made = plan(("train", "../data"), data=(Use(A, path="../data"),))
    assert places(made) == [f"{ROOT}/code/data"]


def test_what_the_command_does_not_name_is_told() -> None:
    made = plan(("train",), data=(Use(A, path="/home/ann/in"), Use(B, "imagenet@v1.0.0", "label")))
    assert places(made) == [f"{ROOT}/code/src/in", f"{ROOT}/code/src/label"]
    assert [note.split(":")[0] for note in made.notes] == [
        "the command does not name /home/ann/in",
        "the command does not name label",
    ]


def test_data_without_a_path_of_its_own_lies_beside_the_code() -> None:
    tree = Use(A, path=f"/var/lib/snapsync/trees/{A}")
    uses = (tree, Use(A, "dataset:imagenet@v1.2.0"), Use(B, "imagenet@v1.1.0"), Use(B))
    assert places(plan(data=uses)) == [
        f"{ROOT}/data/{A[:12]}",
        f"{ROOT}/data/imagenet",
        f"{ROOT}/data/imagenet-2",
    ]
    assert places(plan(data=(Use(B),))) == [f"{ROOT}/data/{B[:12]}"]


@pytest.mark.parametrize(
    "path", [".git/hooks", "../.GIT", "../../../../etc", ".", "..", "../src", "/"]
)
def test_nothing_lies_outside_or_around_the_code(path: str) -> None:
    [place] = places(plan(("train", path), data=(Use(A, path=path),)))
    assert place is not None
    assert place.startswith(f"{ROOT}/data/")


def test_a_reference_that_is_a_path_leads_nowhere() -> None:
    for reference in ("../../etc@v1.0.0", "/etc@x", "..", "a/b@v1.0.0"):
        assert places(plan(data=(Use(A, reference),))) == [f"{ROOT}/data/{A[:12]}"]


@given(
    st.lists(
        st.builds(
            Use,
            st.sampled_from([A, B]),
            st.none() | st.text("a.@/:", max_size=6),
            st.none() | st.text("a./", max_size=8),
        ),
        max_size=5,
    ),
    st.lists(st.text("a./=", max_size=8), max_size=4),
)
def test_whatever_a_record_says_data_lies_inside_and_apart(
    uses: list[Use], words: list[str]
) -> None:
    made = plan(tuple(words), data=tuple(uses), outputs=tuple(uses))
    found = [each.path for each in made.data]
    assert all(path and path.startswith((f"{ROOT}/code/", f"{ROOT}/data/")) for path in found)
    assert all(".." not in path.split("/") for path in found if path)
    assert len(set(found)) == len(found)
    assert all(
        each.path is None or each.path == ROOT or each.path.startswith(f"{ROOT}/")
        for each in made.outputs
    )


def test_what_the_code_has_is_not_overlaid_nor_one_snapshot_by_another() -> None:
    taken = f"{ROOT}/code/src/in"
    uses = (Use(A, path="in"), Use(B, path="more"), Use(A, path="more/below"), Use(B, path="more"))
    made = plan(("in", "more", "more/below"), data=uses, is_taken=lambda path: path == taken)
    assert places(made) == [
        f"{ROOT}/data/in",
        f"{ROOT}/code/src/more",
        f"{ROOT}/data/below",
    ]


def test_outputs_are_looked_for_where_the_command_makes_them() -> None:
    uses = (Use(A, path="out"), Use(B, path="/scratch/model"), Use(B, path="x"), Use(A))
    made = plan(
        ("train", "-o", "/scratch/model"), outputs=uses, named_outputs={"x": "../deep/../made"}
    )
    assert places(made) == [
        f"{ROOT}/code/src/out",
        f"{ROOT}/outputs/model",
        f"{ROOT}/code/made",
        None,
    ]
    assert made.command == ("train", "-o", f"{ROOT}/outputs/model")
    assert made.endangered == ()


def test_an_output_elsewhere_is_in_danger_and_not_compared() -> None:
    made = plan(("train",), outputs=(Use(A, path="/srv/model"), Use(B, path="../../../../x")))
    assert places(made) == [None, None]
    assert made.endangered == ("/srv/model", "/x")


def test_another_command_may_stand_in() -> None:
    assert is_masked(("train", "--token", "***"))
    made = plan(("train", "***"), data=(Use(A, path="/d"),), command=("train", "/d"))
    assert made.command == ("train", f"{ROOT}/data/d")
    assert not is_masked(made.command)


def test_what_no_commit_has_is_told() -> None:
    assert "no commit" in plan(code=Code("c", dirty=True)).notes[0]
    assert "no commit" in plan(code=Code("c", untracked=2)).notes[0]
    assert "which code" in plan(code=None).notes[0]
    assert plan(code=Code("c")).notes == ()


def test_an_output_is_told_in_a_line_and_as_json() -> None:
    check = OutputCheck(Use(A, path="model"), "/x", "different", "3 differences")
    assert check.line() == f"different     model {A}: 3 differences"
    assert check.to_json()["status"] == "different"
    assert OutputCheck(Use(A), None, "same").line() == f"same          {A}"
