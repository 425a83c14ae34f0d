"""The bytes of one response, and whether the connection can be kept after it.

Owns the sending half of HTTP/1.1 for one request: the framing of the body, and that it is what the
head said. A head that would be read as more than it is cannot be written.

Source: RFC 9112 sections 4, 6, 7.1 and 9.3.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

Field = tuple[bytes, bytes]

# RFC 9110 sections 15.3.5 and 15.4.5.
_BODILESS = frozenset({204, 304})
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
_CHUNKED = b"Transfer-Encoding: chunked"
_CLOSE = b"Connection: close"


class ResponseMisframed(RuntimeError):
    """The application's response cannot be written, or its body is not what its head said."""


class ResponseWriter:
    """Turns one response into bytes.

    Args:
        method: The request's method: a response to HEAD has no body.
        version: `b"1.1"` or `b"1.0"`: an HTTP/1.0 client gets no chunks, and its connection ends.
        keep_alive: Whether the connection may be kept after the response.

    Attributes:
        chunked: Whether the body goes in chunks; known once the head is made.
    """

    def __init__(self, method: bytes, version: bytes, *, keep_alive: bool) -> None:
        self._bodiless = method == b"HEAD"
        self._version = version
        self._keep = keep_alive and version == b"1.1"
        self._left: int | None = None
        self._ended = False
        self.chunked = False

    @property
    def keeps_alive(self) -> bool:
        """Whether the response is complete and the connection can carry another request."""
        return self._ended and self._keep

    def head(self, status: int, headers: Iterable[Field], reason: bytes | None = None) -> bytes:
        """Return the response's head, with the framing of the body if `headers` have none.

        Raises:
            ResponseMisframed: A field has a line end or a NUL in it.
        """
        phrase = _REASONS.get(status, b"") if reason is None else reason
        lines = [b"HTTP/1.1 %d %b" % (status, phrase)]
        for name, value in headers:
            if not self._is_ours(name.lower(), value):
                lines.append(b"%b: %b" % (name, value))
        self._bodiless = self._bodiless or status in _BODILESS
        lines += self._framing()
        found = b"\r\n".join(lines)
        if found.count(b"\n") + found.count(b"\r") != 2 * len(lines) - 2 or b"\0" in found:
            raise ResponseMisframed("a field of a response has a line end in it")
        return found + b"\r\n\r\n"

    def data(self, data: bytes) -> bytes:
        """Return bytes of the body with their framing; none where the response may have no body.

        Raises:
            ResponseMisframed: The body is longer than the head said.
        """
        if self._bodiless or not data:
            return b""
        if self.chunked:
            return b"%x\r\n%b\r\n" % (len(data), data)
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise ResponseMisframed("a body is longer than its head said")
        return data

    def end(self) -> bytes:
        """Return the end of the body.

        Raises:
            ResponseMisframed: The body is shorter than the head said.
        """
        if self._left and not self._bodiless:
            raise ResponseMisframed("a body is shorter than its head said")
        self._ended = True
        return b"0\r\n\r\n" if self.chunked else b""

    def _is_ours(self, name: bytes, value: bytes) -> bool:
        """Take note of a field about the connection; return whether it is ours to write."""
        if name == b"content-length":
            self._left = int(value)
        elif name == b"connection":
            self._keep = self._keep and b"close" not in value.lower()
        return name in (b"connection", b"transfer-encoding")

    def _framing(self) -> list[bytes]:
        found = []
        if not self._bodiless and self._left is None:
            if self._version == b"1.1":
                self.chunked = True
                found.append(_CHUNKED)
            else:
                self._keep = False
        if not self._keep:
            found.append(_CLOSE)
        return found
