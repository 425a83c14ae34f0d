"""An upstream that a test plays: it sends, ends and looks when the test says so."""

from __future__ import annotations

import socket
import struct

import trio

from tests.fakes.scripted_server import read_head


class PlayedUpstream:
    """A handler for `scripted_server`, for one connection.

    Attributes:
        received: All that it was sent.
        closed: Set when the other side has closed.
    """

    def __init__(self) -> None:
        self.received = b""
        self.closed = trio.Event()
        self._asked = trio.Event()
        self._stream: trio.abc.Stream | None = None
        self._life = trio.CancelScope()

    async def __call__(self, stream: trio.abc.Stream) -> None:
        """Read a head, and then whatever comes, until either side ends."""
        self._stream = stream
        self.received = await read_head(stream)
        self._asked.set()
        with self._life:
            try:
                while data := await stream.receive_some():
                    self.received += data
            except trio.BrokenResourceError:
                pass
            self.closed.set()

    async def send(self, data: bytes) -> None:
        """Send bytes, once it has been asked."""
        await self._asked.wait()
        assert self._stream is not None
        await self._stream.send_all(data)

    def end(self, *, reset: bool = False) -> None:
        """Close, with FIN or RST."""
        if reset:
            assert isinstance(self._stream, trio.SocketStream)
            linger = struct.pack("ii", 1, 0)
            self._stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._life.cancel()
