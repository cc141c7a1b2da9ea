from __future__ import annotations

from dataclasses import fields, replace

from snapd.model.reload import RELOADABLE, plan_reload
from snapd.model.settings import (
    CacheSettings,
    DaemonSettings,
    FollowSettings,
    LogSettings,
    Settings,
    StoreSettings,
    TransferSettings,
)


def test_nothing_changed() -> None:
    plan = plan_reload(Settings(), Settings())
    assert plan.settings == Settings()
    assert plan.changed == plan.need_restart == ()


def test_what_can_change_is_taken_over_and_the_rest_is_named() -> None:
    running = Settings()
    wanted = Settings(
        daemon=DaemonSettings(stores=("s3://b",), grace_seconds=1.0, listen="127.0.0.1:1"),
        cache=CacheSettings(fsync="off"),
        transfer=TransferSettings(attempts_max=2),
        log=LogSettings(level="debug"),
        stores=(StoreSettings("s3://b"),),
    )
    plan = plan_reload(running, wanted)
    assert plan.changed == ("daemon.stores", "daemon.grace_seconds", "log.level")
    assert plan.need_restart == (
        "daemon.listen",
        "cache.fsync",
        "transfer.attempts_max",
        "store",
    )
    assert plan.settings == replace(
        running,
        daemon=DaemonSettings(stores=("s3://b",), grace_seconds=1.0),
        log=LogSettings(level="debug"),
    )


def test_what_needs_a_restart_is_reported_every_time() -> None:
    wanted = Settings(cache=CacheSettings(fsync="off"))
    first = plan_reload(Settings(), wanted)
    assert plan_reload(first.settings, wanted).need_restart == ("cache.fsync",)


def test_what_is_followed_is_taken_over() -> None:
    follow = FollowSettings("iris@production", "/srv/iris", "s3://b")
    plan = plan_reload(Settings(), Settings(follows=(follow,)))
    assert (plan.changed, plan.need_restart) == (("follow",), ())
    assert plan.settings.follows == (follow,)
    assert plan_reload(plan.settings, Settings()).settings == Settings()


def test_reloadable_keys_exist() -> None:
    for section, keys in RELOADABLE.items():
        assert keys <= {field.name for field in fields(getattr(Settings(), section))}
