from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.snapctl.running import snapctl
from tests.unit.snapctl.scripted import Exchange, Script, scripted_daemon

FOLLOWS = ("GET", "/v1/follows")


def view(dest: str = "/srv/iris", **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = {
        "follow_id": "abc123abc123",
        "reference": "iris@production",
        "store": "s3://ml",
        "dest": dest,
        "link": f"{dest}/current",
        "configured": False,
        "state": "live",
        "version": "v1.0.0",
        "snapshot_id": "a" * 64,
        "target_snapshot_id": "a" * 64,
        "live_since": time.time() - 7202,
        "checked_at": time.time() - 2,
    }
    return made | more


def listing(*views: dict[str, Any]) -> dict[tuple[str, str], Script]:
    return {FOLLOWS: lambda it: it.reply(200, {"follows": list(views)})}


def test_following_makes_the_directory_and_asks_the_daemon(tmp_path: Path) -> None:
    at = tmp_path / "s"
    made = {("POST", "/v1/follows"): lambda it: it.reply(201, view(str(tmp_path / "live")))}
    with scripted_daemon(at, made) as daemon:
        ran = snapctl(
            *(
                "follow",
                "--dest",
                "live",
                "iris@production",
                "--poll",
                "5s",
                "--keep-previous",
                "2",
            ),
            *("--hook", "sh -c 'exit 0'", "--store", "s3://ml/", "--socket", str(at)),
            home=tmp_path,
        )
    assert (ran.returncode, ran.stdout) == (0, f"{tmp_path}/live/current\n"), ran.stderr
    assert ran.stderr == "following iris@production of s3://ml\n"
    [(_, _, body)] = daemon.requests
    program = body["hook"][0]
    assert os.path.isabs(program)
    assert body == {
        "reference": "iris@production",
        "dest": str(tmp_path / "live"),
        "store": "s3://ml",
        "poll_seconds": 5.0,
        "keep_previous": 2,
        "hook": [program, "-c", "exit 0"],
        "hook_timeout_seconds": 60.0,
        "wait": False,
    }
    assert (tmp_path / "live").is_dir()


def test_what_is_refused_leaves_no_directory(tmp_path: Path) -> None:
    at = tmp_path / "s"
    error = {"code": "no_such_name", "message": "no 'iris'", "hint": "look", "exit_code": 10}
    refusal = {("POST", "/v1/follows"): lambda it: it.reply(404, error)}
    with scripted_daemon(at, refusal):
        ran = snapctl(
            "follow", "iris@production", "--dest", "live", "--socket", str(at), home=tmp_path
        )
    assert ran.returncode == 10
    assert not (tmp_path / "live").exists()


def test_a_refusal_is_told_although_the_directory_is_used_by_then(tmp_path: Path) -> None:
    at, live = tmp_path / "s", tmp_path / "live"
    error = {"code": "internal_error", "message": "lost", "hint": "look", "exit_code": 1}

    def use(exchange: Exchange) -> None:
        (live / "mark").touch()
        exchange.reply(500, error)

    with scripted_daemon(at, {("POST", "/v1/follows"): use}):
        ran = snapctl(
            "follow", "iris@production", "--dest", "live", "--socket", str(at), home=tmp_path
        )
    assert ran.stderr.startswith("snapctl: lost\n")
    assert (live / "mark").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["follow", "iris@production"],
        ["follow", "iris", "--dest", "live"],
        ["follow", "iris@production", "--dest", "/"],
        ["follow", "iris@production", "--dest", "no/such/place"],
        ["follow", "iris@production", "--dest", "live", "--poll", "soon"],
        ["follow", "iris@production", "--dest", "live", "--poll", "10ms"],
        ["follow", "iris@production", "--dest", "live", "--keep-previous", "11"],
        ["follow", "iris@production", "--dest", "live", "--hook", "'unended"],
        ["follow", "iris@production", "--dest", "live", "--hook", "no-such-program-at-all"],
        ["follow", "iris@production", "--dest", "live", "--store", "nonsense"],
        ["follow", "status", "--wait-for", "production"],
    ],
    ids=lambda words: " ".join(words[1:]),
)
def test_wrong_words_are_told_before_anything_is_done(tmp_path: Path, words: list[str]) -> None:
    ran = snapctl(*words, home=tmp_path)
    assert ran.returncode == 2, ran.stderr
    assert "Traceback" not in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_how_it_stands_is_told_with_what_to_do(tmp_path: Path) -> None:
    at = tmp_path / "s"
    bad = view(
        "/srv/other",
        reference="other@staging",
        state="behind",
        target_version="v2.0.0",
        target_snapshot_id="b" * 64,
        behind_seconds=75.0,
        error={"code": "digest_mismatch", "message": "wrong bytes", "hint": "push it again"},
        hook={"ended_at": 1.0, "seconds": 0.5, "status": 3, "timed_out": False},
    )
    with scripted_daemon(at, listing(view(), bad)):
        all_of_it = snapctl("follow", "status", "--socket", str(at), home=tmp_path)
        by_reference = snapctl(
            "follow", "status", "iris@production", "--socket", str(at), home=tmp_path
        )
        by_place = snapctl(
            "follow", "status", "/srv/other/", "--json", "--socket", str(at), home=tmp_path
        )
        absent = snapctl("follow", "status", "/srv", "--socket", str(at), home=tmp_path)
    rows = [row.split() for row in all_of_it.stdout.splitlines()]
    assert rows[0] == ["REFERENCE", "LIVE", "SINCE", "STATE", "BEHIND", "CHECKED", "PATH"]
    assert rows[1][:3] == ["iris@production", "v1.0.0", "2h00m"]
    assert "behind" in rows[2]
    assert "1m15s" in rows[2]
    assert all_of_it.stderr.splitlines() == [
        "/srv/other: v2.0.0 is to be live",
        "/srv/other: wrong bytes",
        "hint: push it again",
        "/srv/other: the hook ended with exit code 3 after 0.5 s",
    ]
    assert len(by_reference.stdout.splitlines()) == 2
    assert by_reference.stderr == ""
    [found] = json.loads(by_place.stdout)["follows"]
    assert found["dest"] == "/srv/other"
    assert absent.returncode == 1
    assert "nothing is followed as '/srv'" in absent.stderr


