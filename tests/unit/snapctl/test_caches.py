"""Where commands look for a cached snapshot, in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapctl.caches import cache_directories, own_cache_directory, tree_directories
from snapctl.context import Context
from snapd.model.errors import UsageError
from tests.unit.snapctl.scripted import scripted_daemon


def context_of(tmp_path: Path) -> Context:
    return Context(
        environment={"XDG_CACHE_HOME": str(tmp_path / "own")},
        socket=str(tmp_path / "s"),
        quiet=True,
    )


def test_a_chosen_one_is_the_only_one(tmp_path: Path) -> None:
    assert list(cache_directories(context_of(tmp_path), "/chosen")) == [Path("/chosen")]


def test_the_daemon_s_comes_before_the_own(tmp_path: Path) -> None:
    own = tmp_path / "own" / "snapsync"
    context = context_of(tmp_path)

    assert list(cache_directories(context, None)) == [own]
    status = {("GET", "/v1/status"): lambda it: it.reply(200, {"state_directory": "/theirs"})}
    with scripted_daemon(tmp_path / "s", status):
        assert list(cache_directories(context, None)) == [Path("/theirs"), own]


def test_a_daemon_that_refuses_is_passed_over(tmp_path: Path) -> None:
    with scripted_daemon(tmp_path / "s", {}):
        assert list(cache_directories(context_of(tmp_path), None)) == [tmp_path / "own/snapsync"]


def test_without_any_there_is_none(tmp_path: Path) -> None:
    context = Context(environment={}, socket=str(tmp_path / "s"))

    assert list(cache_directories(context, None)) == []


def test_a_mapped_directory_of_trees_comes_first_unless_a_cache_is_chosen(tmp_path: Path) -> None:
    environment = {"SNAPSYNC_TREES": "/mapped", "XDG_CACHE_HOME": str(tmp_path)}
    context = Context(environment, socket=str(tmp_path / "s"), quiet=True)

    own = tmp_path / "snapsync" / "trees"
    assert list(tree_directories(context, None)) == [Path("/mapped"), own]
    assert list(tree_directories(context, "/chosen")) == [Path("/chosen/trees")]


def test_the_cache_of_a_standalone_run(tmp_path: Path) -> None:
    home = Context({"HOME": "/home/me"})
    assert own_cache_directory(home, "/flag") == Path("/flag")
    assert own_cache_directory(home, "flag") == Path("flag").absolute()
    assert own_cache_directory(home, None) == Path("/home/me/.cache/snapsync")
    cached = Context({"HOME": "/home/me", "XDG_CACHE_HOME": "/x"})
    assert own_cache_directory(cached, None) == Path("/x/snapsync")
    with pytest.raises(UsageError, match="HOME"):
        own_cache_directory(Context({}), None)


def test_a_file_of_settings_names_a_cache_if_it_was_asked_for(tmp_path: Path) -> None:
    for name in ("asked.toml", ".config/snapsync/config.toml"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('[cache]\ndirectory = "/named"\n')
    home = {"HOME": str(tmp_path)}
    asked = Context(home, config=str(tmp_path / "asked.toml"))
    assert own_cache_directory(asked, None) == Path("/named")
    assert own_cache_directory(Context(home), None) == tmp_path / ".cache/snapsync", (
        "the node's own cache belongs to its daemon"
    )
