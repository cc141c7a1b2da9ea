"""What the S3 store says and does when the server, the network or the credentials fail."""

from __future__ import annotations

import os
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, closing
from dataclasses import replace
from hashlib import md5, sha256
from typing import Any

import anyio
import anyio.to_thread
import pytest

from snapd.model.errors import (
    AccessDenied,
    ActionFailed,
    ConditionFailed,
    ConnectionLost,
    ConnectionRefused,
    CredentialsExpired,
    CredentialsMissing,
    InvalidStoreUri,
    KeyMissing,
    NameNotResolved,
    SnapsyncError,
    SourceChanged,
    Stalled,
    StoreFailing,
    StoreMissing,
    Throttled,
    TlsFailed,
)
from snapd.model.settings import StoreSettings, TransferSettings
from snapd.model.uris import parse_store_uri
from snapd.remote.base import IF_ABSENT, ByteRange, Condition, Get, Got, ObjectInfo, Put, Stored
from snapd.remote.s3 import S3Store, open_s3
from snapd.remote.s3_multipart import PART_BYTES
from snapd.runtime.observer import SilentObserver
from tests.contract.sinks import RecordingSink, read
from tests.servers.faultproxy import Fault, FaultProxy
from tests.servers.ports import reserved_port
from tests.servers.seaweed import Seaweed

TRANSFER = TransferSettings(
    backoff_base_seconds=0.0,
    attempts_max=3,
    stall_timeout_seconds=3.0,
    connect_timeout_seconds=20.0,
)
BODY = bytes(range(256)) * 4096
Opener = Callable[..., AbstractAsyncContextManager[S3Store]]


@pytest.fixture
def uri(s3_prefix: Callable[[], str]) -> str:
    return s3_prefix()


@pytest.fixture
def opened(
    seaweed: Seaweed, fault_proxy: FaultProxy, uri: str, monkeypatch: pytest.MonkeyPatch
) -> Opener:
    for name, value in seaweed.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")

    def open_it(text: str = uri, **changes: Any) -> AbstractAsyncContextManager[S3Store]:
        settings = replace(StoreSettings(text, endpoint_url=fault_proxy.url), **changes)
        return open_s3(parse_store_uri(text), settings, TRANSFER, SilentObserver())

    return open_it


@pytest.fixture
async def store(opened: Opener) -> AsyncIterator[S3Store]:
    async with opened() as store:
        await store.put("a", BODY)
        yield store


async def failure(store: S3Store, key: str = "a") -> SnapsyncError:
    sink = RecordingSink()
    [outcome] = await store.get_batch([Get(key, sink)])
    assert isinstance(outcome, SnapsyncError), outcome
    assert "finish" not in sink.calls
    assert f"{store.uri}/{key}" in outcome.message
    return outcome


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        (Fault("reset"), ConnectionLost, "the connection was lost"),
        (Fault("close", after_bytes=1000), ConnectionLost, "the connection was lost"),
        (Fault("cut", after_bytes=1000), ConnectionLost, "the connection was lost"),
        (Fault("stall", after_bytes=1000), Stalled, "no byte arrived"),
        (Fault("hang"), Stalled, "no byte arrived"),
        (Fault("answer", status=500, code="InternalError"), StoreFailing, "500 InternalError"),
        (Fault("answer", status=502, code=""), StoreFailing, "502"),
        (Fault("answer", status=504, code=""), StoreFailing, "504"),
        (Fault("answer", status=503, code="SlowDown"), Throttled, "503 SlowDown"),
        (Fault("answer", status=429, code=""), Throttled, "429"),
        (Fault("answer", status=403, code="AccessDenied"), AccessDenied, "403 AccessDenied"),
        (Fault("answer", status=404, code="NoSuchBucket"), StoreMissing, "404 NoSuchBucket"),
        (Fault("answer", status=404, code=""), KeyMissing, "404"),
        (Fault("answer", status=400, code="RequestTimeout"), Stalled, "400 RequestTimeout"),
        (Fault("answer", status=400, code="Odd"), ActionFailed, "400 Odd: planned fault"),
        (Fault("answer", status=302, code=""), StoreFailing, "302"),
        (Fault("answer", status=301, code="PermanentRedirect"), ActionFailed, "301"),
    ],
    ids=lambda value: f"{value.kind}-{value.status}" if isinstance(value, Fault) else None,
)
async def test_every_failure_says_its_cause(
    store: S3Store, fault_proxy: FaultProxy, fault: Fault, kind: type[SnapsyncError], said: str
) -> None:
    fault_proxy.plan(replace(fault, method="GET", times=None))
    asked_before = fault_proxy.count()
    error = await failure(store)
    assert type(error) is kind
    assert said in error.message
    assert fault_proxy.url in error.message
    # libcurl itself asks again when a connection that it used before ends without a byte.
    asked = fault_proxy.count() - asked_before
    assert asked == (2 if fault.kind == "reset" else 1)


