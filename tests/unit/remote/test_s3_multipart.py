"""How parts are cut for stores that take ten thousand of them; uploads are in test_s3."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from snapd.remote.s3_multipart import PART_BYTES, PARTS_MAX, first_cause, regrouped


async def parts_of(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def sizes(size_bytes: int, *parts: bytes) -> list[int]:
    return [len(part) async for part in regrouped(parts_of(*parts), size_bytes)]


async def test_whole_parts_pass_uncopied() -> None:
    whole = bytes(PART_BYTES)
    given = [part async for part in regrouped(parts_of(whole, b"end"), PART_BYTES + 3)]
    assert given[0] is whole
    assert given[1:] == [b"end"]


async def test_small_parts_are_joined() -> None:
    half = bytes(PART_BYTES // 2)
    assert await sizes(0, half, half, half) == [PART_BYTES, PART_BYTES // 2]
    assert await sizes(0) == []


@pytest.mark.parametrize(("size_bytes", "times"), [(20 * 10**9, 1), (160 * 10**9, 2)])
async def test_no_more_parts_than_a_store_takes(size_bytes: int, times: int) -> None:
    whole = bytes(PART_BYTES)
    assert await sizes(size_bytes, *[whole] * 4) == [PART_BYTES * times] * (4 // times)
    assert size_bytes / (PART_BYTES * times) <= PARTS_MAX


def test_the_first_cause_of_nested_groups() -> None:
    cause = ValueError("cause")
    nested = ExceptionGroup("outer", [ExceptionGroup("inner", [cause, KeyError()]), KeyError()])
    assert first_cause(nested) is cause
