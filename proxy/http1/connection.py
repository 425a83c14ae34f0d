"""One client connection of the main listener: its requests one after another, and its end.

Owns the life of a connection in one task: the strict framer reads a head, the application answers
it, and the next head is read only then. So a pipelined request waits in the kernel or in the
framer, an upgrade is never spoken, and nothing that a client sends can reach another connection.

What tells that the client is gone is the transport's hang-up, whether or not anybody reads; the
application's listeners are called at once, in the same step. A write waits for the client for the
send timeout at most, and can be cancelled; the connection is then broken, since half a message
cannot be taken back.

It knows nothing of routes, keys or upstreams. Why it is not Hypercorn's: docs/decisions.md.
"""

from __future__ import annotations

import logging
import math
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

import trio

from proxy.core.causes import EndCause
from proxy.core.errors import HttpError, RequestTimeout
from proxy.core.framing import Limits, RequestFramer, RequestHead
from proxy.http1.asgi import AsgiApp, Message
from proxy.http1.identity import identity_fields, make_request_id
from proxy.http1.request_cycle import RequestCycle
from proxy.http1.transport import READ_SIZE, ClientTransport, WriteStalled

logger = logging.getLogger("proxy.guard")

Stream = ClientTransport | trio.SSLStream[ClientTransport]

