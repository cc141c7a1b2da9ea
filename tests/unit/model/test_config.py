from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from snapd.model.config import SECTIONS, check_whole, load_settings, settings_from_document
from snapd.model.errors import InvalidConfig
from snapd.model.settings import MIB, FollowSettings, Settings, StoreSettings

EXAMPLE = Path(__file__).parents[3] / "config.example.toml"
KEY_LINE = re.compile(r"# (\[\[(?:store|follow)\]\]|[a-z_]+ = .*)")


def uncommented(text: str) -> str:
    """Turn each commented key into a key, and leave each comment in words as it is."""
    return "\n".join(
        line[2:] if KEY_LINE.fullmatch(line) is not None else line for line in text.splitlines()
    )


def test_an_empty_document_gives_the_defaults() -> None:
    assert load_settings("") == Settings()


def test_the_example_as_it_is_gives_the_defaults() -> None:
    assert load_settings(EXAMPLE.read_text()) == Settings()


def test_the_example_uncommented_gives_the_defaults_too() -> None:
    settings = load_settings(uncommented(EXAMPLE.read_text()))
    followed = FollowSettings("iris_clf@production", "/srv/models/iris_clf")
    assert settings == Settings(stores=(StoreSettings("s3://datasets"),), follows=(followed,))


def test_the_example_names_every_key_once() -> None:
    keys = [line.split(" ")[1] for line in EXAMPLE.read_text().splitlines() if " = " in line]
    kinds = [*SECTIONS.values(), StoreSettings, FollowSettings]
    assert sorted(keys) == sorted(field.name for kind in kinds for field in fields(kind))


def test_sizes_durations_and_modes_may_be_written_as_people_do() -> None:
    settings = load_settings(
        """
        [daemon]
        socket_mode = "0600"
        grace_seconds = "2m"
        [transfer]
        bytes_in_flight = "64M"
        connect_timeout_seconds = 5
        backoff_base_seconds = "250ms"
        """
    )
    assert settings.daemon.socket_mode == 0o600
    assert settings.daemon.grace_seconds == 120.0
    assert settings.transfer.bytes_in_flight == 64 * MIB
    assert isinstance(settings.transfer.connect_timeout_seconds, float)
    assert settings.transfer.backoff_base_seconds == 0.25