async def test_a_throttled_answer_says_for_how_long(
    store: S3Store, fault_proxy: FaultProxy
) -> None:
    fault_proxy.plan(Fault("answer", status=503, headers={"Retry-After": "7"}))
    assert (await failure(store)).details["retry_after_seconds"] == 7
    date = "Wed, 01 Jan 2200 00:00:00 GMT"
    fault_proxy.plan(Fault("answer", status=429, headers={"Retry-After": date}))
    assert (await failure(store)).details["retry_after_seconds"] > 1000


async def test_a_connection_that_died_while_idle_is_no_failure(
    store: S3Store, fault_proxy: FaultProxy
) -> None:
    fault_proxy.plan(Fault("answer", status=500, headers={"Connection": "close"}))
    await failure(store)
    assert await read(store, "a") == BODY


async def test_nobody_listens(opened: Opener) -> None:
    with reserved_port() as port:
        async with opened(endpoint_url=f"http://127.0.0.1:{port}") as store:
            assert isinstance(await failure(store), ConnectionRefused)


async def test_a_name_without_address(opened: Opener) -> None:
    async with opened(endpoint_url="http://no-such-host.invalid") as store:
        error = await failure(store)
    assert isinstance(error, NameNotResolved)
    assert "no-such-host.invalid" in error.message


async def test_a_certificate_that_nobody_vouches_for(opened: Opener, seaweed: Seaweed) -> None:
    async with opened(endpoint_url=seaweed.https_endpoint_url) as store:
        assert isinstance(await failure(store), TlsFailed)
    async with opened(
        endpoint_url=seaweed.https_endpoint_url, ca_file=str(seaweed.ca_file)
    ) as store:
        assert isinstance(await failure(store, "absent"), KeyMissing)


