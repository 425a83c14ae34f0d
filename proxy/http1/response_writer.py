"""The bytes of one response: h11 decides its framing and whether the connection can be kept.

Owns the sending half of HTTP/1.1 for one request. h11's receiving half is fed a stand-in for the
request, for the real one was read by `core.framing`, which is stricter; what h11 needs to know of
it is only its method, its version and whether the client keeps the connection.

Source: RFC 9112 sections 6 and 9.3; h11's server role.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

import h11

Field = tuple[bytes, bytes]

# RFC 9110 sections 15.3.5 and 15.4.5.
_BODILESS = frozenset({204, 304})
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


class ResponseWriter:
    """Turns one response into bytes.

    Args:
        method: The request's method: a response to HEAD has no body.
        version: `b"1.1"` or `b"1.0"`: an HTTP/1.0 client gets no chunks.
        keep_alive: Whether the connection may be kept after the response.

    Attributes:
        chunked: Whether the body goes in chunks; known once the head is made.
    """

    def __init__(self, method: bytes, version: bytes, *, keep_alive: bool) -> None:
        self._http = h11.Connection(h11.SERVER)
        self._bodiless = method == b"HEAD"
        self._version = version
        self.chunked = False
        known = b"HEAD" if method == b"HEAD" else b"GET"
        kept = b"" if keep_alive else b"Connection: close\r\n"
        self._http.receive_data(b"%b / HTTP/%b\r\nHost: x\r\n%b\r\n" % (known, version, kept))
        # Its head, and its end: it has no body.
        self._http.next_event()
        self._http.next_event()

    @property
    def keeps_alive(self) -> bool:
        """Whether the response is complete and the connection can carry another request."""
        return self._http.our_state is h11.DONE

    def head(self, status: int, headers: Iterable[Field], reason: bytes | None = None) -> bytes:
        """Return the response's head; h11 adds the framing of the body if `headers` have none."""
        phrase = _REASONS.get(status, b"") if reason is None else reason
        self._bodiless = self._bodiless or status in _BODILESS
        fields = list(headers)
        sized = any(name.lower() == b"content-length" for name, _ in fields)
        self.chunked = self._version == b"1.1" and not (sized or self._bodiless)
        return self._bytes(h11.Response(status_code=status, headers=fields, reason=phrase))

    def data(self, data: bytes) -> bytes:
        """Return bytes of the body with their framing; none where the response may have no body."""
        return b"" if self._bodiless else self._bytes(h11.Data(data=data))

    def end(self) -> bytes:
        """Return the end of the body.

        Raises:
            h11.LocalProtocolError: When the body is shorter than the head said.
        """
        return self._bytes(h11.EndOfMessage())

    def _bytes(self, event: h11.Event) -> bytes:
        return self._http.send(event) or b""
