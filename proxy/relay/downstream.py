"""The reply to one client: a status, headers and bytes by ASGI, and an end that tells the truth.

Owns what has been sent of one reply. It knows the three ways in which a reply may end (complete, an
error status, an error event inside a stream) and the fourth for what none of them fits: the
connection is broken, so that a half answer never looks like a whole one (promise P3).
"""

from __future__ import annotations

import socket

from proxy.core.dialects import error_event
from proxy.core.errors import HttpError
from proxy.core.passing import Passing
from proxy.core.routes import Dialect
from proxy.core.sse import comment
from proxy.core.whole_events import SentCounts, WholeEvents
from proxy.http1.asgi import Send
from proxy.http1.connection import ClientConnection

_EVENT_STREAM = b"text/event-stream"


class Downstream:
    """The reply to one request.

    Args:
        send: The ASGI callable.
        connection: The client's connection, to break it.
        dialect: How the route's streams tell an error.
        request_id: For error bodies.
        http_version: `"1.0"` or `"1.1"`.
        sent: What it sends is counted here.
        passing: Is told of what llama-server sends for it.

    Attributes:
        started: Whether it has begun: its head goes out with the first bytes of the body.
        complete: Whether its proper end was sent.
        status: Its status; None before its head was sent.
        events: Holds back what is no whole event of a stream yet.
    """

    def __init__(
        self,
        send: Send,
        connection: ClientConnection,
        *,
        dialect: Dialect,
        request_id: str,
        http_version: str,
        sent: SentCounts | None = None,
        passing: Passing | None = None,
    ) -> None:
        self._send = send
        self._connection = connection
        self._dialect = dialect
        self._request_id = request_id
        self._http_version = http_version
        self._is_stream = False
        self._holds_head = False
        self.sent = SentCounts() if sent is None else sent
        self.passing = Passing() if passing is None else passing
        self.events = WholeEvents()
        self.started = False
        self.complete = False
        self.status: int | None = None

    @property
    def chunk_socket(self) -> socket.socket | None:
        """The client's socket, for somebody else to write whole events to, as chunks.

        None where they have to come through `write`: under TLS, to an HTTP/1.0 client, and when the
        reply is no event stream.
        """
        return self._connection.chunk_socket if self._is_stream else None

    async def start(
        self, status: int, headers: list[tuple[bytes, bytes]], reason: bytes | None = None
    ) -> None:
        """Begin the reply; `send_head`, or the first bytes of the body, sends its head."""
        self.status = status
        fields = {name.lower(): value for name, value in headers}
        # Nothing can be added to an encoded stream, or to one whose length is said: they are passed
        # on as bytes.
        self._is_stream = (
            fields.get(b"content-type", b"").lower().startswith(_EVENT_STREAM)
            and b"content-encoding" not in fields
            and b"content-length" not in fields
        )
        await self._send(
            {"type": "http.response.start", "status": status, "headers": headers, "reason": reason}
        )
        self.started = True
        self._holds_head = True

    async def send_head(self) -> None:
        """Send the head, if it waits for the body: there is none of it yet."""
        if self._holds_head:
            await self._send_body(b"", more=True)

    async def write(self, data: bytes) -> None:
        """Send bytes of the body; waits while the client's window is full.

        Of an event stream only whole events are sent, so that an error event can follow any time.
        """
        if self._is_stream:
            data = self.events.feed(data)
            self.sent.events += data.count(b"\n\n")
        await self._write_through(data)

    async def _write_through(self, data: bytes) -> None:
        if data:
            self.sent.bytes += len(data)
            await self._send_body(data, more=True)

    async def write_comment(self, text: str) -> None:
        """Send an event-stream comment, beginning the stream with it if nothing was sent yet."""
        if not self.started:
            await self.start(
                200,
                [(b"Content-Type", _EVENT_STREAM), (b"Cache-Control", b"no-cache")],
            )
        await self._write_through(comment(text))

    async def finish(self, last: bytes = b"") -> None:
        """Send the proper end of the body.

        Args:
            last: What is sent with it, of a reply that is no event stream.
        """
        rest = self.events.take_held() + last
        self.sent.bytes += len(rest)
        await self._send_last(rest)

    async def fail(self, error: HttpError) -> None:
        """End the reply with `error`: as a status, as an event, or by breaking the connection."""
        if not self.started or self._holds_head:
            await self._fail_with_status(error)
        elif self._is_stream and not self.events.inside_event:
            await self._fail_with_event(error)
        elif self._http_version == "1.0":
            # Its end is the connection's end: only a reset tells it from a complete body.
            self._connection.abort()

    async def _fail_with_status(self, error: HttpError) -> None:
        body = error.as_body(self._request_id)
        length = (b"Content-Length", str(len(body)).encode())
        await self.start(error.status, [*error.as_headers(), length])
        self.sent.bytes += len(body)
        await self._send_last(body)

    async def _send_last(self, data: bytes) -> None:
        await self._send_body(data, more=False)
        self.complete = True

    async def _send_body(self, data: bytes, *, more: bool) -> None:
        self._holds_head = False
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def _fail_with_event(self, error: HttpError) -> None:
        # What is held of an event that was cut in two is dropped: half an event is no event.
        self.events.take_held()
        await self._write_through(error_event(self._dialect, error, self._request_id))
        await self.finish()