# After an early answer a client may still be sending. Closing at once would reset the connection
# and take the answer with it, so we read on for a moment (nginx: lingering_time 30 s,
# lingering_timeout 5 s).
_LINGER_S = 2.0
_LINGER_BYTES = 16 * 1024 * 1024
# An application that has been told that its client is gone ends by itself, at the latest after the
# two seconds that the relay gives llama-server to end a conversation. One that does not is
# cancelled after this time.
_REAP_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one connection may take; times in seconds.

    Attributes:
        framing: The bounds of heads and bodies.
        head_s: From the first byte of a head to its last.
        body_stall_s: Without a byte of a body that we wait for.
        idle_s: Between two requests.
        handshake_s: For TLS.
    """

    framing: Limits
    head_s: float = 10.0
    body_stall_s: float = 30.0
    idle_s: float = 75.0
    handshake_s: float = 10.0


@dataclass(slots=True)
class ServerContext:
    """What all connections of a server share.

    Attributes:
        app: The application that answers.
        limits: What each connection may take.
        draining: Whether connections end with the response that is under way.
    """

    app: AsgiApp
    limits: ConnectionLimits
    draining: bool = False


class ClientConnection:
    """A client's connection, as the guard runs it and as the application sees it.

    The application finds it as `scope["state"]["connection"]`; `on_gone` is what it is there for.

    Args:
        transport: The client's socket.
        context: What the server's connections share.
        tls: The TLS context, or None for plain HTTP.

    Attributes:
        gone: Set when the client is gone or too slow.
    """

    def __init__(
        self,
        transport: ClientTransport,
        context: ServerContext,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.gone = trio.Event()
        self._transport = transport
        self._context = context
        self._stream: Stream = (
            transport
            if tls is None
            else trio.SSLStream(transport, tls, server_side=True, https_compatible=True)
        )
        self._framer = RequestFramer(context.limits.framing)
        self._cause: EndCause | None = None
        self._listeners: dict[Callable[[EndCause], None], None] = {}
        self._cycle: RequestCycle | None = None
        self._peer_ended = False
        self._life = trio.CancelScope()

    @property
    def secure(self) -> bool:
        """Whether the client speaks TLS to us."""
        return self._stream is not self._transport

    @property
    def may_keep(self) -> bool:
        """Whether it may carry another request after the one that is under way."""
        return not self._context.draining

    @property
    def chunk_socket(self) -> socket.socket | None:
        """The socket, to write chunks of the response under way to, past `send`.

        Who does so is the only one who writes meanwhile, and writes whole chunks only; what follows
        goes through `send` again. None where the body does not go in chunks, or under TLS.
        """
        cycle = self._cycle
        if cycle is None or not cycle.sends_chunks or self.secure or self._transport.closed:
            return None
        return self._transport.socket

    @property
    def send_timeout_s(self) -> float:
        """How long the client may take no byte while there are some for it, in seconds."""
        return self._transport.send_timeout_s

    def lose(self, cause: EndCause) -> None:
        """Take that the client is gone or too slow, as who wrote past `send` has noticed."""
        self._tell_gone(cause)
        self._transport.abort()

    def reset(self) -> None:
        """Reset it now; its application goes on and may end by itself."""
        self._transport.abort()

    def on_gone(self, listener: Callable[[EndCause], None]) -> Callable[[], None]:
        """Call `listener` once, synchronously, when the client is gone or too slow.

        A client that is gone already is told at once.

        Returns:
            A function that takes the listener back; harmless when called twice.
        """
        if self._cause is not None:
            listener(self._cause)
        else:
            self._listeners[listener] = None
        return partial(self._forget, listener)

    def _forget(self, listener: Callable[[EndCause], None]) -> None:
        self._listeners.pop(listener, None)

    def close_when_idle(self) -> None:
        """Close it now if no request is under way; else it closes after the response."""
        if self._cycle is None and self._framer.at_request_start:
            self._transport.close()

    def abort(self) -> None:
        """Reset it now, and cancel what its request still does."""
        self._transport.abort()
        self._life.cancel()

    async def run(self) -> None:
        """Serve the connection until either side closes it. Exceptions of the connection end here.

        Cancellation: the connection is reset and its application cancelled.
        """
        try:
            with self._life:
                if await self._handshake():
                    self._transport.on_hangup(self._hung_up)
                    await self._serve()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except* Exception:
            logger.exception("a connection failed")
        finally:
            self._tell_gone(EndCause.CLIENT_DISCONNECTED)
            self._transport.abort()

    async def _handshake(self) -> bool:
        if isinstance(self._stream, ClientTransport):
            return True
        with trio.move_on_after(self._context.limits.handshake_s):
            await self._stream.do_handshake()
            return True
        return False

    async def _serve(self) -> None:
        try:
            while (head := await self._next_head()) is not None:
                if not await self._answer(head):
                    break
                self._framer.start_next_request()
        except HttpError as refusal:
            logger.info("refused a request: %s", refusal.message, extra={"status": refusal.status})
            await self.write(_raw_reply(refusal))
            await self._linger()
        await self._close()

    async def _next_head(self) -> RequestHead | None:
        """Return the next request's head; None when the client, or a drain, ends the connection."""
        limits, head_due = self._context.limits, math.inf
        while not isinstance(event := self._framer.next_event(), RequestHead):
            idle = self._framer.at_request_start
            if self._context.draining and idle:
                return None
            if not idle:
                # For the whole head: a byte now and then buys no more time.
                head_due = min(head_due, trio.current_time() + limits.head_s)
            due = trio.current_time() + limits.idle_s if idle else head_due
            data = await self._receive_of_head(due, idle=idle)
            if not data:
                return None
            self._framer.receive_data(data)
        return event

    async def _receive_of_head(self, due: float, *, idle: bool) -> bytes:
        with trio.move_on_at(due):
            return bytes(await self._stream.receive_some(READ_SIZE))
        if idle:
            return b""
        raise RequestTimeout("The request's head took too long.")

    async def _answer(self, head: RequestHead) -> bool:
        """Let the application answer one request; return whether another may follow."""
        cycle = self._cycle = RequestCycle(self, self._framer, head)
        if self._peer_ended:
            self._tell_gone(EndCause.CLIENT_DISCONNECTED)
        client, server = self._transport.addresses()
        scope = cycle.scope(
            {"connection": self, "refusal": head.refusal},
            scheme="https" if self.secure else "http",
            client=client,
            server=server,
        )
        try:
            if self._transport.tells_hangup:
                await self._context.app(scope, cycle.receive, cycle.send)
            else:
                await self._answer_reading_ahead(cycle, scope)
        finally:
            self._cycle = None
        if not cycle.body_ended:
            await self._linger()
        return cycle.complete and cycle.keeps_alive

    async def _answer_reading_ahead(self, cycle: RequestCycle, scope: Message) -> None:
        """Where the kernel tells of no hang-up, a FIN is seen by reading what follows the body."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_ahead, cycle)
            await self._context.app(scope, cycle.receive, cycle.send)
            nursery.cancel_scope.cancel()

    async def _read_ahead(self, cycle: RequestCycle) -> None:
        await cycle.wait_body_ended()
        while self._framer.held_bytes < READ_SIZE:
            data = b""
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                data = bytes(await self._stream.receive_some(READ_SIZE))
            if not data:
                self._hung_up()
                return
            self._framer.receive_data(data)

    async def read_body(self) -> None:
        """Receive more of the body; returns when some came or the client is gone.

        Raises:
            RequestTimeout: When nothing came for the stall time.
        """
        data = b""
        with trio.move_on_after(self._context.limits.body_stall_s) as limit:
            with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                data = bytes(await self._stream.receive_some(READ_SIZE))
        if limit.cancelled_caught:
            raise RequestTimeout("The request's body stopped coming.")
        if not data:
            self._tell_gone(EndCause.CLIENT_DISCONNECTED)
        self._framer.receive_data(data)

    async def write(self, data: bytes) -> None:
        """Hand bytes to the client; a client that is gone takes them without a word (ASGI).

        Cancellation: the connection is reset if it was waiting for the client.
        """
        try:
            await self._stream.send_all(data)
        except WriteStalled:
            self._tell_gone(EndCause.CLIENT_TOO_SLOW)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._tell_gone(EndCause.CLIENT_DISCONNECTED)
            # An application that only sends would never yield otherwise, and so never end.
            await trio.lowlevel.checkpoint()

    def _hung_up(self) -> None:
        self._peer_ended = True
        if self._cycle is not None:
            self._tell_gone(EndCause.CLIENT_DISCONNECTED)
            self._transport.abort()

    def _tell_gone(self, cause: EndCause) -> None:
        if self._cause is None:
            self._cause = cause
            self.gone.set()
            self._life.deadline = trio.current_time() + _REAP_AFTER_S
            for listener in tuple(self._listeners):
                listener(cause)
            self._listeners.clear()

    async def _close(self) -> None:
        if isinstance(self._stream, trio.SSLStream):
            with trio.move_on_after(_LINGER_S):
                await self._stream.aclose()
        self._transport.close()

    async def _linger(self) -> None:
        left = _LINGER_BYTES
        with trio.move_on_after(_LINGER_S):
            try:
                if not self.secure:
                    await self._transport.send_eof()
                while left > 0 and (data := await self._transport.receive_some(READ_SIZE)):
                    left -= len(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass


def _raw_reply(error: HttpError) -> bytes:
    request_id = make_request_id()
    body = error.as_body(request_id)
    fields = [
        *error.as_headers(),
        *identity_fields(request_id),
        (b"Content-Length", b"%d" % len(body)),
        (b"Connection", b"close"),
    ]
    status_line = b"HTTP/1.1 %d %s" % (error.status, HTTPStatus(error.status).phrase.encode())
    head = [status_line, *(name + b": " + value for name, value in fields)]
    return b"\r\n".join(head) + b"\r\n\r\n" + body
