"""One client that follows a prediction: its events as they come, by ASGI, until its last one.

Owns one stream: its head, keep-alives, and how it ends. Every stream that its client does not leave
ends with exactly one `completed` or `error`. A client that is slow is waited for by nobody: it gets
what is still held when it takes something again, or is told what it has missed.
"""

from __future__ import annotations

import trio

from proxy.core.causes import EndCause
from proxy.core.predictions.event_log import Cursor
from proxy.core.predictions.events import EventsDropped
from proxy.core.sse import comment
from proxy.http1.asgi import Send
from proxy.http1.connection import ClientConnection
from proxy.predictions.line import AT_ONCE_BYTES, Line
from proxy.predictions.live import LivePrediction

# Cog's: proxies between give up a silent connection after 30 to 60 s.
KEEP_ALIVE_S = 15.0
_HEADERS = [
    (b"Content-Type", b"text/event-stream"),
    (b"Cache-Control", b"no-cache"),
    (b"X-Accel-Buffering", b"no"),
]


class EventStream:
    """One client's stream.

    Args:
        cursor: Its place in the prediction's events.
        live: The prediction, while it runs; None for one that has ended.
        send: The ASGI callable.
    """

    def __init__(self, cursor: Cursor, live: LivePrediction | None, send: Send) -> None:
        self._cursor = cursor
        self._live = live
        self._send = send
        self._left = False
        self._scope = trio.CancelScope()

    async def run(self, connection: ClientConnection) -> None:
        """Send the events until the last one, or until the client is gone or too slow.

        Args:
            connection: The client's.

        Cancellation: as if the client had left.
        """
        self._left = True
        forget = connection.on_gone(self._client_gone)
        try:
            with self._scope:
                await self._send_all(connection)
                self._left = False
        finally:
            forget()
            if self._live is None:
                self._cursor.leave()
            else:
                self._live.unfollow(self._cursor, left=self._left)

    def _client_gone(self, cause: EndCause) -> None:
        # One that was too slow may come back for the rest: it is no better and no worse than one
        # that lags.
        self._left = cause is EndCause.CLIENT_DISCONNECTED
        self._scope.cancel()

    async def _send_all(self, connection: ClientConnection) -> None:
        await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await self._send({"type": "http.response.body", "body": b"", "more_body": True})
        line = Line(self._cursor, connection.chunk_socket)
        try:
            while not self._cursor.done:
                events = self._cursor.take(AT_ONCE_BYTES)
                if events:
                    await self._send_body(b"".join([event.wire for event in events]))
                else:
                    await self._wait_on(line, connection)
        except EventsDropped as dropped:
            await self._send_body(dropped.wire)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _wait_on(self, line: Line, connection: ClientConnection) -> None:
        """Let the prediction write to the client until it cannot, or has nothing to write."""
        if self._live is None:
            raise RuntimeError("a prediction that has ended has its last event")
        with self._live.heard_on(line):
            needed = await line.wait_needed(KEEP_ALIVE_S)
        if torn := line.take_torn():
            await connection.write(torn)
        await self._send_body(line.take_body() if needed else comment("keep-alive"))

    async def _send_body(self, data: bytes) -> None:
        # A large event in pieces: what is framed is a copy, and each slow client would hold one.
        for start in range(0, len(data), AT_ONCE_BYTES):
            piece = data[start : start + AT_ONCE_BYTES]
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
