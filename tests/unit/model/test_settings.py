from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from snapd.model.settings import Settings


def test_defaults_refuse_every_store_and_listen_on_this_machine_only() -> None:
    settings = Settings()
    assert settings.daemon.stores == ()
    assert settings.daemon.listen.startswith("127.0.0.1:")
    assert settings.daemon.socket_mode & 0o007 == 0


def test_default_bounds_fit_into_each_other() -> None:
    transfer = Settings().transfer
    assert transfer.range_bytes <= transfer.large_object_bytes <= transfer.bytes_in_flight
    assert transfer.batch_bytes <= transfer.bytes_in_flight
    assert transfer.backoff_base_seconds <= transfer.backoff_max_seconds
    assert transfer.stall_timeout_seconds <= transfer.deadline_seconds


def test_settings_do_not_change_under_their_users() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().transfer.range_bytes = 1  # type: ignore[misc]
