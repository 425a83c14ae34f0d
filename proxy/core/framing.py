"""Where each request on a connection begins and ends: a strict HTTP/1.1 framer without I/O.

Owns the order of things on one connection: a head, its body, the end, and only then the next head.
Its events are what the application is told; nobody parses the client's bytes a second time. A body
comes as payload alone, whatever its framing was. llama-server never sees these bytes either: it
gets what `runtime.upstream` writes from the events, so nothing is left for it to understand
differently. Must never know of sockets, time or responses: its caller says when the next may begin.

    HEAD -> LENGTH | CHUNKS | (no body) -> ENDING -> COMPLETE -> start_next_request() -> HEAD
    at the first fault, from any of them -> DEAD

It holds an incomplete line or head, and what its caller gave it beyond the current request;
payload is given out as it comes. A pipelined request waits inside, so the caller bounds it: it
receives no more while `held_bytes` is as much as it is willing to hold.

Source: RFC 9112.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from proxy.core.chunked import ChunkedReader
from proxy.core.errors import HttpError
from proxy.core.lines import LineReader
from proxy.core.request_head import HeadReader, RequestHead
from proxy.core.request_limits import Limits

__all__ = [
    "END_OF_REQUEST",
    "NEED_DATA",
    "BodyBytes",
    "Event",
    "Limits",
    "RequestFramer",
    "RequestHead",
    "Signal",
]

# About 2 ms of work, so that a client that sends chunks of a byte does not keep the others waiting.
_CHUNKS_AT_ONCE = 256


class Signal(Enum):
    """The events that carry nothing."""

    END_OF_REQUEST = auto()
    NEED_DATA = auto()


END_OF_REQUEST: Final = Signal.END_OF_REQUEST
"""The request is complete; nothing after it is read until `start_next_request`."""

NEED_DATA: Final = Signal.NEED_DATA
"""There is no event in what was received so far."""


@dataclass(frozen=True, slots=True)
class BodyBytes:
    """A piece of a request's body.

    Args:
        data: Payload without chunk framing; never empty.
    """

    data: bytes


Event = RequestHead | BodyBytes | Signal


class _State(Enum):
    HEAD = auto()
    LENGTH = auto()
    CHUNKS = auto()
    ENDING = auto()
    COMPLETE = auto()
    DEAD = auto()


class RequestFramer:
    """The requests of one connection, in order.

    Args:
        limits: What each request may cost.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._source = LineReader()
        self._state = _State.HEAD
        self._head = HeadReader(limits)
        self._chunks = ChunkedReader(limits)
        self._left_in_body = 0
        self._fault: HttpError | None = None

    @property
    def at_request_start(self) -> bool:
        """Whether a request may begin and no byte of it has come, so that closing cuts nothing off.

        An empty line before the request line is no byte of it.
        """
        return self._state is _State.HEAD and self._head.untouched and not self._source

    @property
    def held_bytes(self) -> int:
        """How many bytes were received and not yet given out."""
        return len(self._source)

    def receive_data(self, data: bytes | bytearray) -> None:
        """Take bytes from the client. After a fault they are dropped."""
        if self._state is not _State.DEAD:
            self._source.receive(data)

    def next_event(self) -> Event:
        """Return the next event in what was received.

        However the bytes were split, the events and the fault are the same; only the pieces in
        which a body comes differ. A fault is raised once. After it the framer is dead, for where
        the next request begins cannot be known: it drops what it receives and returns NEED_DATA.

        Raises:
            InvalidRequest: The request is malformed, or asks for what this server does not do.
            HeadTooLarge: Its head or its trailers are over a limit.
            BodyTooLarge: Its body is over the limit; one that announces it with its length has a
                head with this as its `refusal`, and raises here after that.
        """
        try:
            if self._fault is not None:
                raise self._fault
            return self._step()
        except HttpError:
            self._fault = None
            self._source.clear()
            self._state = _State.DEAD
            raise

    def start_next_request(self) -> None:
        """Let the next request begin, for the response to this one is complete.

        Raises:
            RuntimeError: END_OF_REQUEST was not given out yet; the caller has a defect.
        """
        if self._state is not _State.COMPLETE:
            raise RuntimeError("the current request has not ended")
        self._head = HeadReader(self._limits)
        self._state = _State.HEAD

    def _step(self) -> Event:
        match self._state:
            case _State.HEAD:
                return self._read_head()
            case _State.LENGTH:
                return self._read_length()
            case _State.CHUNKS:
                return self._read_chunks()
            case _State.ENDING:
                return self._end()
            case _State.COMPLETE | _State.DEAD:
                return NEED_DATA

    def _read_head(self) -> Event:
        head = self._head.read(self._source)
        if head is None:
            return NEED_DATA
        self._left_in_body = head.content_length or 0
        if head.refusal is not None:
            # Whoever reads the body all the same gets it.
            self._fault = head.refusal
        elif head.chunked:
            self._chunks = ChunkedReader(self._limits)
            self._state = _State.CHUNKS
        else:
            self._state = _State.LENGTH if self._left_in_body else _State.ENDING
        return head

    def _read_length(self) -> Event:
        run = self._source.take(self._left_in_body)
        self._left_in_body -= len(run)
        if not self._left_in_body:
            self._state = _State.ENDING
        return BodyBytes(run) if run else NEED_DATA

    def _read_chunks(self) -> Event:
        # One piece for all that came at once, so that chunks of a byte each cost the application
        # little.
        payload = self._take_chunks()
        if self._chunks.done:
            self._state = _State.ENDING
        if payload:
            return BodyBytes(payload)
        if self._fault is not None:
            raise self._fault
        return self._end() if self._chunks.done else NEED_DATA

    def _end(self) -> Event:
        self._state = _State.COMPLETE
        return END_OF_REQUEST

    def _take_chunks(self) -> bytes:
        runs: list[bytes] = []
        try:
            while len(runs) < _CHUNKS_AT_ONCE:
                run = self._chunks.read(self._source)
                if run is None:
                    break
                if run:
                    runs.append(run)
        except HttpError as fault:
            # What came before it is given out first, as when the bytes come one at a time.
            self._fault = fault
        return b"".join(runs)
