"""The chunked transfer coding, read strictly: payload out, the rest checked and dropped.

Owns the grammar of chunk sizes, extensions and trailers, and their bounds. Must never know what the
payload is. Its states follow each other as in RFC 9112 section 7.1: size, data, the CRLF after
the data, and so on until a size of 0; then trailers, then done.

Why strict: a size with white space, with a sign or with more digits than fit, a bare LF, or data
not followed by CRLF is read differently by different software, and what one takes for data is the
next request to another.

Source: RFC 9112 section 7.1; RFC 9110 section 6.5.1.
"""

from __future__ import annotations

import re
from enum import Enum, auto

from proxy.core.errors import HeadTooLarge, InvalidRequest
from proxy.core.lines import TOKEN, LineReader, split_field_line
from proxy.core.request_limits import Limits

_CRLF = b"\r\n"
_TOKEN = TOKEN.pattern
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_EXTENSION = rb"[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?" % (_TOKEN, _TOKEN, _QUOTED)
# 16 digits say every length below 2**64; more can only be there to overflow somebody's integer.
_SIZE_LINE = re.compile(rb"(?P<size>[0-9A-Fa-f]{1,16})(?P<extensions>(?:%b)*)" % _EXTENSION)

# RFC 9110 section 6.5.1: framing, routing, authentication, request modifiers and content format
# MUST NOT be in trailers. Whoever sends them hopes that somebody merges them into the head.
_FORBIDDEN_TRAILERS = frozenset(
    {
        b"authorization",
        b"cache-control",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"cookie",
        b"expect",
        b"forwarded",
        b"host",
        b"max-forwards",
        b"origin",
        b"proxy-authorization",
        b"range",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-api-key",
        b"x-stream-token",
    }
)


class _State(Enum):
    SIZE = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILERS = auto()
    DONE = auto()


class ChunkedReader:
    """Reads one chunked body; make a new one for the next.

    Args:
        limits: Those of the listener.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._state = _State.SIZE
        self._total = 0
        self._left_in_chunk = 0
        self._left_of_crlf = _CRLF
        self._room_for_extensions = limits.max_chunk_extensions
        self._room_for_trailers = limits.max_trailers

    @property
    def done(self) -> bool:
        """Whether the last chunk and the trailers are read."""
        return self._state is _State.DONE

    def read(self, source: LineReader) -> bytes | None:
        """Take one step: return payload, `b""` after framing, or None if there is nothing to do.

        Raises:
            InvalidRequest: The framing is malformed, or its extensions are too long.
            BodyTooLarge: A chunk announces more than the body may have.
            HeadTooLarge: The trailers are over their limit.
        """
        match self._state:
            case _State.SIZE:
                return self._read_size(source)
            case _State.DATA:
                return self._read_data(source)
            case _State.DATA_END:
                return self._read_data_end(source)
            case _State.TRAILERS:
                return self._read_trailer(source)
            case _State.DONE:
                return None

    def _read_size(self, source: LineReader) -> bytes | None:
        line = source.take_line(self._limits.max_chunk_line, _extensions_too_long)
        if line is None:
            return None
        found = _SIZE_LINE.fullmatch(line)
        if found is None:
            raise InvalidRequest(
                "A chunk of the request body has no valid size line; see RFC 9112."
            )
        self._room_for_extensions -= len(found["extensions"])
        if self._room_for_extensions < 0:
            raise _extensions_too_long()
        self._left_in_chunk = int(found["size"], 16)
        self._total += self._left_in_chunk
        self._limits.check_body(self._total)
        self._state = _State.DATA if self._left_in_chunk else _State.TRAILERS
        return b""

    def _read_data(self, source: LineReader) -> bytes | None:
        run = source.take(self._left_in_chunk)
        self._left_in_chunk -= len(run)
        if not self._left_in_chunk:
            self._left_of_crlf = _CRLF
            self._state = _State.DATA_END
        return run or None

    def _read_data_end(self, source: LineReader) -> bytes | None:
        run = source.take(len(self._left_of_crlf))
        if not self._left_of_crlf.startswith(run):
            raise InvalidRequest("A chunk of the request body does not end where its size says.")
        self._left_of_crlf = self._left_of_crlf[len(run) :]
        if not self._left_of_crlf:
            self._state = _State.SIZE
        return b"" if run else None

    def _read_trailer(self, source: LineReader) -> bytes | None:
        line = source.take_line(self._room_for_trailers, _trailers_too_large)
        if line is None:
            return None
        self._room_for_trailers -= len(line) + 2
        if not line:
            self._state = _State.DONE
        elif split_field_line(line)[0].lower() in _FORBIDDEN_TRAILERS:
            raise InvalidRequest("The request has a trailer that must be a header; send it first.")
        return b""


def _extensions_too_long() -> InvalidRequest:
    return InvalidRequest("The chunk extensions of the request body are too long; leave them out.")


def _trailers_too_large() -> HeadTooLarge:
    return HeadTooLarge("The trailers of the request are larger than this server accepts.")
