from __future__ import annotations

from pathlib import Path

from snapd.model.places import SYSTEM_PLACES, SYSTEM_SOCKET, client_sockets, default_places


def test_root_uses_the_places_of_the_system() -> None:
    places = default_places({"XDG_RUNTIME_DIR": "/run/user/0", "HOME": "/root"}, uid=0)
    assert places == SYSTEM_PLACES
    assert client_sockets({"HOME": "/root"}, uid=0) == (SYSTEM_SOCKET,)


def test_a_user_follows_xdg() -> None:
    places = default_places(
        {
            "XDG_RUNTIME_DIR": "/run/user/7",
            "XDG_CACHE_HOME": "/scratch/cache",
            "XDG_CONFIG_HOME": "/scratch/config",
            "HOME": "/home/u",
        },
        uid=7,
    )
    assert places.socket == Path("/run/user/7/snapsync/snapd.sock")
    assert places.cache_dir == Path("/scratch/cache/snapsync")
    assert places.config_file == Path("/scratch/config/snapsync/config.toml")


def test_unset_empty_and_relative_variables_fall_back() -> None:
    for environment in (
        {"HOME": "/home/u"},
        {"HOME": "/home/u", "XDG_RUNTIME_DIR": "", "XDG_CACHE_HOME": "relative/cache"},
    ):
        places = default_places(environment, uid=7)
        assert places.socket == Path("/tmp/snapsync-7/snapd.sock")
        assert places.cache_dir == Path("/home/u/.cache/snapsync")
        assert places.config_file == Path("/home/u/.config/snapsync/config.toml")


def test_nothing_set_at_all_still_gives_private_places() -> None:
    places = default_places({}, uid=7)
    assert places.cache_dir == Path("/tmp/snapsync-7/.cache/snapsync")


def test_a_client_tries_its_own_daemon_before_that_of_the_node() -> None:
    sockets = client_sockets({"XDG_RUNTIME_DIR": "/run/user/7"}, uid=7)
    assert sockets == (Path("/run/user/7/snapsync/snapd.sock"), SYSTEM_SOCKET)
