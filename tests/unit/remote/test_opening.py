"""Which settings and which backend belong to a URI."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapd.model.errors import InvalidConfig, InvalidStoreUri
from snapd.model.settings import StoreSettings, TransferSettings
from snapd.model.uris import parse_store_uri
from snapd.remote.memory import MemoryStores
from snapd.remote.opening import open_store, settings_for
from snapd.runtime.observer import SilentObserver

SECTIONS = (
    StoreSettings("s3://data", region="bucket"),
    StoreSettings("s3://data/team/x", region="deepest"),
    StoreSettings("s3://data/team", region="team"),
    StoreSettings("s3://other", region="other"),
)


@pytest.mark.parametrize(
    ("uri", "region"),
    [
        ("s3://data", "bucket"),
        ("s3://data/elsewhere", "bucket"),
        ("s3://data/teammates", "bucket"),
        ("s3://data/team", "team"),
        ("s3://data/team/", "team"),
        ("s3://data/team/y/z", "team"),
        ("s3://data/team/x", "deepest"),
        ("s3://data/team/x/y", "deepest"),
        ("s3://datax", ""),
        ("gs://data/team", ""),
    ],
)
def test_the_longest_covering_section_is_chosen(uri: str, region: str) -> None:
    assert settings_for(parse_store_uri(uri), SECTIONS).region == region


def test_without_a_section_there_are_defaults() -> None:
    uri = parse_store_uri("s3://data/x")
    assert settings_for(uri, ()) == StoreSettings("s3://data/x")


def test_two_sections_for_one_store_are_refused() -> None:
    sections = (StoreSettings("s3://data/x"), StoreSettings("s3://data/x/"))
    with pytest.raises(InvalidConfig, match="s3://data/x"):
        settings_for(parse_store_uri("file:///a"), sections)


async def test_a_directory_is_opened_with_its_wrappers(tmp_path: Path) -> None:
    uri = parse_store_uri(f"file://{tmp_path}")
    async with open_store(
        uri, StoreSettings(str(uri)), TransferSettings(), SilentObserver()
    ) as store:
        assert store.uri == uri
        assert store.describe() == f"retrying(metered(file://{tmp_path}))"
        await store.put("a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"


async def test_a_store_in_memory_is_that_of_the_holder() -> None:
    uri = parse_store_uri("memory://name")
    settings, transfer = StoreSettings(str(uri)), TransferSettings()
    memories = MemoryStores()
    async with open_store(uri, settings, transfer, SilentObserver(), memories=memories) as store:
        await store.put("a", b"x")
    assert memories.store(uri).objects == {"a": b"x"}
    with pytest.raises(InvalidStoreUri, match="memory://name"):
        async with open_store(uri, settings, transfer, SilentObserver()):
            pass
