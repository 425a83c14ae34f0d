"""A client for promise tests: raw bytes over a socket, and the ways in which a client can leave."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio

PATIENCE_S = 20.0


class Wire:
    """One connection to the proxy.

    Args:
        stream: It.
        fields: Makes header lines that each request has besides: credentials, which may be of a
            single use.
    """

    def __init__(
        self, stream: trio.SocketStream, fields: Callable[[], Sequence[str]] = tuple
    ) -> None:
        self._stream = stream
        self._fields = fields
        self.received = b""

    async def send(self, data: bytes) -> None:
        """Send raw bytes."""
        await self._stream.send_all(data)

    async def post(self, path: str, body: object, *headers: str) -> None:
        """Send a whole POST request with a JSON body."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = [
            f"POST {path} HTTP/1.1",
            "Host: localhost",
            "Content-Type: application/json",
            f"Content-Length: {len(content)}",
            *self._fields(),
            *headers,
        ]
        await self.send("\r\n".join(head).encode() + b"\r\n\r\n" + content)

    async def get(self, path: str, *headers: str) -> None:
        """Send a whole GET request."""
        head = [f"GET {path} HTTP/1.1", "Host: localhost", *self._fields(), *headers]
        await self.send("\r\n".join(head).encode() + b"\r\n\r\n")

    async def read_until(self, part: bytes) -> bytes:
        """Read until `part` has come; returns all that was received so far."""
        with trio.fail_after(PATIENCE_S):
            while part not in self.received:
                data = await self._stream.receive_some(65536)
                assert data, f"the connection ended after {self.received[-500:]!r}"
                self.received += data
        return self.received

    async def read_to_end(self) -> bytes:
        """Read until the proxy closes or resets the connection; returns all that was received."""
        with trio.fail_after(PATIENCE_S):
            try:
                while data := await self._stream.receive_some(65536):
                    self.received += data
            except trio.BrokenResourceError:
                pass
        return self.received

    def fin(self) -> None:
        """Leave as a closed browser tab does."""
        self._stream.socket.close()

    def reset(self) -> None:
        """Leave as a killed program does that had unread bytes."""
        self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._stream.socket.close()

    def half_close(self) -> None:
        """Say that nothing more will be sent, and stay to read."""
        self._stream.socket.shutdown(socket.SHUT_WR)


Leave = Callable[[Wire], None]

LEAVING: dict[str, Leave] = {
    "fin": Wire.fin,
    "reset": Wire.reset,
    "half-close": Wire.half_close,
}


@asynccontextmanager
async def wire(
    port: int,
    *,
    receive_buffer: int | None = None,
    fields: Callable[[], Sequence[str]] = tuple,
) -> AsyncIterator[Wire]:
    """Connect to 127.0.0.1; `receive_buffer` in bytes makes a client that takes little."""
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await sock.connect(("127.0.0.1", port))
    stream = trio.SocketStream(sock)
    try:
        yield Wire(stream, fields)
    finally:
        sock.close()
