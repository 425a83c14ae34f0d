"""Event streams on their way to a client: whole events only, and the chunks that carry them.

Owns the rule that of an event stream nothing is sent but whole events, so that an error event can
follow at any time (promise P3), and the passage of such a stream from llama-server's framing to the
client's. A piece that is whole chunks of whole events is passed on as it is, framing and all: then
an event costs one look at its ends. Nothing is parsed.

Source: WHATWG HTML, section 9.2; RFC 9112 section 7.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from proxy.core.passing import Passing
from proxy.core.response_body import ResponseBody

# llama-server ends every event with the first (`tools/server/server-common.cpp`); a server in
# front of it may write lines anew.
_EVENT_ENDS = (b"\n\n", b"\r\n\r\n")
_LF = 0x0A
_CHUNK_OF_EVENTS_END = b"\n\n\r\n"
# As llama-server writes it. What else a size line may have (extensions, white space) is for us, and
# not every client takes it: such chunks are made anew.
_PLAIN_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
# A token's event is 200 to 400 bytes. The size line that such a piece begins with, if it is one
# chunk, follows from its length: to compare it costs a fifth of reading it.
_SHORT = 1024
# An event that is longer is passed on in pieces: promise P4 allows 256 KiB for a whole client.
MAX_HELD = 64 * 1024


@dataclass(slots=True)
class SentCounts:
    """What a client was sent of one answer: bytes of body, and how many events went into it.

    An event is a token as a rule; for a client that asked for no stream it is counted all the same.
    """

    bytes: int = 0
    events: int = 0


class WholeEvents:
    """Holds back the beginning of an event until its end has come.

    Attributes:
        inside_event: Whether the client has the beginning of an event and not its end: one too
            large to be held was passed on in pieces.
    """

    def __init__(self) -> None:
        self._held = b""
        self.inside_event = False

    @property
    def holds(self) -> bool:
        """Whether the beginning of an event is held."""
        return bool(self._held)

    def feed(self, data: bytes) -> bytes:
        """Return what the client may have of `data` and of what was held."""
        data = self._held + data
        end = _end_of_events(data)
        if end:
            self.inside_event = False
        elif len(data) <= MAX_HELD:
            end = 0
        else:
            end = _end_of_text(data)
            self.inside_event = True
        self._held = data[end:]
        return data[:end]

    def take_held(self) -> bytes:
        """Return what is held and hold it no more."""
        held, self._held = self._held, b""
        return held


class EventPassage:
    """An event stream from llama-server's framing to chunks for an HTTP/1.1 client.

    Args:
        body: The body as far as it has been read; the passage reads on.
        events: What the client has of the last event; shared with whoever writes before and after.
        sent: Counted on.
        passing: Is told of each piece.

    Attributes:
        over: Whether nothing more is to come: the stream's end has come, or it is broken.
    """

    def __init__(
        self, body: ResponseBody, events: WholeEvents, sent: SentCounts, passing: Passing
    ) -> None:
        self._body = body
        self._events = events
        self._sent = sent
        self._passing = passing
        self.over = body.over
        self._at_start = self._is_at_start()

    @property
    def complete(self) -> bool:
        """Whether the stream's proper end has come."""
        return self._body.complete

    def feed(self, data: bytes) -> bytes:
        """Return the bytes for the client's socket."""
        if self._at_start and data.endswith(_CHUNK_OF_EVENTS_END):
            size = len(data)
            line = _LINE_OF_ONE[size] if size < _SHORT else b"\0"
            if data.startswith(line) and data[len(line)] != _LF:
                payload_bytes = size - len(line) - 2
            else:
                payload_bytes = _payload_of_whole_chunks(data)
            if payload_bytes:
                self._note(data, payload_bytes)
                return data
        payload = self._events.feed(self._body.feed(data))
        self.over, self._at_start = self._body.over, self._is_at_start()
        if not payload:
            return b""
        self._note(payload, len(payload))
        return b"%x\r\n%b\r\n" % (len(payload), payload)

    def end(self) -> bool:
        """Take the end of llama-server's connection; return whether it is the stream's too."""
        return self._body.end()

    def _is_at_start(self) -> bool:
        return (
            self._body.at_chunk_start() and not self._events.holds and not self._events.inside_event
        )

    def _note(self, data: bytes, payload_bytes: int) -> None:
        sent = self._sent
        sent.bytes += payload_bytes
        sent.events += data.count(b"\n\n")
        self._passing.note(data)


def _payload_of_whole_chunks(data: bytes) -> int:
    """Return how many bytes of payload `data` has, if it is whole plain chunks; else 0.

    Of the last one, the two bytes before its CRLF have to be payload: `1 CRLF LF CRLF` is one line
    feed, which looks like two; and so does one that begins a chunk, where events are counted.
    """
    at = overhead = size = 0
    while at < len(data):
        found = _PLAIN_SIZE_LINE.match(data, at)
        if found is None:
            return 0
        size, start = int(found[1], 16), found.end()
        end = start + size
        if not size or data[start] == _LF or data[end : end + 2] != b"\r\n":
            return 0
        overhead += start - at + 2
        at = end + 2
    return len(data) - overhead if size > 1 else 0


def _end_of_events(data: bytes) -> int:
    """Return where the last whole event in `data` ends; 0 without one."""
    return max(at + len(end) if (at := data.rfind(end)) >= 0 else 0 for end in _EVENT_ENDS)


def _end_of_text(data: bytes) -> int:
    """Return where what may be the beginning of an event's end begins, at the end of `data`."""
    tail = data[1 - len(_EVENT_ENDS[1]) :]
    return len(data) - len(tail) + len(tail.rstrip(b"\r\n"))


def _line_of_one_chunk(size: int) -> bytes:
    """Return the size line with which `size` bytes begin if they are one chunk with a payload."""
    for digits in range(1, 9):
        payload = size - digits - 4
        line = b"%x\r\n" % max(payload, 0)
        if payload > 1 and len(line) == digits + 2:
            return line
    return b"\0"


_LINE_OF_ONE = tuple(_line_of_one_chunk(size) for size in range(_SHORT))
