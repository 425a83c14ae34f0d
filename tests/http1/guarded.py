"""A guard before an application of the test's own, over real sockets."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from proxy.core.framing import Limits
from proxy.http1.asgi import AsgiApp, Message, Receive, Send
from proxy.http1.connection import ConnectionLimits, ServerContext
from proxy.http1.guard import Guard
from proxy.http1.transport import HangupWatch
from proxy.runtime.listening import bind_sockets

PATIENCE_S = 10.0
TLS = Path(__file__).parents[1] / "config" / "tls"


class BlindWatch(HangupWatch):
    """The watch of a platform without epoll."""

    def __init__(self) -> None:
        super().__init__()
        assert self._epoll is not None
        self._epoll.close()
        self._epoll = None


@dataclass(slots=True)
class Guarded:
    """A guard that runs."""

    guard: Guard
    port: int


@asynccontextmanager
async def guarded(
    app: AsgiApp,
    limits: ConnectionLimits | None = None,
    *,
    tls: ssl.SSLContext | None = None,
    epoll: bool = True,
    send_timeout_s: float = PATIENCE_S,
    max_connections: int = 100,
) -> AsyncIterator[Guarded]:
    """Serve `app`; at the end the guard drains within the test's patience."""
    (sock,) = bind_sockets("127.0.0.1", 0)
    guard = Guard(
        ServerContext(app, limits or ConnectionLimits(Limits(max_body=1024 * 1024))),
        [sock],
        send_timeout_s=send_timeout_s,
        max_connections=max_connections,
        tls=tls,
        hangups=HangupWatch() if epoll else BlindWatch(),
    )
    port = sock.getsockname()[1]
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(guard.run)
            yield Guarded(guard, port)
            nursery.cancel_scope.cancel()


async def respond(send: Send, body: bytes, *, status: int = 200, length: bool = True) -> None:
    """Send a whole response."""
    headers = [(b"Content-Length", b"%d" % len(body))] if length else []
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def read_body(receive: Receive) -> bytes | None:
    """Read a whole request body; None when the client left."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message["body"]
        if not message["more_body"]:
            return bytes(body)


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    """Answer with the method, the path and the body."""
    body = await read_body(receive)
    if body is not None:
        await respond(send, f"{scope['method']} {scope['path']} ".encode() + body)


@dataclass(slots=True)
class Endless:
    """An application whose answer does not end by itself.

    Attributes:
        causes: What it was told of each client's end.
        asked: Set when a request has come.
        left: Set when the application has ended.
    """

    causes: list[str] = field(default_factory=list)
    asked: trio.Event = field(default_factory=trio.Event)
    left: trio.Event = field(default_factory=trio.Event)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Send a first byte and wait until the client is gone."""
        gone = trio.Event()

        def note(cause: object) -> None:
            self.causes.append(str(cause))
            gone.set()

        scope["state"]["connection"].on_gone(note)
        try:
            await read_body(receive)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            self.asked.set()
            await gone.wait()
        finally:
            self.left.set()


def server_tls() -> ssl.SSLContext:
    """Return the context of a server that is called `localhost`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(TLS / "one.pem", TLS / "one.key")
    return context


async def tls_client(port: int) -> trio.SSLStream[trio.SocketStream]:
    """Connect to `localhost` over TLS, trusting the tests' certificate."""
    context = ssl.create_default_context(cafile=str(TLS / "one.pem"))
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    return trio.SSLStream(stream, context, server_hostname="localhost", https_compatible=True)
