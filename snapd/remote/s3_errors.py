"""What S3 and libcurl say, in the words of ours: one table for codes, one for libcurl's errors."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pycurl

from snapd.model.errors import (
    AccessDenied,
    ActionFailed,
    ConditionFailed,
    ConnectionLost,
    ConnectionRefused,
    CredentialsExpired,
    KeyMissing,
    NameNotResolved,
    SnapsyncError,
    Stalled,
    StoreFailing,
    StoreMissing,
    Throttled,
    TlsFailed,
)
from snapd.remote.base import item_error
from snapd.remote.exchanges import Reply

EXPIRED_CODES = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidToken",
        "RequestExpired",
        "TokenRefreshRequired",
    }
)
_UNSIGNED_BODY_CODES = frozenset(
    {"AccessDenied", "InvalidRequest", "SignatureDoesNotMatch", "XAmzContentSHA256Mismatch"}
)
_CODES: Mapping[str, type[SnapsyncError]] = {
    "NoSuchBucket": StoreMissing,
    "NoSuchKey": KeyMissing,
    "NoSuchUpload": ActionFailed,
    "PermanentRedirect": ActionFailed,
    "TemporaryRedirect": ActionFailed,
    "AuthorizationHeaderMalformed": ActionFailed,
    "AccessDenied": AccessDenied,
    "SignatureDoesNotMatch": AccessDenied,
    "InvalidAccessKeyId": AccessDenied,
    "RequestTimeTooSkewed": AccessDenied,
    "InvalidRange": KeyMissing,
    "SlowDown": Throttled,
    "ServiceUnavailable": Throttled,
    "TooManyRequests": Throttled,
    "RequestLimitExceeded": Throttled,
    "InternalError": StoreFailing,
    "BadDigest": StoreFailing,
    "XAmzContentSHA256Mismatch": StoreFailing,
    "ConditionalRequestConflict": StoreFailing,
    "OperationAborted": StoreFailing,
    "RequestTimeout": Stalled,
    "IncompleteBody": ConnectionLost,
    "PreconditionFailed": ConditionFailed,
}
_STATUSES: Mapping[int, type[SnapsyncError]] = {
    401: AccessDenied,
    403: AccessDenied,
    404: KeyMissing,
    408: Stalled,
    409: StoreFailing,
    412: ConditionFailed,
    416: KeyMissing,
    429: Throttled,
    503: Throttled,
}
_ELSEWHERE = "The bucket is in another region or at another endpoint: set `region`, `endpoint_url`."
_HINTS: Mapping[str, str] = {
    "PermanentRedirect": _ELSEWHERE,
    "TemporaryRedirect": _ELSEWHERE,
    "AuthorizationHeaderMalformed": _ELSEWHERE,
    "RequestTimeTooSkewed": "This node's clock is wrong: signatures carry the time.",
    "SignatureDoesNotMatch": "The secret key does not belong to the access key, or a proxy in"
    " between changes requests.",
    "InvalidAccessKeyId": "The store does not know this access key: check endpoint and profile.",
}
_CURL: Mapping[int, type[SnapsyncError]] = {
    pycurl.E_COULDNT_RESOLVE_HOST: NameNotResolved,
    pycurl.E_COULDNT_RESOLVE_PROXY: NameNotResolved,
    pycurl.E_COULDNT_CONNECT: ConnectionRefused,
    pycurl.E_SSL_CONNECT_ERROR: TlsFailed,
    pycurl.E_PEER_FAILED_VERIFICATION: TlsFailed,
    pycurl.E_SSL_CACERT_BADFILE: TlsFailed,
    pycurl.E_SSL_CERTPROBLEM: TlsFailed,
    pycurl.E_SSL_CIPHER: TlsFailed,
    pycurl.E_SSL_ISSUER_ERROR: TlsFailed,
    pycurl.E_SSL_CRL_BADFILE: TlsFailed,
    pycurl.E_SSL_INVALIDCERTSTATUS: TlsFailed,
    pycurl.E_SSL_ENGINE_INITFAILED: TlsFailed,
    pycurl.E_USE_SSL_FAILED: TlsFailed,
    pycurl.E_OPERATION_TIMEDOUT: Stalled,
    pycurl.E_RECV_ERROR: ConnectionLost,
    pycurl.E_SEND_ERROR: ConnectionLost,
    pycurl.E_SEND_FAIL_REWIND: ConnectionLost,
    pycurl.E_GOT_NOTHING: ConnectionLost,
    pycurl.E_PARTIAL_FILE: ConnectionLost,
}
_CODE = re.compile(rb"<Code>\s*([^<]+?)\s*</Code>")
_MESSAGE = re.compile(rb"<Message>\s*([^<]+?)\s*</Message>", re.DOTALL)
_DIGEST_HEADER = re.compile(rb"content-?md5", re.IGNORECASE)
_ACTUAL_SIZE = re.compile(rb"<ActualObjectSize>\s*(\d+)\s*</ActualObjectSize>")
_CONTENT_RANGE_SIZE = re.compile(r"bytes \*/(\d+)")


def code_of(reply: Reply) -> str:
    """Read the code of an error document, or an empty text."""
    found = _CODE.search(reply.body)
    return found[1].decode("utf-8", "replace") if found else ""


def is_expired(reply: Reply) -> bool:
    """Tell whether the store called the token expired."""
    return reply.status >= 400 and code_of(reply) in EXPIRED_CODES


def may_want_signed_body(reply: Reply) -> bool:
    """Tell whether an upload may have been refused because its body was not signed.

    A policy on `s3:x-amz-content-sha256` refuses it in the same words as a missing permission.
    """
    return reply.status in (400, 403) and code_of(reply) in _UNSIGNED_BODY_CODES


def wants_digest(reply: Reply) -> bool:
    """Tell whether an upload was refused because it did not say the digest of its body.

    So do buckets with Object Lock: "Content-MD5 OR x-amz-checksum- HTTP header is required ...".
    """
    return reply.status == 400 and _DIGEST_HEADER.search(reply.body) is not None


def moved_to(reply: Reply) -> str:
    """Read which region the bucket is in, if the answer says that it is in another one."""
    return reply.header("x-amz-bucket-region") if reply.status in (301, 307, 400, 403) else ""


def error_of(reply: Reply, name: str, endpoint: str) -> SnapsyncError:
    """Say why a request about `name`, the URI of a key or a bucket, came to nothing."""
    if reply.error is not None:
        return item_error(reply.error, name)
    if reply.curl_code:
        return _curl_error(reply, name, endpoint)
    return _answer_error(reply, name, endpoint)


def _curl_error(reply: Reply, name: str, endpoint: str) -> SnapsyncError:
    message = reply.curl_message or f"libcurl error {reply.curl_code}"
    if reply.curl_code == pycurl.E_COULDNT_CONNECT and "imed out" in message:
        return Stalled(f"{name}: connecting to {endpoint} timed out: {message}")
    kind = _CURL.get(reply.curl_code, StoreFailing)
    return kind(f"{name}: {_CAUSES.get(kind, 'no usable answer')} ({endpoint}): {message}")


_CAUSES: Mapping[type[SnapsyncError], str] = {
    NameNotResolved: "the host name has no address",
    ConnectionRefused: "the connection was refused",
    TlsFailed: "TLS failed",
    Stalled: "no byte arrived in time",
    ConnectionLost: "the connection was lost",
}


def _answer_error(reply: Reply, name: str, endpoint: str) -> SnapsyncError:
    code = code_of(reply)
    said = f"{reply.status} {code}".rstrip()
    found = _MESSAGE.search(reply.body)
    if found:
        said += f": {found[1].decode('utf-8', 'replace')[:300]}"
    if code in EXPIRED_CODES:
        return CredentialsExpired(f"{name}: the store says the credentials expired ({said})")
    kind = _CODES.get(code) or _STATUSES.get(reply.status) or _kind_of_rest(reply.status)
    message = f"{name}: {_STATED.get(kind, 'the store refused the request')} ({said}) at {endpoint}"
    return kind(message, hint=_HINTS.get(code), **_details(reply, kind))


_STATED: Mapping[type[SnapsyncError], str] = {
    StoreMissing: "the bucket does not exist",
    KeyMissing: "there is nothing at this key",
    AccessDenied: "access denied",
    Throttled: "the store asks to slow down",
    StoreFailing: "the store failed",
    Stalled: "the store waited in vain for the request",
    ConnectionLost: "the request arrived incomplete",
    ConditionFailed: "the key is not in the state this write was made for",
}


def _kind_of_rest(status: int) -> type[SnapsyncError]:
    # Below 400 only what an S3 server never answers: a portal, or a bucket in another region.
    return StoreFailing if status >= 500 or status < 400 else ActionFailed


def _details(reply: Reply, kind: type[SnapsyncError]) -> dict[str, int]:
    details: dict[str, int] = {"status": reply.status}
    if kind is Throttled and reply.retry_after_seconds > 0:
        details["retry_after_seconds"] = reply.retry_after_seconds
    if reply.status == 416:
        told = _CONTENT_RANGE_SIZE.fullmatch(reply.header("content-range"))
        size = told or _ACTUAL_SIZE.search(reply.body)
        if size:
            details["size_bytes"] = int(size[1])
    return details
