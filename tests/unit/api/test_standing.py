from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import anyio

from snapd.api.standing import Standing
from snapd.model.settings import CacheSettings, ScrubSettings, Settings
from snapd.node import open_node
from snapd.runtime.metrics import Metrics
from tests.unit.runtime.test_metrics import samples


def standing_in(directory: Path) -> Standing:
    settings = Settings(cache=CacheSettings(directory=str(directory), max_bytes=10_000_000))
    return Standing(settings, Metrics(version="1"))


async def test_before_the_node_is_open_all_is_zero_and_starting(tmp_path: Path) -> None:
    standing = standing_in(tmp_path)
    assert standing.unready_because() == "starting"
    assert (await standing.numbers()).disk_total_bytes == 0
    status = await standing.status()
    assert (status["state"], status["state_directory"]) == ("starting", str(tmp_path))


async def test_an_open_node_is_counted_and_then_followed(tmp_path: Path) -> None:
    standing = standing_in(tmp_path)
    async with open_node(
        standing.settings, cache_directory=tmp_path, observer=standing.metrics, now=time.time
    ) as standing.node:
        assert standing.unready_because() == ""
        (tmp_path / "blobs" / "00" / f"{64 * '0'}.644").write_bytes(b"x" * 8000)
        assert (await standing.numbers()).cache_bytes == 0
        standing.node.pulls.admission.begin_sweeping()
        with anyio.fail_after(60):
            while (await standing.numbers()).cache_bytes < 8192:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        numbers = await standing.numbers()
        assert (numbers.cache_bytes_max, numbers.reserved_bytes) == (10_000_000, 0)
        assert numbers.disk_total_bytes > numbers.disk_free_bytes > 0
        assert numbers.objects_in_flight_max == standing.settings.transfer.objects_in_flight
        standing.draining = True
        assert standing.unready_because() == "draining"


async def test_the_parts_of_the_cache_add_up_before_and_after_a_count(tmp_path: Path) -> None:
    standing = standing_in(tmp_path)
    async with open_node(
        standing.settings, cache_directory=tmp_path, observer=standing.metrics, now=time.time
    ) as standing.node:
        admission = standing.node.pulls.admission
        assert (await standing.numbers()).cache == {"new": 0}
        (tmp_path / "blobs" / "00" / f"{64 * '0'}.644").write_bytes(b"x" * 8000)
        (tmp_path / "quarantine" / "wrong.json").write_bytes(b"x" * 5000)
        admission.begin_sweeping()
        with anyio.fail_after(60):
            while admission.usage is None:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        numbers = await standing.numbers()
        assert numbers.cache["loose"] == 8192
        assert numbers.cache["quarantine"] >= 8192
        assert sum(numbers.cache.values()) == admission.used_bytes
        assert numbers.quarantined_objects == 1
        assert set(numbers.leases) == {"process", "pod", "link", "pin", "follow", "time"}


async def test_a_scrub_that_is_off_has_no_interval(tmp_path: Path) -> None:
    standing = standing_in(tmp_path)
    off = replace(standing.settings, scrub=ScrubSettings(bytes_per_second=0))
    for settings, interval_seconds in ((standing.settings, 7 * 86400), (off, 0)):
        standing.settings = settings
        async with open_node(
            settings, cache_directory=tmp_path, observer=standing.metrics, now=time.time
        ) as standing.node:
            assert (await standing.numbers()).scrub_interval_seconds == interval_seconds


async def test_a_blocked_loop_shows(tmp_path: Path) -> None:
    standing = standing_in(tmp_path)

    async def block() -> None:
        await anyio.sleep(0.5)
        time.sleep(0.8)  # noqa: ASYNC251 - the very thing that is measured

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(standing.keep_watching_the_loop)
        tasks.start_soon(block)
        await anyio.sleep(1.5)
        tasks.cancel_scope.cancel()
    assert 0.2 < samples(standing.metrics)[("snapd_event_loop_lag_seconds",)] < 60
