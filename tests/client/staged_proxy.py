"""A server in a test's own Trio run whose every answer is a test's: what a client has to bear.

It knows three paths, those that a client asks, plays for each what it is told to, byte for byte,
and keeps what arrived.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import trio
import trio.testing

from tests.fakes.scripted_server import read_head, scripted_server

OFFER, FAST, MAIN = "/api/inference/stream-url", "/stream", "/v1/chat/completions"
TOKEN = "tok-1"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Request-Id: r-1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
LAST_CHUNK = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Play:
    """What is done with a request.

    Attributes:
        pieces: What is sent, each when the client has taken the one before.
        then: How it ends: the connection is closed, reset, or left to the client.
    """

    pieces: tuple[bytes, ...] = ()
    then: Literal["close", "reset", "stay"] = "close"


@dataclass(slots=True)
class Arrived:
    """A request.

    Attributes:
        path: Its path.
        fields: Its header, with names in lower case.
        body: Its body.
        left: Set when the client has closed the connection, to which it stayed.
    """

    path: str
    fields: Mapping[str, str]
    body: bytes
    left: trio.Event = field(default_factory=trio.Event)


class StagedProxy:
    """The server's state.

    Attributes:
        url: Its base URL.
        plays: What it does, for each path.
        arrived: What came, in its order.
    """

    def __init__(self) -> None:
        self.url = ""
        self.plays: dict[str, Play] = {}
        self.arrived: list[Arrived] = []
        self._more = trio.Event()

    @property
    def paths(self) -> list[str]:
        """The paths that were asked, in their order."""
        return [each.path for each in self.arrived]

    def of(self, path: str) -> Arrived:
        """Return the only request for a path."""
        (found,) = [each for each in self.arrived if each.path == path]
        return found

    async def wait_arrived(self, path: str) -> Arrived:
        """Wait for a request."""
        while path not in self.paths:
            await self._more.wait()
        return self.of(path)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Answer one connection, which carries one request."""
        head, end, body = (await read_head(stream)).partition(b"\r\n\r\n")
        if not end:
            return
        line, *lines = head.decode().split("\r\n")
        pairs = (each.partition(": ") for each in lines)
        fields = {name.lower(): value for name, _, value in pairs}
        while len(body) < int(fields.get("content-length", "0")):
            data = await stream.receive_some()
            if not data:
                return
            body += data
        request = Arrived(line.split(" ")[1], fields, body)
        self.arrived.append(request)
        self._more.set()
        self._more = trio.Event()
        await self._play(stream, request)

    async def _play(self, stream: trio.abc.Stream, request: Arrived) -> None:
        play = self.plays[request.path]
        for piece in play.pieces:
            try:
                await stream.send_all(piece)
            except trio.BrokenResourceError:
                break
            await trio.testing.wait_all_tasks_blocked(0.001)
        if play.then == "stay":
            await _wait_left(stream)
            request.left.set()
        elif play.then == "reset":
            assert isinstance(stream, trio.SocketStream)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _wait_left(stream: trio.abc.Stream) -> None:
    try:
        assert await stream.receive_some() == b""
    except trio.BrokenResourceError:
        return


def answer(
    status: str, body: bytes = b"", *lines: bytes, kind: bytes = b"application/json"
) -> Play:
    """Play a whole answer."""
    fields = [b"Content-Type: " + kind, b"Content-Length: %d" % len(body), *lines]
    return Play((b"\r\n".join([b"HTTP/1.1 " + status.encode(), *fields, b"", body]),))


def offer(value: object) -> Play:
    """Play an answer to the question where the fast path is."""
    return answer("200 OK", json.dumps(value).encode())


def chunk(data: bytes) -> bytes:
    """Return a piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(value: object) -> bytes:
    """Return a piece of a stream: one event with JSON."""
    return chunk(b"data: " + json.dumps(value).encode() + b"\n\n")


DONE = chunk(b"data: [DONE]\n\n")
EVENTS: list[dict[str, Any]] = [{"n": 1}, {"n": 2, "text": "é\n"}, {"n": 3}]
WHOLE = Play((STREAM_HEAD, *map(event, EVENTS), DONE + LAST_CHUNK))
REFUSES = answer("404 Not Found", b"{}")


@asynccontextmanager
async def staged_proxy(plays: Mapping[str, Play] | None = None) -> AsyncIterator[StagedProxy]:
    """Run one while the block runs; it offers a fast path, and both paths play a whole stream.

    Args:
        plays: What is different.
    """
    staged = StagedProxy()
    async with scripted_server(staged.serve) as address:
        staged.url = f"http://127.0.0.1:{address.port}"
        found = {"supported": True, "stream_url": staged.url + FAST, "token": TOKEN}
        staged.plays = {OFFER: offer(found), FAST: WHOLE, MAIN: WHOLE, **(plays or {})}
        yield staged
