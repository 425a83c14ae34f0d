"""The head of a response of llama-server's, read by httptools (llhttp, Node's parser).

Owns the translation of its callbacks into one value, and what is asked of a head beyond its
grammar: that the framing of the body is not open to doubt. The body is `core.response_body`'s.

Source: RFC 9112 sections 4, 5 and 6.3.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import httptools

from proxy.core.errors import ProxyError

END = b"\r\n\r\n"
"""What a head ends with."""


class MalformedHead(ProxyError):
    """What came is no head of an HTTP/1.x response, or leaves its body's length open to doubt."""


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """The status line and header fields of an upstream's response, spelling kept."""

    status: int
    reason: bytes
    headers: tuple[tuple[bytes, bytes], ...]


class _Collector:
    """Takes what the parser calls back with."""

    def __init__(self) -> None:
        self.reason = b""
        self.fields: list[tuple[bytes, bytes]] = []

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        # The parser leaves the blanks behind a value, which are none of it (RFC 9112 section 5.1).
        self.fields.append((name, value.rstrip(b" \t")))


def read_head(data: bytes) -> ResponseHead:
    """Return the head that `data` is, its empty line included.

    Raises:
        MalformedHead: It is none.
    """
    found = _Collector()
    parser = httptools.HttpResponseParser(found)
    try:
        parser.feed_data(data)
    except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
        raise MalformedHead("not the head of a response") from error
    _check_framing(found.fields)
    return ResponseHead(parser.get_status_code(), found.reason, tuple(found.fields))


def _check_framing(fields: Iterable[tuple[bytes, bytes]]) -> None:
    codings = [value.lower() for name, value in fields if name.lower() == b"transfer-encoding"]
    lengths = {value for name, value in fields if name.lower() == b"content-length"}
    if codings not in ([], [b"chunked"]):
        raise MalformedHead("a transfer coding that nobody asked for")
    if len(lengths) > 1 or any(not value.isdigit() for value in lengths):
        raise MalformedHead("a length that is none, or several")
