from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from snapd.__main__ import (
    EXIT_CODES,
    Words,
    cause_of,
    main,
    raise_open_files_limit,
    read_words,
    settings_of,
)
from snapd.model.config import load_settings
from snapd.model.errors import (
    EXIT_CODE_MEANINGS,
    CacheUnusable,
    ExitCode,
    InternalError,
    InvalidConfig,
    NotAllowed,
    SocketBusy,
)
from snapd.model.places import Places
from snapd.model.settings import Settings


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "run/s", tmp_path / "cache", tmp_path / "config.toml")


def test_options_win_over_the_environment() -> None:
    environment = {
        "SNAPSYNC_CONFIG": "/env.toml",
        "SNAPSYNC_SOCKET": "/env.sock",
        "SNAPSYNC_LISTEN": "127.0.0.1:1",
        "SNAPSYNC_STORES": "s3://a s3://b",
        "SNAPSYNC_LOG_FORMAT": "json",
    }
    assert read_words([], environment) == Words(
        config="/env.toml",
        socket="/env.sock",
        listen="127.0.0.1:1",
        stores=("s3://a", "s3://b"),
        log_format="json",
    )
    spoken = ["--config", "/o.toml", "--socket", "/o.sock", "--listen", "", "--log-format", "text"]
    spoken += ["--cache-dir", "/c", "--store", "s3://c", "--store", "gs://d", "--check-config"]
    assert read_words(spoken, environment) == Words(
        "/o.toml", "/o.sock", "/c", "", "text", ("s3://c", "gs://d"), check_config=True
    )


def test_a_user_s_own_daemon_reads_what_the_user_may_and_nobody_else_reaches_it(
    places: Places,
) -> None:
    settings = settings_of(Words(), places, private=True)
    assert settings.daemon.stores == ("*",)
    assert settings.daemon.socket_mode == 0o600
    assert settings.daemon.socket == str(places.socket)
    assert settings.cache.directory == str(places.cache_dir)
    narrowed = settings_of(Words(stores=("s3://only",)), places, private=True)
    assert narrowed.daemon.stores == ("s3://only",)


def test_the_system_s_daemon_reads_nothing_that_it_was_not_told_to(places: Places) -> None:
    settings = settings_of(Words(), places, private=False)
    assert settings.daemon.stores == ()
    assert settings.daemon.socket_mode == Settings().daemon.socket_mode


def test_the_default_file_is_read_if_it_exists(places: Places) -> None:
    places.config_file.write_text('[daemon]\nstores = ["s3://b"]\nsocket = "/s"\n')
    settings = settings_of(Words(), places, private=True)
    assert settings.daemon.stores == ("s3://b",)
    assert settings.daemon.socket == "/s"
    assert settings.daemon.socket_mode == Settings().daemon.socket_mode


def test_words_win_over_the_file_and_leave_the_rest(places: Places, tmp_path: Path) -> None:
    file = tmp_path / "named.toml"
    file.write_text('[daemon]\nlisten = "127.0.0.1:2"\ngrace_seconds = 5\n[log]\nlevel = "debug"\n')
    words = Words(config=str(file), listen="", log_format="json", cache_dir="relative")
    settings = settings_of(words, places, private=False)
    assert settings.daemon.listen == ""
    assert settings.daemon.grace_seconds == 5.0
    assert (settings.log.format, settings.log.level) == ("json", "debug")
    assert settings.cache.directory == os.path.abspath("relative")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (Words(stores=("ftp://x",)), "ftp://x"),
        (Words(log_format="xml"), "xml"),
        (Words(listen="nowhere"), "nowhere"),
        (Words(config="/no/such/file.toml"), "/no/such/file.toml"),
        (Words(config="/"), "directory"),
    ],
)
def test_unfit_words_are_named(words: Words, named: str, places: Places) -> None:
    with pytest.raises(InvalidConfig, match=named):
        settings_of(words, places, private=False)


def test_a_file_that_is_no_text_is_named(places: Places) -> None:
    places.config_file.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidConfig, match="UTF-8"):
        settings_of(Words(), places, private=False)


def test_checking_a_configuration_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit = tmp_path / "fit.toml"
    fit.write_text('[daemon]\nstores = ["*"]\n')
    assert main(["--config", str(fit), "--check-config"]) == 0
    assert str(fit) in capsys.readouterr().out
    unfit = tmp_path / "unfit.toml"
    unfit.write_text('[daemon]\nstorse = ["*"]\n')
    assert main(["--config", str(unfit), "--check-config"]) == ExitCode.USAGE
    told = capsys.readouterr().err
    assert "storse" in told
    assert "stores" in told
    assert "hint: " in told


def test_the_example_configuration_is_fit(capsys: pytest.CaptureFixture[str]) -> None:
    example = Path(__file__).parents[3] / "config.example.toml"
    assert main(["--config", str(example), "--check-config"]) == 0
    assert load_settings(example.read_text()) is not None
    assert "fit" in capsys.readouterr().out


def test_help_shows_examples_and_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "examples:" in shown
    for code in EXIT_CODES:
        assert f"  {int(code):<4}{EXIT_CODE_MEANINGS[code]}" in shown


def test_an_unknown_option_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--stroe", "x"])
    assert ended.value.code == ExitCode.USAGE


def test_the_cause_is_found_in_groups_of_groups() -> None:
    busy = SocketBusy("busy")
    assert cause_of(busy) is busy
    assert cause_of(ExceptionGroup("", [ExceptionGroup("", [busy])])) is busy
    defect = cause_of(ExceptionGroup("", [busy, ValueError("odd")]))
    assert isinstance(defect, InternalError)
    assert "ValueError: odd" in defect.message


def test_the_exit_codes_in_help_are_those_that_errors_have() -> None:
    for kind in (CacheUnusable, SocketBusy, InvalidConfig, NotAllowed, InternalError):
        assert kind.exit_code in EXIT_CODES


def test_as_many_files_may_be_open_as_the_system_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
    try:
        raise_open_files_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
