"""One connection to a server: a request, and its answer as it comes.

Owns the client's half of HTTP/1.1 (by h11) and the cutting of an event stream into frames. It knows
neither of the two servers.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import h11
import trio

from tests.web.wire import Sent

# What a busy machine may need for what takes milliseconds; reached only by a test that fails.
PATIENCE_S = 20.0
FRAME_END = b"\n\n"
_AT_ONCE = 64 * 1024


class Line:
    """A connection on which one request is sent."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._http = h11.Connection(h11.CLIENT)
        self._held = bytearray()
        self._ended = False

    async def send(self, sent: Sent) -> None:
        """Send a whole request; a server that does not want all of it may close before."""
        headers = [("Host", sent.host), *_pairs(sent.fields)]
        body = sent.body
        if body is not None and "Transfer-Encoding: chunked" not in sent.fields:
            headers.append(("Content-Length", str(len(body))))
        data = self._http.send(h11.Request(method=sent.method, target=sent.target, headers=headers))
        data += (self._http.send(h11.Data(data=body)) or b"") if body else b""
        data += self._http.send(h11.EndOfMessage()) or b""
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            return  # its answer tells why

    async def head(self) -> h11.Response:
        """Wait for the head of the answer."""
        while not isinstance(event := await self._next(), h11.Response):
            assert isinstance(event, h11.InformationalResponse), event
        return event

    async def frame(self) -> str:
        """Wait for the next frame of an event stream; empty after the last one."""
        while FRAME_END not in self._held and not self._ended:
            await self._more()
        frame, _, rest = self._held.partition(FRAME_END)
        self._held = rest
        return frame.decode()

    async def frames_until(self, part: str) -> list[str]:
        """Return the frames up to the first one in which `part` is."""
        frames = [await self.frame()]
        while part not in frames[-1]:
            assert frames[-1], f"the stream ended without {part}"
            frames.append(await self.frame())
        return frames

    async def rest(self) -> str:
        """Wait for the end of the answer and return what has not been read of it."""
        while not self._ended:
            await self._more()
        found, self._held = self._held, bytearray()
        return found.decode()

    async def whole(self) -> str:
        """Wait for the whole answer and return its body."""
        await self.head()
        return await self.rest()

    async def _more(self) -> None:
        event = await self._next()
        if isinstance(event, h11.Data):
            self._held += event.data
        else:
            assert isinstance(event, h11.EndOfMessage), event
            self._ended = True

    async def _next(self) -> h11.Event:
        with trio.fail_after(PATIENCE_S):
            while True:
                event = self._http.next_event()
                assert event is not h11.PAUSED
                if not isinstance(event, type):
                    return event
                self._http.receive_data(await self._stream.receive_some(_AT_ONCE))

    # -- ways to leave --

    def close(self) -> None:
        """Leave as a program that ends."""
        self._stream.socket.close()

    def reset(self) -> None:
        """Leave as a program that is killed with data unread."""
        self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._stream.socket.close()

    def half_close(self) -> None:
        """Say that nothing more will be sent."""
        self._stream.socket.shutdown(socket.SHUT_WR)


LEAVING: dict[str, Callable[[Line], None]] = {
    "closes": Line.close,
    "resets": Line.reset,
    "half_closes": Line.half_close,
}


def _pairs(fields: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(name, value.strip()) for name, _, value in (field.partition(":") for field in fields)]


@asynccontextmanager
async def connected(port: int, receive_buffer: int | None = None) -> AsyncIterator[Line]:
    """Connect to a server on loopback; `receive_buffer` in bytes makes a client that takes little.

    Args:
        port: Its TCP port.
        receive_buffer: How many bytes the kernel keeps for the client; None: as usual.
    """
    sock = trio.socket.socket()
    try:
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await sock.connect(("127.0.0.1", port))
        yield Line(trio.SocketStream(sock))
    finally:
        sock.close()
