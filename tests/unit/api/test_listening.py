from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from snapd.api.listening import control_socket
from snapd.model.errors import (
    ActionFailed,
    InvalidConfig,
    NotAllowed,
    SocketBusy,
    UsageError,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "snapd.sock"


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        return True


def leave_a_stale_socket(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))


def test_it_listens_with_its_mode_and_goes_away(path: Path) -> None:
    umask = os.umask(0o077)
    try:
        with control_socket(path, mode=0o666):
            assert connects(path)
            assert stat.S_IMODE(path.stat().st_mode) == 0o666
            assert sorted(entry.name for entry in path.parent.iterdir()) == [
                "snapd.sock",
                "snapd.sock.lock",
            ]
    finally:
        os.umask(umask)
    assert not path.exists()


def test_the_group_is_set(path: Path) -> None:
    with control_socket(path, mode=0o660, group="daemon"):
        import grp

        assert path.stat().st_gid == grp.getgrnam("daemon").gr_gid
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755


def test_an_unknown_group_is_named(path: Path) -> None:
    with (
        pytest.raises(InvalidConfig, match="nobody-of-that-name"),
        control_socket(path, mode=0o660, group="nobody-of-that-name"),
    ):
        pass


def test_a_stale_socket_is_replaced(path: Path) -> None:
    leave_a_stale_socket(path)
    assert not connects(path)
    with control_socket(path, mode=0o600):
        assert connects(path)


def test_a_second_daemon_is_refused_and_the_first_stays(path: Path) -> None:
    with control_socket(path, mode=0o600):
        with pytest.raises(SocketBusy, match=str(path)), control_socket(path, mode=0o600):
            pass
        assert connects(path)


def test_a_listener_without_the_lock_is_not_robbed(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(SocketBusy), control_socket(path, mode=0o600):
            pass
        assert connects(path)


def test_a_file_in_the_way_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("precious")
    with pytest.raises(ActionFailed, match="not a socket"), control_socket(path, mode=0o600):
        pass
    assert path.read_text() == "precious"


def test_what_took_its_place_is_not_removed(path: Path) -> None:
    with control_socket(path, mode=0o600):
        path.unlink()
        path.write_text("an administrator's")
    assert path.read_text() == "an administrator's"


def test_errors_of_the_block_are_its_own(path: Path) -> None:
    with pytest.raises(FileNotFoundError), control_socket(path, mode=0o600):
        raise FileNotFoundError("of the block")
    assert not path.exists()


def test_the_longest_path_that_the_kernel_takes_works(tmp_path: Path) -> None:
    path = tmp_path / ("x" * (107 - len(str(tmp_path)) - 1))
    with control_socket(path, mode=0o600):
        assert connects(path)


def test_a_path_too_long_for_the_kernel_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match="too long"),
        control_socket(tmp_path / ("x" * 107), mode=0),
    ):
        pass


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A directory like /tmp."""
    directory = tmp_path / "public"
    directory.mkdir()
    directory.chmod(0o1777)
    return directory


def test_below_a_public_directory_its_own_is_private(public: Path) -> None:
    with control_socket(public / "mine" / "s", mode=0o600):
        assert (public / "mine").stat().st_mode & 0o022 == 0


def test_a_trap_below_a_public_directory_is_refused(public: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (public / "link").symlink_to(tmp_path / "elsewhere")
    (public / "open").mkdir()
    (public / "open").chmod(0o777)
    (public / "foreign").mkdir()
    os.chown(public / "foreign", 12345, -1)
    for trap in ("link", "open", "foreign"):
        with pytest.raises(NotAllowed, match=trap), control_socket(public / trap / "s", mode=0o600):
            pass
        assert not list((public / trap).iterdir())


def test_an_ordinary_user_is_told_what_is_forbidden(tmp_path: Path) -> None:
    attempt = (
        "import os, pathlib, sys\n"
        "from snapd.api.listening import control_socket\n"
        "from snapd.model.errors import AccessDenied\n"
        "os.setuid(65534)\n"
        "try:\n"
        "    control_socket(pathlib.Path('/etc/snapsync-forbidden/s'), mode=0o600).__enter__()\n"
        "except AccessDenied as error:\n"
        "    print(error.message)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", attempt], capture_output=True, text=True, check=True
    )
    assert "/etc/snapsync-forbidden" in done.stdout
    assert "Permission denied" in done.stdout
