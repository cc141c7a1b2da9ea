from __future__ import annotations

import os
from pathlib import Path

import pytest

from snapctl.context import Context
from snapd.model.errors import InvalidConfig
from snapd.model.places import default_places
from snapd.model.settings import Settings


def test_settings_are_the_defaults_without_a_file(tmp_path: Path) -> None:
    context = Context({"HOME": str(tmp_path)})
    own = default_places(context.environment, uid=os.getuid()).config_file
    assert own.exists() or context.settings() == Settings()


def test_settings_come_from_the_named_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[transfer]\ntransfer_threads = 3\n")
    assert Context({}, config=str(file)).settings().transfer.transfer_threads == 3


def test_a_wrong_key_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[transfer]\ntransfer_thread = 3\n")
    with pytest.raises(InvalidConfig, match=f"{file}: .*transfer_threads"):
        Context({}, config=str(file)).settings()


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_named_file_that_can_not_be_read(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "mine.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidConfig, match=str(file)):
        Context({}, config=str(file)).settings()


def test_the_client_goes_to_the_named_socket(tmp_path: Path) -> None:
    assert Context({}, socket="/x/s").client().socket_path == "/x/s"


def test_the_client_names_the_node_s_socket_if_there_is_none(tmp_path: Path) -> None:
    context = Context({"XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)})
    assert context.client().socket_path.endswith("/snapsync/snapd.sock")


def test_json_and_events_both_make_output_for_programs() -> None:
    assert Context({}, as_json=True).output.as_json
    assert Context({}, events=True).output.as_json
    assert Context({}, events=True).output.events
    assert not Context({}).output.as_json