def test_waiting_ends_when_the_version_is_live_and_its_hook_has_ended(tmp_path: Path) -> None:
    at = tmp_path / "s"
    stages = [
        view(),
        view(version="v2.0.0", hook_running=True),
        view(version="v2.0.0"),
    ]
    seen: list[int] = []

    def answer(exchange: Exchange) -> None:
        seen.append(1)
        exchange.reply(200, {"follows": [stages[min(len(seen), len(stages)) - 1]]})

    with scripted_daemon(at, {FOLLOWS: answer}):
        ran = snapctl(
            *("follow", "status", "--wait-for", "2.0.0", "--timeout", "30s", "--socket", str(at)),
            home=tmp_path,
        )
        assert (ran.returncode, len(seen)) == (0, 3), ran.stderr
    at = tmp_path / "t"
    with scripted_daemon(at, listing(view())):
        late = snapctl(
            *("follow", "status", "--wait-for", "v9.0.0", "--timeout", "0.1s", "--json"),
            *("--socket", str(at)),
            home=tmp_path,
        )
    error = json.loads(late.stderr.splitlines()[-1])
    assert (late.returncode, error["code"]) == (16, "timed_out")
    assert "iris@production is v1.0.0" in error["message"]


def test_stopping_names_the_follow_by_its_place_or_reference(tmp_path: Path) -> None:
    at = tmp_path / "s"
    scripts = listing(view()) | {
        ("DELETE", "/v1/follows/abc123abc123"): lambda it: it.reply(200, view())
    }
    with scripted_daemon(at, scripts):
        for place in ("/srv/iris", "/srv/iris/", "/srv/iris/current", "iris@production"):
            ran = snapctl("follow", "stop", place, "--socket", str(at), home=tmp_path)
            assert ran.stdout == "/srv/iris is not followed any more\n", ran.stderr


def test_stopping_by_a_reference_that_is_followed_twice_stops_nothing(tmp_path: Path) -> None:
    at = tmp_path / "s"
    with scripted_daemon(at, listing(view(), view("/srv/other"))) as daemon:
        ran = snapctl("follow", "stop", "iris@production", "--socket", str(at), home=tmp_path)
    assert ran.returncode == 2
    assert "/srv/iris, /srv/other" in ran.stderr
    assert [method for method, *_ in daemon.requests] == ["GET"]


def test_help_shows_the_usual_way_first(tmp_path: Path) -> None:
    for words in (["follow", "--help"], ["follow"]):
        ran = snapctl(*words, home=tmp_path)
        shown = ran.stdout + ran.stderr
        assert "snapctl follow REF --dest DIR" in shown
        assert "--keep-previous" in shown
        assert "status" in shown
        assert "begin" not in shown
