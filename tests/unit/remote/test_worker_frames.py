from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from snapd.model.errors import DigestMismatch
from snapd.remote.exchanges import Origin, Reply
from snapd.remote.worker_frames import Frames, answer_of, frame, origin_of, reply_of, values_of

MESSAGES = st.lists(st.tuples(st.text(), st.integers(), st.binary(), st.lists(st.integers())))


@given(MESSAGES, st.integers(1, 20))
def test_messages_arrive_whole_however_they_are_cut(messages: list[Any], piece_bytes: int) -> None:
    data = b"".join(map(frame, messages))
    frames = Frames()
    arrived: list[Any] = []
    for start in range(0, len(data), piece_bytes):
        arrived += frames.feed(data[start : start + piece_bytes])
    assert arrived == messages


def test_an_origin_is_the_same_again() -> None:
    origin = Origin("https://host", "here", "key", "secret", "token", "/ca.pem")
    again = origin_of(values_of(origin))
    assert values_of(again) == values_of(origin)


def test_a_good_reply_travels_in_two_values() -> None:
    facts = (5, 17, 100, 200)
    assert answer_of(Reply(status=206, size_bytes=5, facts=facts), "/x") == (5, facts)
    assert reply_of((5, facts)).facts == facts
    assert reply_of((5, None)).ok


def test_a_bad_reply_keeps_what_explains_it() -> None:
    error = DigestMismatch("it came wrong", hint="look", object="ab", quarantined="/q/ab")
    reply = Reply(
        status=503,
        body=b"<Code>SlowDown</Code>",
        head=[b"x: y"],
        curl_code=18,
        curl_message="cut",
        retry_after_seconds=3,
        error=error,
    )
    again = reply_of(answer_of(reply, "/x"))
    assert isinstance(again.error, DigestMismatch)
    assert again.error.to_json() == error.to_json()
    again.error = reply.error = None
    assert vars_of(again) == vars_of(reply)


def test_a_defect_is_told_with_what_was_asked() -> None:
    again = reply_of(answer_of(Reply(error=ZeroDivisionError("oh")), "/bucket/key"))
    assert "/bucket/key: ZeroDivisionError: oh" in str(again.error)


def vars_of(reply: Reply) -> dict[str, Any]:
    return {name: getattr(reply, name) for name in Reply.__slots__}
