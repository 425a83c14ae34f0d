"""A tiny server in a test's own Trio run: what it does with a connection is a function of the test.

It parses nothing and answers bytes, so that it can do what no proper server would.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio
import trio.testing

from proxy.runtime.address import Address

Handler = Callable[[trio.abc.Stream], Awaitable[None]]


@asynccontextmanager
async def scripted_server(
    handler: Handler, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Address]:
    """Serve every connection with `handler`, on loopback; closed when the handler returns."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await handler(stream if tls is None else trio.SSLStream(stream, tls, server_side=True))

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield Address(
            host="localhost", port=port, tls=tls is not None, authority=f"localhost:{port}"
        )
        nursery.cancel_scope.cancel()


def answering(*pieces: bytes, reset: bool = False, stay: bool = False) -> Handler:
    """Make a handler that reads a head, and sends `pieces`, each when the one before is read.

    Args:
        pieces: What it sends.
        reset: End with RST.
        stay: Do not end at all.
    """

    async def handle(stream: trio.abc.Stream) -> None:
        await read_head(stream)
        for piece in pieces:
            await stream.send_all(piece)
            await trio.testing.wait_all_tasks_blocked(0.001)
        if stay:
            await trio.sleep_forever()
        if reset and isinstance(stream, trio.SocketStream):
            linger = struct.pack("ii", 1, 0)
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    return handle


async def read_head(stream: trio.abc.Stream) -> bytes:
    """Read a request to the end of its head; returns what has come."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = await stream.receive_some()
        if not data:
            break
        received += data
    return received
