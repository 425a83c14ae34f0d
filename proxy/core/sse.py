"""The event-stream format, read and written.

Owns the codec: bytes to events however they are cut, and events to bytes. Knows nothing of what
the data means (`core.dialects` does) or where the bytes come from.

The decoder holds at most one unfinished line and one unfinished event, both bounded together by
`max_event_bytes`.

Source: WHATWG HTML, section 9.2 "Server-sent events" ("interpreting an event stream").
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from proxy.core.errors import ProxyError

# One event of llama-server's is a few hundred bytes; the last of a long answer repeats all of its
# text (`response.completed`). 16 MiB is a hundred times the largest context's text.
MAX_EVENT_BYTES = 16 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(r"\r\n|\r|\n")


class EventTooLarge(ProxyError):
    """An event, or a line, is larger than the decoder may hold."""


@dataclass(frozen=True, slots=True)
class Event:
    """One dispatched event.

    Attributes:
        event: Its type, `message` where the stream named none.
        data: Its data lines, joined by a newline.
        id: The last id that the stream has named so far; None before the first.
    """

    event: str
    data: str
    id: str | None = None


class EventDecoder:
    """Turns the bytes of one event stream into events.

    What is unfinished when the stream ends is no event, as the specification says: whoever reads
    just stops feeding.

    Args:
        max_event_bytes: How large one event may be, with its field names; at least 1.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._line: list[bytes] = []
        self._line_bytes = 0
        self._data_bytes = 0
        self._at_start = True
        self._after_cr = False
        self._last_id: str | None = None
        self._type = ""
        self._data: list[str] = []

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that `data` completes.

        Raises:
            EventTooLarge: An event is over the limit; the decoder is then of no further use.
        """
        events: list[Event] = []
        for piece in data.splitlines(keepends=True):
            line = self._take(piece)
            if line is not None:
                event = self._interpret(line)
                if event is not None:
                    events.append(event)
        return events

    def _take(self, piece: bytes) -> bytes | None:
        """Return the line that `piece` ends; None while it is unfinished."""
        after_cr, self._after_cr = self._after_cr, piece.endswith(b"\r")
        if after_cr and piece == b"\n":
            # The second half of a CR LF that was cut in two.
            return None
        self._line_bytes += len(piece)
        if self._line_bytes + self._data_bytes > self._max_event_bytes:
            raise EventTooLarge(f"An event is larger than {self._max_event_bytes} bytes.")
        self._line.append(piece)
        if not piece.endswith((b"\r", b"\n")):
            return None
        line = b"".join(self._line).rstrip(b"\r\n")
        self._line.clear()
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(_BOM)
        return line

    def _interpret(self, line: bytes) -> Event | None:
        line_bytes, self._line_bytes = self._line_bytes, 0
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        text = value.removeprefix(b" ").decode("utf-8", "replace")
        if name == b"data":
            # The only lines that add up: a type or an id replaces the last one, and a comment is
            # over with its line, so that a day of heartbeats is not one large event.
            self._data_bytes += line_bytes
            self._data.append(text)
        elif name == b"event":
            self._type = text
        elif name == b"id" and "\0" not in text:
            self._last_id = text
        return None

    def _dispatch(self) -> Event | None:
        event = None
        if self._data:
            event = Event(self._type or "message", "\n".join(self._data), self._last_id)
        self._begin_event()
        return event

    def _begin_event(self) -> None:
        self._data_bytes = 0
        self._type = ""
        self._data = []


def encode(data: str, event: str | None = None, id: str | None = None) -> bytes:  # noqa: A002
    """Return one event as bytes.

    Args:
        data: Any text; its lines become data lines, its line ends newlines.
        event: The type; None for `message`.
        id: The event's id.

    Raises:
        ValueError: `event` or `id` has a line end, or `id` a NUL.
    """
    lines = [f"data: {line}" for line in _LINE_END.split(data)]
    if event is not None:
        lines.insert(0, f"event: {_single_line(event)}")
    if id is not None:
        if "\0" in id:
            raise ValueError("an event's id must not have a NUL")
        lines.insert(0, f"id: {_single_line(id)}")
    return ("\n".join(lines) + "\n\n").encode()


def comment(text: str) -> bytes:
    """Return a comment as bytes: what keeps a silent connection open and no client shows."""
    return "".join(f": {line}\n" for line in _LINE_END.split(text)).encode() + b"\n"


def _single_line(text: str) -> str:
    if _LINE_END.search(text):
        raise ValueError("an event's type and id are one line each")
    return text
