"""The far end of a transfer process: one lane, fed from a socket instead of a thread."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Protocol

from snapd.model.settings import TransferSettings
from snapd.remote.base import Packed, Sink, SmallSink
from snapd.remote.curl_lane import Channel, Lane, Part
from snapd.remote.exchanges import Origin, Request
from snapd.remote.worker_frames import Message, answer_of, frame, origin_of

logger = logging.getLogger(__name__)


class WholeSink(Sink, SmallSink, Protocol):
    """A sink with both faces, whose owner is here."""

    def discard(self) -> None:
        """Forget what a failed attempt left; may be called again."""
        ...


MakeSink = Callable[[Packed], WholeSink]
"""Makes the sink that `SmallSink.packed` described."""


def serve(
    connection: socket.socket,
    messages: Iterable[Message],
    settings: TransferSettings,
    make_sink: MakeSink,
    *,
    lanes: int,
    set_up_log: Callable[[dict[str, Any]], None] = lambda _log: None,
) -> None:
    """Run what the messages ask for until they end; blocking.

    Everything that still runs then is stopped. `lanes` is how many share the connections that the
    settings allow. `set_up_log` is told how to log from now on.
    """
    far_end = FarEnd(connection, settings, make_sink, lanes, set_up_log)
    try:
        connection.sendall(frame(("ready",)))
        for message in messages:
            far_end.obey(message)
    except ConnectionError:
        # The node hung up, which is how it ends this process.
        pass
    finally:
        far_end.stop()


class FarEnd:
    """Does what the node asks for, message by message, and answers from the lane's thread."""

    def __init__(
        self,
        connection: socket.socket,
        settings: TransferSettings,
        make_sink: MakeSink,
        lanes: int,
        set_up_log: Callable[[dict[str, Any]], None],
    ) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._set_up_log = set_up_log
        self._make_sink = make_sink
        self._parts: dict[int, Part] = {}
        self._numbers: dict[Part, int] = {}
        self._sinks: dict[Part, list[WholeSink]] = {}
        self._channels: dict[int, Channel] = {}
        self._origins: dict[tuple[str, ...], Origin] = {}
        self._lane = Lane(settings, self._answer, "transfer", lanes=lanes)

    def obey(self, message: Message) -> None:
        """Do what one message asks for."""
        match message:
            case ("part", number, channel, in_flight_max, values, items):
                self._begin(number, self._channel(channel, in_flight_max), values, items)
            case ("cancel", number):
                if (part := self._parts.get(number)) is not None:
                    self._lane.cancel(part)
            case ("admit", channel, in_flight_max):
                self._lane.admit(self._channel(channel, in_flight_max), in_flight_max)
            case ("forget", channel):
                self._channels.pop(channel, None)
            case ("ping",):
                self._send(("pong",))
            case ("log", log):
                self._set_up_log(log)

    def stop(self) -> None:
        """Hang up and stop what runs; an answer would say that somebody had asked for that."""
        self._hang_up()
        self._lane.stop()

    def _hang_up(self) -> None:
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _channel(self, number: int, in_flight_max: int) -> Channel:
        return self._channels.setdefault(number, Channel(in_flight_max))

    def _begin(
        self, number: int, channel: Channel, values: tuple[str, ...], items: list[Message]
    ) -> None:
        if values not in self._origins:
            # Credentials changed, or another store's turn: one at a time is kept.
            self._origins = {values: origin_of(values)}
        requests, sinks = [], []
        for target, *packed in items:
            sink = self._make_sink(tuple(packed))
            sinks.append(sink)
            requests.append(Request("GET", target, sink, sink))
        part = Part(requests, self._origins[values], channel, _nobody_waits)
        self._parts[number] = part
        self._numbers[part] = number
        self._sinks[part] = sinks
        self._lane.submit(part)

    def _answer(self, ended: list[Part]) -> None:
        try:
            for part in ended:
                self._answer_one(part)
        except Exception:
            # The node would wait for an answer for ever, but not when the socket is closed.
            logger.exception("a transfer process can't answer")
            self._hang_up()

    def _answer_one(self, part: Part) -> None:
        number = self._numbers.pop(part)
        del self._parts[number]
        for sink, reply in zip(self._sinks.pop(part), part.replies, strict=True):
            if not reply.ok:
                with suppress(OSError):
                    sink.discard()
        asked = zip(part.replies, part.requests, strict=True)
        answers = [answer_of(reply, request.target) for reply, request in asked]
        self._send(("part", number, part.waited_seconds, answers))

    def _send(self, message: Message) -> None:
        # A node that hung up does not wait for answers any more.
        with self._sending, suppress(OSError):
            self._connection.sendall(frame(message))


def _nobody_waits(_part: Part) -> None:
    """Do nothing: the lane's report tells the node."""