def test_stores_keep_their_order_and_their_keys() -> None:
    settings = load_settings(
        """
        [daemon]
        stores = ["s3://a/x", "file:///srv/store"]
        [[store]]
        uri = "s3://b"
        endpoint_url = "http://127.0.0.1:8333"
        addressing = "path"
        anonymous = true
        [[store]]
        uri = "s3://a"
        """
    )
    assert settings.daemon.stores == ("s3://a/x", "file:///srv/store")
    assert settings.stores == (
        StoreSettings(
            "s3://b", endpoint_url="http://127.0.0.1:8333", addressing="path", anonymous=True
        ),
        StoreSettings("s3://a"),
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[daemon]\nsokcet = ''", "unknown key in [daemon]: 'sokcet'; the nearest is 'socket'"),
        ("[deamon]", "unknown section: 'deamon'; the nearest is 'daemon'"),
        ("socket = ''", "unknown section: 'socket'; it belongs to [daemon]"),
        ("[cache]\nrange_bytes = 1", "'range_bytes'; it belongs to [transfer]"),
        ("[[store]]\nuri = 's3://b'\nregoin = 'x'", "unknown key in [store]: 'regoin'"),
        ("[[store]]\nregion = 'x'", "needs a uri"),
        ("[[store]]\nuri = 's3://b'\n[[store]]\nuri = 's3://b/'", "s3://b is configured twice"),
        ("[store]\nuri = 's3://b'", "two brackets"),
        ("store = [1]", "[store] is a section"),
        ("daemon = 3", "[daemon] is a section"),
        ("[[store]]\nuri = 'http://b'", "[store] uri = 'http://b': not a store"),
        ("[[store]]\nuri = 's3://b'\nanonymous = 'yes'", "true or false is expected"),
        ("[[store]]\nuri = 's3://b'\nregion = 1", "a string is expected"),
        ("[[store]]\nuri = 's3://b'\naddressing = 'dns'", "one of auto, path, virtual"),
        ("[[store]]\nuri = 's3://b'\nendpoint_url = 'b:1'", "http://host:port"),
        ("[[store]]\nuri = 's3://b'\nca_file = 'ca.pem'", "an absolute path is expected"),
        ("[daemon]\nstores = 's3://b'", "a list of strings is expected"),
        ("[daemon]\nstores = [1]", "a list of strings is expected"),
        ("[daemon]\nstores = ['s3//b']", "not a store"),
        ("[daemon]\nstores = ['*', 's3://b']", "stands alone"),
        ("[daemon]\nsocket = 'snapd.sock'", "an absolute path is expected"),
        ("[daemon]\nsocket_mode = 660", "0o660"),
        ("[daemon]\nsocket_mode = 'rw'", "a number is expected"),
        ("[daemon]\nlisten = '9477'", "host:port"),
        ("[daemon]\nlisten = ':9477'", "host:port"),
        ("[daemon]\nlisten = '0.0.0.0:70000'", "at most 65535"),
        ("[daemon]\npulls_running_max = 0", "out of range"),
        ("[daemon]\npulls_running_max = 1.5", "a whole number is expected"),
        ("[daemon]\npulls_running_max = true", "a number is expected"),
        ("[daemon]\npulls_running_max = '4'", "a number is expected"),
        ("[daemon]\ngrace_seconds = -1", "out of range"),
        ("[transfer]\nstall_timeout_seconds = inf", "out of range"),
        ("[transfer]\nstall_timeout_seconds = 'soon'", "not a duration: 'soon'"),
        ("[transfer]\nrange_bytes = '8 apples'", "not a size: '8 apples'"),
        ("[transfer]\nrange_bytes = '1G'", "range_bytes is larger than bytes_in_flight"),
        ("[transfer]\nbackoff_max_seconds = 0.1", "larger than backoff_max_seconds"),
        ("[cache]\nhigh_watermark = 1.5", "low_watermark is at most high_watermark"),
        ("[cache]\nhigh_watermark = 0.5", "low_watermark is at most high_watermark"),
        ("[log]\nlevel = 'trace'", "one of debug, info, warning, error is expected"),
        ("[transfer]\nworkers = 'many'", "one of auto, a number is expected"),
        ("[transfer]\nworkers = 1.5", "a whole number is expected"),
        ("[transfer]\nworkers = 100", "workers is at most 64"),
        ("[log\n", "not TOML"),
    ],
)
def test_what_is_wrong_is_named(text: str, complaint: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        load_settings(text)
    assert complaint in caught.value.message


def test_zero_is_allowed_where_it_means_something() -> None:
    settings = load_settings("[daemon]\ngrace_seconds = 0\npulls_queued_max = 0\nlisten = ''")
    assert settings.daemon.grace_seconds == 0.0
    assert settings.daemon.pulls_queued_max == 0
    assert settings.daemon.listen == ""


def test_a_document_is_checked_without_toml_as_well() -> None:
    with pytest.raises(InvalidConfig, match=r"\[cache\] directory = None"):
        settings_from_document({"cache": {"directory": None}})


def test_a_number_or_a_word() -> None:
    assert load_settings("").transfer.workers == "auto"
    assert load_settings("[transfer]\nworkers = 'auto'").transfer.workers == "auto"
    assert load_settings("[transfer]\nworkers = 0").transfer.workers == 0
    assert load_settings("[transfer]\nworkers = 3").transfer.workers == 3


FOLLOW = '[[follow]]\nref = "iris@production"\ndest = "/srv/iris"\n'


def test_a_follow_is_read_and_completed() -> None:
    text = FOLLOW + 'poll_seconds = "5s"\nhook = ["/bin/true", "x"]\nkeep_previous = 0\n'
    [follow] = check_whole(load_settings('[daemon]\nstores = ["s3://a/"]\n' + text)).follows
    assert follow == FollowSettings(
        "iris@production", "/srv/iris", "s3://a", 5.0, 0, ("/bin/true", "x")
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[follow]]\nref = "iris@production"\n', "needs a dest"),
        ('[[follow]]\ndest = "/srv/iris"\n', "needs a ref"),
        ('[follow]\nref = "iris@production"\n', "two brackets"),
        (FOLLOW + "pol_seconds = 1\n", "'poll_seconds'"),
        (FOLLOW + "poll_seconds = 0.5\n", "every 1 s"),
        (FOLLOW + "keep_previous = 11\n", "at most 10"),
        (FOLLOW + 'hook = "reload"\n', "list of strings"),
        (FOLLOW + 'hook = ["reload"]\n', "absolute path"),
        (FOLLOW + 'store = "nonsense"\n', "nonsense"),
        (FOLLOW.replace("iris@production", "iris"), "which version"),
        (FOLLOW.replace("/srv/iris", "srv/iris"), "absolute path"),
        (FOLLOW.replace("/srv/iris", "/srv/../iris"), "'..'"),
        (FOLLOW.replace("/srv/iris", "/"), "below /"),
        (FOLLOW * 2, "the same"),
        (FOLLOW + FOLLOW.replace("/srv/iris", "/srv"), "one in the other"),
        (FOLLOW + FOLLOW.replace("/srv/iris", "/srv/iris/below/it"), "one in the other"),
        ('[daemon]\nstores = ["s3://a", "s3://b"]\n' + FOLLOW, "no store"),
        ('[daemon]\nstores = ["*"]\n' + FOLLOW, "no store"),
    ],
)
def test_a_follow_that_can_not_be_is_refused(text: str, words: str) -> None:
    if "stores" not in text:
        text = '[daemon]\nstores = ["s3://a"]\n' + text
    with pytest.raises(InvalidConfig) as refused:
        check_whole(load_settings(text))
    assert words in refused.value.message


def test_there_are_so_many_follows_at_most() -> None:
    text = "".join(FOLLOW.replace("/iris", f"/iris{n}") for n in range(65))
    with pytest.raises(InvalidConfig, match="at most 64"):
        check_whole(load_settings('[daemon]\nstores = ["s3://a"]\n' + text))
