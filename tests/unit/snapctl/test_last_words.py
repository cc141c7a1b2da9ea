from __future__ import annotations

from pathlib import Path

import pytest

from snapctl.last_words import MESSAGE_MAX_BYTES, last_words, leave_last_words
from snapd.model.errors import InternalError, ManifestRefused, SnapsyncError, StoreFailing


def test_what_happened_and_what_to_do() -> None:
    error = StoreFailing("s3://b answered 500", hint="Look at the store.")
    assert last_words(error).splitlines() == [
        "snapctl: s3://b answered 500",
        "exit code: 13 (store unreachable, store_failing)",
        "next: Look at the store. Running it again may help: what is verified is kept.",
    ]


def test_what_a_restart_does_not_help() -> None:
    assert "does not help before that" in last_words(ManifestRefused("a name with a slash"))


@pytest.mark.parametrize("message", ["x" * 10_000, "ü" * 10_000, "\udcff" * 10_000])
def test_the_next_action_survives_the_kubelet_s_limit(message: str) -> None:
    words = last_words(InternalError(message))
    assert MESSAGE_MAX_BYTES - 4 <= len(words.encode()) <= MESSAGE_MAX_BYTES
    assert words.splitlines()[-1].startswith("next: ")


def test_a_hint_without_end_is_cut_too() -> None:
    words = last_words(SnapsyncError("m", hint="h" * 10_000))
    assert len(words.encode()) <= MESSAGE_MAX_BYTES


def test_a_file_that_can_t_be_written_changes_nothing(tmp_path: Path) -> None:
    leave_last_words(str(tmp_path / "no" / "such"), InternalError("x"))
    leave_last_words(str(tmp_path / "log"), InternalError("x"))
    assert (tmp_path / "log").read_text().startswith("snapctl: x\n")