async def test_a_server_that_speaks_no_http(opened: Opener) -> None:
    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(100)
            connection.sendall(b"SSH-2.0-OpenSSH\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with (
            opened(endpoint_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as store,
            anyio.create_task_group() as group,
        ):
            group.start_soon(anyio.to_thread.run_sync, answer, listener)
            assert isinstance(await failure(store), StoreFailing)


async def test_wrong_keys_are_named_for_what_they_are(
    opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    async with opened() as store:
        error = await failure(store)
        [looked] = await store.head_batch(["a"])
    assert isinstance(error, AccessDenied)
    assert "SignatureDoesNotMatch" in error.message
    assert isinstance(looked, AccessDenied)
    assert "SignatureDoesNotMatch" in looked.message
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    async with opened() as store:
        error = await failure(store)
    assert isinstance(error, AccessDenied)
    assert "InvalidAccessKeyId" in error.message


# Credentials in use


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidToken", "RequestExpired"])
async def test_an_expired_token_is_renewed_once(
    store: S3Store, fault_proxy: FaultProxy, code: str
) -> None:
    fault_proxy.plan(Fault("answer", status=403, code=code))
    assert await read(store, "a") == BODY
    assert fault_proxy.count("GET") == 2


async def test_a_token_that_stays_expired_is_final(store: S3Store, fault_proxy: FaultProxy) -> None:
    fault_proxy.plan(Fault("answer", method="GET", times=None, status=400, code="ExpiredToken"))
    assert isinstance(await failure(store), CredentialsExpired)
    assert fault_proxy.count("GET") == 2


async def test_credentials_that_vanish_are_each_items_outcome(
    store: S3Store, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    fault_proxy.plan(Fault("answer", status=403, code="ExpiredToken", times=None))
    gets = [Get("a", RecordingSink()) for _ in range(2)]
    first = await store.get_batch(gets)
    assert [type(outcome) for outcome in first] == [CredentialsMissing] * 2
    second = await store.get_batch(gets)
    assert [type(outcome) for outcome in second] == [CredentialsMissing] * 2


async def test_a_look_with_an_expired_token_is_repeated(
    store: S3Store, fault_proxy: FaultProxy
) -> None:
    fault_proxy.plan(
        Fault("answer", method="HEAD", status=400), Fault("answer", status=400, code="ExpiredToken")
    )
    [info] = await store.head_batch(["a"])
    assert isinstance(info, ObjectInfo)
    assert info.size_bytes == len(BODY)
    assert [one.method for one in fault_proxy.seen[-3:]] == ["HEAD", "GET", "HEAD"]


async def test_a_session_token_is_sent_and_signed(
    opened: Opener, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-token")
    fault_proxy.plan(Fault("answer", status=404, code="NoSuchKey"))
    async with opened() as store:
        await failure(store)
    headers = fault_proxy.seen[-1].headers
    assert headers["x-amz-security-token"] == "a-token"
    assert "x-amz-security-token" in headers["authorization"]


def payload_hashes(proxy: FaultProxy) -> list[str]:
    puts = [one for one in proxy.seen if one.method == "PUT"]
    return [one.headers["x-amz-content-sha256"] for one in puts]


@pytest.fixture
def tls_proxy(seaweed: Seaweed) -> Iterator[FaultProxy]:
    directory = seaweed.ca_file.parent
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "leaf.pem", directory / "leaf.key")
    with FaultProxy.running(seaweed.endpoint_url, context) as proxy:
        yield proxy


async def test_a_store_that_refuses_unsigned_bodies_gets_signed_ones_from_then_on(
    opened: Opener, tls_proxy: FaultProxy, seaweed: Seaweed
) -> None:
    tls_proxy.plan(Fault("answer", method="PUT", status=403, code="AccessDenied", times=2))
    async with opened(endpoint_url=tls_proxy.url, ca_file=str(seaweed.ca_file)) as store:
        puts = [Put(name, lambda: BODY, len(BODY)) for name in ("a", "b")]
        assert all(isinstance(one, Stored) for one in await store.put_batch(puts))
        await store.put("c", BODY)
        assert await read(store, "b") == BODY
    signed = sha256(BODY).hexdigest()
    assert payload_hashes(tls_proxy) == ["UNSIGNED-PAYLOAD"] * 2 + [signed] * 3


@pytest.mark.parametrize("tls", [True, False], ids=["https", "http"])
async def test_a_bucket_with_object_lock_is_told_the_digest_of_each_body(
    tls: bool,
    opened: Opener,
    tls_proxy: FaultProxy,
    fault_proxy: FaultProxy,
    seaweed: Seaweed,
) -> None:
    proxy = tls_proxy if tls else fault_proxy
    said = "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests"
    refusal = Fault("answer", method="PUT", status=400, code="InvalidRequest", times=None)
    message = f"{said} with Object Lock parameters"
    proxy.plan(replace(refusal, message=message, lacking="content-md5"))
    large = os.urandom(PART_BYTES + 7)

    async def parts() -> AsyncIterator[bytes]:
        yield large[:PART_BYTES]
        yield large[PART_BYTES:]

    ca_file = str(seaweed.ca_file) if tls else ""
    async with opened(endpoint_url=proxy.url, ca_file=ca_file) as store:
        puts = [Put("a", lambda: b"a", 1), Put("b", lambda: b"b", 1)]
        assert all(isinstance(one, Stored) for one in await store.put_batch(puts))
        await store.put("c", BODY)
        await store.put_large("d", parts(), size_bytes=len(large))
        assert await read(store, "b") == b"b"
        assert await read(store, "d") == large
    sent = [one for one in proxy.seen if one.method == "PUT"]
    told = [one.headers.get("content-md5") for one in sent]
    bodies = [b"a", b"b", BODY, large[:PART_BYTES], large[PART_BYTES:]]
    assert told[:2] == [None, None]
    assert sorted(filter(None, told)) == sorted(
        b64encode(md5(body, usedforsecurity=False).digest()).decode() for body in bodies
    )
    unsigned = ["UNSIGNED-PAYLOAD" in hash_ for hash_ in payload_hashes(proxy)]
    assert unsigned == [tls] * len(sent), "a body that TLS proves is not signed for that"


async def test_a_store_may_want_signed_bodies_first_and_then_their_digests(
    opened: Opener, tls_proxy: FaultProxy, seaweed: Seaweed
) -> None:
    lacking = Fault("answer", method="PUT", status=400, code="InvalidRequest", times=None)
    tls_proxy.plan(
        Fault("answer", method="PUT", status=403, code="AccessDenied"),
        replace(lacking, message="Content-MD5 is required", lacking="content-md5"),
    )
    async with opened(endpoint_url=tls_proxy.url, ca_file=str(seaweed.ca_file)) as store:
        await store.put("a", BODY)
        assert await read(store, "a") == BODY
    assert tls_proxy.count("PUT") == 3


async def test_who_may_not_write_is_told_so_after_one_more_try(
    opened: Opener, tls_proxy: FaultProxy, seaweed: Seaweed
) -> None:
    tls_proxy.plan(Fault("answer", method="PUT", status=403, code="AccessDenied", times=None))
    async with opened(endpoint_url=tls_proxy.url, ca_file=str(seaweed.ca_file)) as store:
        for _ in range(2):
            with pytest.raises(AccessDenied):
                await store.put("a", BODY)
    signed = sha256(BODY).hexdigest()
    assert payload_hashes(tls_proxy) == ["UNSIGNED-PAYLOAD", signed, signed]


async def test_without_identity_nothing_is_signed(opened: Opener, fault_proxy: FaultProxy) -> None:
    async with opened(anonymous=True) as store:
        assert isinstance(await failure(store), AccessDenied)
    assert "authorization" not in fault_proxy.seen[-1].headers


async def test_the_region_that_the_store_names_is_used_from_then_on(
    store: S3Store, fault_proxy: FaultProxy
) -> None:
    moved = {"x-amz-bucket-region": "eu-west-1"}
    fault_proxy.plan(Fault("answer", status=301, code="PermanentRedirect", headers=moved))
    assert await read(store, "a") == BODY
    assert await read(store, "a") == BODY
    scopes = [one.headers["authorization"].split("/")[2] for one in fault_proxy.seen[-3:]]
    assert scopes == ["us-east-1", "eu-west-1", "eu-west-1"]


# Ranges


async def test_a_range_behind_the_end_tells_the_size(store: S3Store) -> None:
    [outcome] = await store.get_batch([Get("a", RecordingSink(), ByteRange(len(BODY), 1))])
    assert isinstance(outcome, KeyMissing)
    assert outcome.details["size_bytes"] == len(BODY)


async def test_a_server_that_ignores_ranges_is_found_out(
    store: S3Store, fault_proxy: FaultProxy
) -> None:
    fault_proxy.plan(Fault("answer", status=200))
    sink = RecordingSink()
    [outcome] = await store.get_batch([Get("a", sink, ByteRange(5, 10))])
    assert isinstance(outcome, StoreFailing)
    assert sink.calls == ["start"]


async def test_a_handle_forgets_the_range_of_its_last_request(store: S3Store) -> None:
    sink = RecordingSink()
    assert await store.get_batch([Get("a", sink, ByteRange(3, 7))]) == [Got(7)]
    assert sink.body == BODY[3:10]
    assert await read(store, "a") == BODY


# Conditions


async def test_a_store_without_conditions_gets_plain_puts(
    store: S3Store, fault_proxy: FaultProxy
) -> None:
    fault_proxy.plan(Fault("answer", method="PUT", status=501, code="NotImplemented"))
    [outcome] = await store.put_batch([Put("b", lambda: b"b", 1)])
    assert isinstance(outcome, Stored)
    conditions = [one.headers.get("if-none-match", "") for one in fault_proxy.seen[-2:]]
    assert conditions == ["*", ""]
    await store.put_batch([Put("c", lambda: b"c", 1)])
    assert "if-none-match" not in fault_proxy.seen[-1].headers
    with pytest.raises(ActionFailed, match="no conditional writes"):
        await store.put("b", b"c", IF_ABSENT)
    assert (await store.get("b", limit_bytes=10)).data == b"b"


async def test_a_conflict_of_two_conditional_writes_may_be_repeated(
    store: S3Store, fault_proxy: FaultProxy
) -> None:
    fault_proxy.plan(Fault("answer", status=409, code="ConditionalRequestConflict"))
    with pytest.raises(StoreFailing) as caught:
        await store.put("b", b"b", IF_ABSENT)
    assert caught.value.retryable


async def test_a_document_that_vanished_fails_its_condition(
    store: S3Store, fault_proxy: FaultProxy
) -> None:
    fault_proxy.plan(Fault("answer", status=404, code="NoSuchKey"))
    with pytest.raises(ConditionFailed):
        await store.put("b", b"b", Condition("if_match", '"etag"'))


async def test_google_is_asked_without_conditions(opened: Opener, fault_proxy: FaultProxy) -> None:
    async with opened("gs://shared/google") as store:
        await store.put_batch([Put("b", lambda: b"b", 1)])
        with pytest.raises(ActionFailed, match="no conditional writes"):
            await store.put("b", b"b", IF_ABSENT)
        assert await read(store, "b") == b"b"
    assert fault_proxy.count("PUT") == 1
    assert "if-none-match" not in fault_proxy.seen[0].headers
    assert "/auto/s3/" in fault_proxy.seen[0].headers["authorization"]


# Large objects


async def parts_of(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def uploads_left(seaweed: Seaweed, store: S3Store) -> list[Any]:
    with closing(seaweed.client()) as client:
        answer = client.list_multipart_uploads(Bucket="shared", Prefix=store.uri.path)
        uploads: list[Any] = answer.get("Uploads", [])
        return uploads


async def test_a_part_that_fails_is_sent_again(store: S3Store, fault_proxy: FaultProxy) -> None:
    parts = [bytes([number]) * store.large_part_bytes for number in range(3)]
    fault_proxy.plan(
        Fault("reset", path="partNumber=2"),
        Fault("answer", path="partNumber=3", status=503),
        Fault("answer", method="POST", path="uploadId", status=200, code="InternalError"),
    )
    size_bytes = sum(map(len, parts))
    stored = await store.put_large("large", parts_of(*parts), size_bytes=size_bytes)
    assert not stored.existed
    assert await read(store, "large") == b"".join(parts)


async def test_a_completion_whose_answer_was_lost_is_settled(
    store: S3Store, fault_proxy: FaultProxy
) -> None:
    body = bytes(store.large_part_bytes + 1)
    fault_proxy.plan(Fault("lose_answer", method="POST", path="uploadId"))
    parts = parts_of(body[:-1], body[-1:])
    stored = await store.put_large("large", parts, size_bytes=len(body), if_absent=False)
    assert not stored.existed
    [info] = await store.head_batch(["large"])
    assert isinstance(info, ObjectInfo)
    assert info.size_bytes == len(body)


async def test_an_upload_that_fails_is_aborted(
    store: S3Store, fault_proxy: FaultProxy, seaweed: Seaweed
) -> None:
    fault_proxy.plan(
        Fault("answer", path="partNumber=2", times=None, status=403, code="AccessDenied")
    )
    parts = parts_of(bytes(store.large_part_bytes), b"end")
    with pytest.raises(AccessDenied, match="large"):
        await store.put_large("large", parts, size_bytes=store.large_part_bytes + 3)
    assert uploads_left(seaweed, store) == []
    assert fault_proxy.count("DELETE", "uploadId") == 1


async def test_an_upload_that_is_cancelled_is_aborted(
    store: S3Store, fault_proxy: FaultProxy, seaweed: Seaweed
) -> None:
    fault_proxy.plan(Fault("hang", path="partNumber=1", times=None))

    async def put() -> None:
        parts = parts_of(bytes(store.large_part_bytes), b"end")
        await store.put_large("large", parts, size_bytes=store.large_part_bytes + 3)

    async with anyio.create_task_group() as group:
        group.start_soon(put)
        await anyio.to_thread.run_sync(fault_proxy.began.wait, 10)
        group.cancel_scope.cancel()
    assert uploads_left(seaweed, store) == []


async def test_a_source_that_ends_early_leaves_no_upload(store: S3Store, seaweed: Seaweed) -> None:
    with pytest.raises(SourceChanged, match="large"):
        await store.put_large("large", parts_of(b"short"), size_bytes=100)
    assert uploads_left(seaweed, store) == []


# The rest


async def test_cancelling_hangs_up_on_a_server_that_does_not_answer(
    store: S3Store, fault_proxy: FaultProxy
) -> None:
    fault_proxy.plan(Fault("hang", times=None))
    async with anyio.create_task_group() as group:
        group.start_soon(store.get_batch, [Get("a", RecordingSink())] * 20)
        await anyio.to_thread.run_sync(fault_proxy.began.wait, 10)
        began = anyio.current_time()
        group.cancel_scope.cancel()
    assert anyio.current_time() - began < 0.5
    fault_proxy.plan()
    assert await read(store, "a") == BODY


async def test_a_slow_but_steady_body_arrives(store: S3Store, fault_proxy: FaultProxy) -> None:
    fault_proxy.plan(Fault("trickle", chunk_bytes=64 * 1024, seconds=0.1))
    assert await read(store, "a") == BODY


async def test_a_prefix_that_http_would_shorten_is_refused(opened: Opener) -> None:
    with pytest.raises(InvalidStoreUri, match=r"a/\.\./b"):
        async with opened("s3://shared/a/../b"):
            pass


async def test_the_empty_prefix_is_the_bucket_itself(opened: Opener, uri: str) -> None:
    key = uri.removeprefix("s3://shared/") + "/x"
    async with opened("s3://shared") as store:
        await store.put(key, b"x")
        assert [info.key async for info in store.list(key)] == [key]
