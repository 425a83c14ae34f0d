"""The body of one response of llama-server's: payload out of its framing, and its exact end.

Owns the three framings that a response's body can have, and tells a body that is complete from one
that was cut. Must never know what the payload is, nor how the head was read that said the framing
(`runtime.response_head`).

Nothing is held but an unfinished size line or trailer, which are bounded.

Source: RFC 9112 sections 6.3, 7.1 and 8.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable

# Eight digits say 4 GiB, more than any chunk has. Extensions have no meaning to us.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n")
# Of a size line or a trailer, with its CRLF. llama-server's size lines have 4 to 7 bytes, and it
# sends no trailers.
_MAX_LINE = 4096
_CRLF = b"\r\n"


class ResponseBody(ABC):
    """One body, whatever its framing.

    Attributes:
        complete: Whether its proper end has come.
        broken: Whether its framing is not what HTTP has; nothing more of it is read then.
    """

    complete = False
    broken = False

    @property
    def over(self) -> bool:
        """Whether nothing more of it is read."""
        return self.complete or self.broken

    @abstractmethod
    def feed(self, data: bytes) -> bytes:
        """Return the payload in `data`, as far as it is well framed."""

    def at_chunk_start(self) -> bool:
        """Tell whether the next byte begins a chunk."""
        return False

    def end(self) -> bool:
        """Take the end of the connection; return whether it is the body's proper end too."""
        return self.complete


class SizedBody(ResponseBody):
    """A body whose head said its length; bytes behind it are dropped.

    Args:
        length: In bytes; 0 for a response that has no body.
    """

    def __init__(self, length: int) -> None:
        self._left = length
        self.complete = length == 0

    def feed(self, data: bytes) -> bytes:
        """Return `data` up to the body's end."""
        payload = data[: self._left]
        self._left -= len(payload)
        self.complete = self._left == 0
        return payload


class BodyToClose(ResponseBody):
    """A body that ends with its connection."""

    def feed(self, data: bytes) -> bytes:
        """Return `data`."""
        return data

    def end(self) -> bool:
        """Take the end of the connection, which is the body's."""
        self.complete = True
        return True


class ChunkedBody(ResponseBody):
    """A body in chunks."""

    def __init__(self) -> None:
        # The beginning of a line, or of the CRLF behind a chunk.
        self._rest = b""
        # Of the chunk under way; the CRLF behind it counts, so 1 and 2 are what is left of it.
        self._left = 0
        self._in_trailers = False

    def at_chunk_start(self) -> bool:
        """Tell whether the next byte begins a chunk."""
        return not (self._left or self._rest or self._in_trailers or self.broken)

    def feed(self, data: bytes) -> bytes:
        """Return the payload in `data`, as far as it is well framed."""
        data, self._rest = self._rest + data, b""
        payload: list[bytes] = []
        at = 0
        while at < len(data) and not self.over:
            if self._in_trailers:
                at = self._read_trailer(data, at)
            elif self._left:
                at = self._read_chunk(data, at, payload)
            else:
                at = self._read_size(data, at)
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def _read_size(self, data: bytes, at: int) -> int:
        found = _SIZE_LINE.match(data, at)
        if found is None or found.end() - at > _MAX_LINE:
            return self._hold_or_break(data, at)
        size = int(found[1], 16)
        if size:
            self._left = size + 2
        else:
            self._in_trailers = True
        return found.end()

    def _read_chunk(self, data: bytes, at: int, payload: list[bytes]) -> int:
        if self._left > len(_CRLF):
            piece = data[at : at + self._left - 2]
            payload.append(piece)
            self._left -= len(piece)
            return at + len(piece)
        if data[at] != _CRLF[-self._left]:
            self.broken = True
        self._left -= 1
        return at + 1

    def _read_trailer(self, data: bytes, at: int) -> int:
        end = data.find(_CRLF, at) + 2
        if end < 2 or end - at > _MAX_LINE or b"\n" in data[at : end - 2]:
            return self._hold_or_break(data, at)
        self.complete = end == at + 2
        return end

    def _hold_or_break(self, data: bytes, at: int) -> int:
        """Wait for the rest of a line, unless what is here is wrong already.

        However the bytes are split: a line that came whole is measured as one that came in pieces.
        """
        rest = data[at:]
        self.broken = len(rest) >= _MAX_LINE or b"\n" in rest
        self._rest = rest
        return len(data)


def body_of(method: bytes, status: int, fields: Iterable[tuple[bytes, bytes]]) -> ResponseBody:
    """Return how the body of a response is framed.

    Args:
        method: The request's.
        status: The response's.
        fields: Its header fields, whose lengths and codings have been checked.
    """
    if method == b"HEAD" or status in (204, 304):
        return SizedBody(0)
    found = {name.lower(): value for name, value in fields}
    if b"transfer-encoding" in found:
        return ChunkedBody()
    if b"content-length" in found:
        return SizedBody(int(found[b"content-length"]))
    return BodyToClose()
