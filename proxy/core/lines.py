"""The bytes of a request that are not yet read, given out as strict lines or as runs.

Owns the byte rules that hold for every line of a request's framing, be it the request line, a
field line, a chunk's size or a trailer: it ends in CRLF, never in a bare LF, has no CR inside, no
control character but HTAB, and a bounded length. Owns the shape of one field line too. Must never
know which line it is reading.

RFC 9112 section 2.2 lets a recipient take a bare LF for a line end and a bare CR for a space. Two
readers of one connection that choose differently disagree on where a request ends, so here both
are refused.

Source: RFC 9112 sections 2.2, 5.1 and 5.2; RFC 9110 sections 5.5 and 5.6.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from proxy.core.errors import HttpError, InvalidRequest

# Every control character but HTAB, which is white space in a field value (RFC 9110 section 5.5).
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""`token` of RFC 9110 section 5.6.2: methods, field names, connection options."""

_CR, _LF = 0x0D, 0x0A


class LineReader:
    """A buffer that is read from the front and looks at each byte once, however it was split."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        # No control character stands before this index, so the next search for one begins here.
        self._searched = 0

    def __len__(self) -> int:
        return len(self._buffer)

    def receive(self, data: bytes | bytearray) -> None:
        """Append what came from the peer."""
        self._buffer += data

    def clear(self) -> None:
        """Drop everything."""
        self._buffer.clear()
        self._searched = 0

    def take(self, most: int) -> bytes:
        """Remove and return up to `most` bytes from the front, whatever they are."""
        with memoryview(self._buffer) as view:
            run = bytes(view[:most])
        del self._buffer[: len(run)]
        self._searched = 0
        return run

    def take_line(self, limit: int, too_long: Callable[[], HttpError]) -> bytes | None:
        """Remove and return the next line without its CRLF, or None if it is not complete yet.

        A fault is found at its own byte, before the line is complete, so a client that speaks
        another protocol (TLS to a clear-text port, say) is answered at once.

        Args:
            limit: The most bytes the line may have, CRLF included.
            too_long: Makes the error for a line over the limit.

        Raises:
            InvalidRequest: The line has a control character, a bare CR or a bare LF.
            HttpError: What `too_long` made.
        """
        end = min(len(self._buffer), limit)
        found = _CONTROL.search(self._buffer, self._searched, end)
        self._searched = end if found is None else found.start()
        if self._searched + 1 >= limit:
            raise too_long()
        if found is None or not self._is_line_end(self._searched):
            return None
        line = self.take(self._searched)
        del self._buffer[:2]
        return line

    def _is_line_end(self, index: int) -> bool:
        """Return whether that control character begins a CRLF; False while its LF may yet come."""
        control = self._buffer[index]
        if control == _LF:
            raise InvalidRequest("A line of the request ends in a bare LF; end every line in CRLF.")
        if control != _CR:
            raise InvalidRequest("A line of the request has a control character in it; remove it.")
        if index + 1 == len(self._buffer):
            return False
        if self._buffer[index + 1] != _LF:
            raise InvalidRequest("A line of the request has a bare CR; end every line in CRLF.")
        return True


def split_field_line(line: bytes) -> tuple[bytes, bytes]:
    """Return the name, spelt as it came, and the value without the white space around it.

    Args:
        line: A non-empty line from `LineReader`, hence without control characters.

    Raises:
        InvalidRequest: The line continues the one before (obs-fold, section 5.2), has no colon, or
            has a name that is empty, not a token, or followed by white space (section 5.1).

    Source: RFC 9112 section 5.
    """
    if line[:1] in (b" ", b"\t"):
        raise InvalidRequest(
            "A header line begins with white space; write each header on one line."
        )
    name, colon, value = line.partition(b":")
    if not colon:
        raise InvalidRequest("A header line has no colon; write it as 'name: value'.")
    if name[-1:] in (b" ", b"\t"):
        raise InvalidRequest("A header has white space before its colon; remove it.")
    if TOKEN.fullmatch(name) is None:
        raise InvalidRequest("A header name is empty or has a character that names cannot have.")
    return name, value.strip(b" \t")
