"""A server in a test's own Trio run that keeps the exact bytes which arrive, and answers as told.

It stands behind `proxy.open_upstream`, answers that function's own questions (`/health`, `/props`)
like a llama-server with two slots, and keeps everything else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

DEFAULT_ANSWER = (
    b"HTTP/1.1 200 OK\r\n"
    b"Server: llama.cpp\r\n"
    b"Content-Type: application/json\r\n"
    b"Content-Length: 2\r\n"
    b"\r\n"
    b"{}"
)
_OWN = {"/health": b'{"status":"ok"}', "/props": b'{"total_slots":2}'}


@dataclass(slots=True)
class Arrived:
    """A request, as it arrived.

    Attributes:
        line: The request line.
        fields: The header lines, in their order and spelling.
        body: What followed, with whatever framing it has; grows while it comes.
        ended: Set when nothing more will come.
    """

    line: str
    fields: list[str]
    body: bytearray = field(default_factory=bytearray)
    ended: trio.Event = field(default_factory=trio.Event)

    @property
    def names(self) -> set[str]:
        """The header names, in lower case."""
        return {each.partition(":")[0].lower() for each in self.fields}

    def value(self, name: str) -> str:
        """Return the value of a header that is there exactly once."""
        pairs = (each.partition(": ") for each in self.fields)
        (found,) = [value for key, _, value in pairs if key.lower() == name.lower()]
        return found


class RecordingUpstream:
    """The server's state.

    Attributes:
        port: Its TCP port on 127.0.0.1.
        answer: The raw bytes with which every request is answered.
        arrived: The requests that came, without the proxy's own.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.answer = DEFAULT_ANSWER
        self.arrived: list[Arrived] = []
        self._more = trio.Event()

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def only(self) -> Arrived:
        """The one request that came."""
        (found,) = self.arrived
        return found

    async def wait_received(self, count: int) -> None:
        """Wait until the one request's body has at least `count` bytes."""
        while not self.arrived or len(self.arrived[0].body) < count:
            await self._more.wait()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer one connection, which carries one request."""
        async with stream:
            held = bytearray()
            while b"\r\n\r\n" not in held:
                data = await stream.receive_some()
                if not data:
                    return
                held += data
            head, _, rest = bytes(held).partition(b"\r\n\r\n")
            line, *fields = head.decode("latin-1").split("\r\n")
            path = line.split(" ")[1]
            if path in _OWN:
                await stream.send_all(_ok(_OWN[path]))
                return
            request = Arrived(line, fields)
            self.arrived.append(request)
            await self._read_body(stream, request, rest)
            await stream.send_all(self.answer)

    async def _read_body(
        self, stream: trio.SocketStream, request: Arrived, received: bytes
    ) -> None:
        self._keep(request, received)
        while not _is_whole(request):
            data = await stream.receive_some()
            if not data:
                break
            self._keep(request, data)
        request.ended.set()

    def _keep(self, request: Arrived, data: bytes) -> None:
        request.body += data
        self._more.set()
        self._more = trio.Event()


def _is_whole(request: Arrived) -> bool:
    if "transfer-encoding" in request.names:
        return request.body.endswith(b"0\r\n\r\n")
    length = int(request.value("Content-Length")) if "content-length" in request.names else 0
    return len(request.body) >= length


def _ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@asynccontextmanager
async def recording_upstream() -> AsyncIterator[RecordingUpstream]:
    """Run one while the block runs."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        upstream = RecordingUpstream(listener.socket.getsockname()[1])
        nursery.start_soon(trio.serve_listeners, upstream.serve, [listener])
        yield upstream
        nursery.cancel_scope.cancel()
