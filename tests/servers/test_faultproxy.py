"""The proxy does what it is told, and nothing else; the real server is behind it."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest

from tests.servers.faultproxy import Fault, FaultProxy
from tests.servers.seaweed import Seaweed

BODY = bytes(range(256)) * 1024


@pytest.fixture
def proxied(seaweed: Seaweed, seaweed_bucket: str, fault_proxy: FaultProxy) -> Iterator[str]:
    with closing(seaweed.client()) as client:
        client.put_object(Bucket=seaweed_bucket, Key="proxied", Body=BODY)
        yield client.generate_presigned_url(
            "get_object", Params={"Bucket": seaweed_bucket, "Key": "proxied"}
        )


def fetch(proxy: FaultProxy, url: str) -> tuple[int, bytes]:
    parts = urlsplit(url)
    with closing(http.client.HTTPConnection(urlsplit(proxy.url).netloc, timeout=20)) as connection:
        # The signature was made for the server's own name.
        connection.request("GET", f"{parts.path}?{parts.query}", headers={"Host": parts.netloc})
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_hands_on_unchanged(fault_proxy: FaultProxy, proxied: str) -> None:
    assert fetch(fault_proxy, proxied) == (200, BODY)
    assert [one.fault for one in fault_proxy.seen] == [""]


def test_counts_skips_and_times(fault_proxy: FaultProxy, proxied: str) -> None:
    fault_proxy.plan(Fault("answer", path="proxied", skip=1, times=2, status=429))
    assert [fetch(fault_proxy, proxied)[0] for _ in range(4)] == [200, 429, 429, 200]
    assert fault_proxy.count("GET", "proxied") == 4


def test_answers_with_a_code(fault_proxy: FaultProxy, proxied: str) -> None:
    fault_proxy.plan(Fault("answer", code="SlowDown"))
    status, body = fetch(fault_proxy, proxied)
    assert status == 503
    assert b"<Code>SlowDown</Code>" in body


@pytest.mark.parametrize("kind", ["reset", "lose_answer"])
def test_resets(fault_proxy: FaultProxy, proxied: str, kind: str) -> None:
    fault_proxy.plan(Fault(kind))  # type: ignore[arg-type]  # a parameter is a plain str
    with pytest.raises(ConnectionResetError):
        fetch(fault_proxy, proxied)


def test_closes_inside_the_body(fault_proxy: FaultProxy, proxied: str) -> None:
    fault_proxy.plan(Fault("close", after_bytes=1000))
    with pytest.raises(http.client.IncompleteRead) as caught:
        fetch(fault_proxy, proxied)
    assert caught.value.partial == BODY[:1000]


def test_shortens_honestly(fault_proxy: FaultProxy, proxied: str) -> None:
    fault_proxy.plan(Fault("shorten", after_bytes=1000))
    assert fetch(fault_proxy, proxied) == (200, BODY[:1000])


def test_flips_one_bit(fault_proxy: FaultProxy, proxied: str) -> None:
    fault_proxy.plan(Fault("flip", after_bytes=200_000))
    _, body = fetch(fault_proxy, proxied)
    assert [index for index in range(len(BODY)) if body[index] != BODY[index]] == [200_000]


def test_trickles_whole(fault_proxy: FaultProxy, proxied: str) -> None:
    fault_proxy.plan(Fault("trickle", chunk_bytes=65536, seconds=0.01))
    assert fetch(fault_proxy, proxied) == (200, BODY)


def test_stalls_until_the_client_leaves(fault_proxy: FaultProxy, proxied: str) -> None:
    fault_proxy.plan(Fault("stall", after_bytes=10))
    parts = urlsplit(proxied)
    with closing(http.client.HTTPConnection(urlsplit(fault_proxy.url).netloc, timeout=20)) as slow:
        slow.request("GET", f"{parts.path}?{parts.query}", headers={"Host": parts.netloc})
        answer = slow.getresponse()
        assert answer.read(10) == BODY[:10]
        assert fault_proxy.began.is_set()
        slow.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            answer.read(1)
