"""A receiver of webhooks in a test's own Trio run: it keeps what it gets and answers as told.

Each request is on a connection of its own. What is done with it is the next of `replies`; when
there is none left, it is answered 200.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from tests.fakes.scripted_server import read_head

PATIENCE_S = 15.0


@dataclass(slots=True)
class Delivery:
    """One request, as it arrived.

    Attributes:
        line: The request line.
        fields: Its header fields, by their names in lower case.
        body: Its body.
        stream: The connection on which it is answered.
    """

    line: str
    fields: dict[str, str]
    body: bytes
    stream: trio.abc.Stream

    @property
    def json(self) -> Any:
        """The JSON in its body."""
        return json.loads(self.body)

    async def answer(self, status: int, *fields: str, body: bytes = b"{}") -> None:
        """Answer whole."""
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *fields, "", ""]
        await self.stream.send_all("\r\n".join(lines).encode() + body)


Reply = Callable[[Delivery], Awaitable[None]]


def status(code: int, *fields: str) -> Reply:
    """Make a reply that is whole."""

    async def reply(delivery: Delivery) -> None:
        await delivery.answer(code, *fields)

    return reply


def after(event: trio.Event) -> Reply:
    """Make a reply of 200 that comes when `event` is set."""

    async def reply(delivery: Delivery) -> None:
        await event.wait()
        await delivery.answer(200)

    return reply


async def stall(delivery: Delivery) -> None:
    """Say nothing until the sender leaves."""
    while await delivery.stream.receive_some():
        pass


async def hang_up(delivery: Delivery) -> None:
    """Close without an answer."""


async def reset(delivery: Delivery) -> None:
    """Break the connection without an answer."""
    assert isinstance(delivery.stream, trio.SocketStream)
    linger = struct.pack("ii", 1, 0)
    delivery.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


async def cut_in_body(delivery: Delivery) -> None:
    """Answer 200 and close in the middle of the body."""
    await delivery.stream.send_all(b"HTTP/1.1 200 X\r\nContent-Length: 100\r\n\r\nhalf")


async def stall_in_body(delivery: Delivery) -> None:
    """Answer 200 and say nothing more in the body until the sender leaves."""
    await delivery.stream.send_all(b"HTTP/1.1 200 X\r\nContent-Length: 100\r\n\r\nhalf")
    await stall(delivery)


async def endless(delivery: Delivery) -> None:
    """Answer 200 with a body that never ends, for as long as the sender stays."""
    await delivery.stream.send_all(b"HTTP/1.1 200 X\r\n\r\n")
    while True:
        await delivery.stream.send_all(bytes(64 * 1024))


class WebhookReceiver:
    """A running receiver.

    Attributes:
        port: Its TCP port on 127.0.0.1.
        deliveries: What it got, in order.
        replies: What is done with those to come.
        most_open: How many connections were open at a time at most.
    """

    def __init__(self, port: int, tls: ssl.SSLContext | None) -> None:
        self.port = port
        self.deliveries: list[Delivery] = []
        self.replies: list[Reply] = []
        self.most_open = 0
        self._tls = tls
        self._open = 0
        self._change = trio.Event()

    @property
    def url(self) -> str:
        """Where it takes webhooks."""
        return f"http://127.0.0.1:{self.port}/hook?token=secret"

    @property
    def told(self) -> list[Any]:
        """The JSON that it got, in order."""
        return [delivery.json for delivery in self.deliveries]

    async def wait_deliveries(self, count: int) -> None:
        """Wait until it got so many."""
        await self._wait_until(lambda: len(self.deliveries) >= count)

    async def wait_open(self, count: int) -> None:
        """Wait until so many connections are open."""
        await self._wait_until(lambda: self._open == count)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Take one connection."""
        self._open += 1
        self.most_open = max(self.most_open, self._open)
        self._changed()
        try:
            async with stream:
                await self._serve(stream)
        except trio.BrokenResourceError:
            pass  # the sender has left; tests look at what it did before
        finally:
            self._open -= 1
            self._changed()

    async def _serve(self, socket_stream: trio.SocketStream) -> None:
        stream: trio.abc.Stream = socket_stream
        if self._tls is not None:
            stream = trio.SSLStream(stream, self._tls, server_side=True, https_compatible=True)
        delivery = await _read(stream)
        if delivery is None:
            return
        reply = self.replies.pop(0) if self.replies else status(200)
        self.deliveries.append(delivery)
        self._changed()
        await reply(delivery)

    async def _wait_until(self, holds: Callable[[], bool]) -> None:
        with trio.fail_after(PATIENCE_S):
            while not holds():
                await self._change.wait()

    def _changed(self) -> None:
        self._change.set()
        self._change = trio.Event()


async def _read(stream: trio.abc.Stream) -> Delivery | None:
    """Read a whole request; None if it does not come."""
    head, _, body = (await read_head(stream)).partition(b"\r\n\r\n")
    line, *lines = head.decode("ascii").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    length = int(fields.get("content-length", 0))
    while len(body) < length:
        piece = await stream.receive_some()
        if not piece:
            return None
        body += piece
    return Delivery(line, fields, body, stream) if line else None


@asynccontextmanager
async def webhook_receiver(tls: ssl.SSLContext | None = None) -> AsyncIterator[WebhookReceiver]:
    """Run one on a free port of loopback while the block runs."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        receiver = WebhookReceiver(listener.socket.getsockname()[1], tls)
        nursery.start_soon(trio.serve_listeners, receiver.serve, [listener])
        yield receiver
        nursery.cancel_scope.cancel()
