"""The reply to one client: a status, headers and bytes by ASGI, and an end that tells the truth.

Owns what has been sent of one reply. It knows the three ways in which a reply may end (complete, an
error status, an error event inside a stream) and the fourth for what none of them fits: the
connection is broken, so that a half answer never looks like a whole one (promise P3).
"""

from __future__ import annotations

from proxy.core.dialects import error_event
from proxy.core.errors import HttpError
from proxy.core.routes import Dialect
from proxy.core.sse import comment
from proxy.http1.asgi import Send
from proxy.http1.connection import ClientConnection

_EVENT_STREAM = b"text/event-stream"
# llama-server ends every event with the first (`tools/server/server-common.cpp`); a server in
# front of it may write lines anew.
_EVENT_ENDS = (b"\n\n", b"\r\n\r\n")
# An event that is longer is passed on in pieces: promise P4 allows 256 KiB for a whole client.
_MAX_HELD = 64 * 1024


class Downstream:
    """The reply to one request.

    Args:
        send: The ASGI callable.
        connection: The client's connection, to break it.
        dialect: How the route's streams tell an error.
        request_id: For error bodies.
        http_version: `"1.0"` or `"1.1"`.
    """

    def __init__(
        self,
        send: Send,
        connection: ClientConnection,
        *,
        dialect: Dialect,
        request_id: str,
        http_version: str,
    ) -> None:
        self._send = send
        self._connection = connection
        self._dialect = dialect
        self._request_id = request_id
        self._http_version = http_version
        self._is_stream = False
        self._held = b""
        self._inside_event = False
        self.started = False
        self.status: int | None = None
        self.bytes_sent = 0

    async def start(
        self, status: int, headers: list[tuple[bytes, bytes]], reason: bytes | None = None
    ) -> None:
        """Begin the reply: send its head."""
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

    async def write(self, data: bytes) -> None:
        """Send bytes of the body; waits while the client's window is full.

        Of an event stream only whole events are sent, so that an error event can follow any time.
        """
        if self._is_stream:
            data = self._whole_events(data)
        if data:
            self.bytes_sent += len(data)
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    def _whole_events(self, data: bytes) -> bytes:
        data = self._held + data
        end = _end_of_events(data)
        if end:
            self._inside_event = False
        elif len(data) <= _MAX_HELD:
            end = 0
        else:
            end = len(data)
            self._inside_event = True
        self._held = data[end:]
        return data[:end]

    async def write_comment(self, text: str) -> None:
        """Send an event-stream comment, beginning the stream with it if nothing was sent yet."""
        if not self.started:
            await self.start(
                200,
                [(b"Content-Type", _EVENT_STREAM), (b"Cache-Control", b"no-cache")],
            )
        await self.write(comment(text))

    async def finish(self) -> None:
        """Send the proper end of the body."""
        rest, self._held = self._held, b""
        self.bytes_sent += len(rest)
        await self._send({"type": "http.response.body", "body": rest, "more_body": False})

    async def fail(self, error: HttpError) -> None:
        """End the reply with `error`: as a status, as an event, or by breaking the connection."""
        if not self.started:
            await self._fail_with_status(error)
        elif self._is_stream and not self._inside_event:
            await self._fail_with_event(error)
        elif self._http_version == "1.0":
            # Its end is the connection's end: only a reset tells it from a complete body.
            self._connection.abort()

    async def _fail_with_status(self, error: HttpError) -> None:
        body = error.as_body(self._request_id)
        length = (b"Content-Length", str(len(body)).encode())
        await self.start(error.status, [*error.as_headers(), length])
        self.bytes_sent += len(body)
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _fail_with_event(self, error: HttpError) -> None:
        # What is held of an event that was cut in two is dropped: half an event is no event.
        self._held = b""
        await self.write(error_event(self._dialect, error, self._request_id))
        await self.finish()


def _end_of_events(data: bytes) -> int:
    """Return where the last whole event in `data` ends; 0 without one."""
    for end in _EVENT_ENDS:
        at = data.rfind(end)
        if at >= 0:
            return at + len(end)
    return 0
