"""One client connection of the main listener: the only module that knows Hypercorn's internals.

Owns the life of a connection: the strict framer reads, Hypercorn's `H11Protocol` and `HTTPStream`
turn a request into an ASGI call and its messages into bytes, the transport writes. What is
Hypercorn's and what is ours, and why (measured with Hypercorn 0.18.0, which is pinned):

- Hypercorn's own connection loop shields its writes and pauses its reader behind pipelined bytes,
  so a client that stops reading holds a shutdown and one that leaves is not seen. This loop is ours
  instead.
- Bytes reach Hypercorn only after `core.framing` has passed them, one request at a time and one
  piece of body per `receive()` of the application. So its parser never pauses, its queue never
  fills, and HTTP/2, h2c and WebSocket are never spoken.
- An exception of one connection stays in it.
- The reason phrase is passed on, as `reason` in `http.response.start`; ASGI has no place for it.

It knows nothing of routes, keys or upstreams.
"""

from __future__ import annotations

import logging
import math
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.client import responses
from typing import Any

import h11
import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Response, StreamClosed
from hypercorn.protocol.h11 import H11Protocol

from proxy.core.causes import EndCause
from proxy.core.errors import HttpError, RequestTimeout
from proxy.core.framing import (
    END_OF_REQUEST,
    NEED_DATA,
    BodyBytes,
    Limits,
    RequestFramer,
    RequestHead,
)
from proxy.web.identity import identity_fields, make_request_id
from proxy.web.transport import READ_SIZE, ClientTransport, WriteStalled

logger = logging.getLogger("proxy.guard")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Message, Receive, Send], Awaitable[None]]
Stream = ClientTransport | trio.SSLStream[ClientTransport]

# The message that tells our own `receive` of a request that broke in its body.
_REFUSED = "proxy.request.refused"
# After an early answer a client may still be sending. Closing at once would reset the connection
# and take the answer with it, so we read on for a moment (nginx: lingering_time 30 s,
# lingering_timeout 5 s).
_LINGER_S = 2.0
_LINGER_BYTES = 16 * 1024 * 1024


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


class ServerContext:
    """What all connections of a server share: Hypercorn's configuration, and whether we drain."""

    def __init__(self, app: AsgiApp, limits: ConnectionLimits) -> None:
        self.app = app
        self.limits = limits
        self.config = HypercornConfig()
        self.config.include_date_header = False
        self.config.include_server_header = False
        self.config.keep_alive_max_requests = 2**31
        self.config.h11_pass_raw_headers = True
        self.terminated = _HypercornEvent()

    # The names below are those that Hypercorn's `WorkerContext` has.
    @staticmethod
    def event_class() -> _HypercornEvent:
        """Make an event in the shape that Hypercorn awaits."""
        return _HypercornEvent()

    async def mark_request(self) -> None:
        """Hypercorn counts requests here; we do not end workers."""


class _HypercornEvent:
    """Hypercorn's event: like Trio's, with awaitable `set` and `clear`."""

    def __init__(self) -> None:
        self._event = trio.Event()

    async def clear(self) -> None:
        self._event = trio.Event()

    async def wait(self) -> None:
        await self._event.wait()

    async def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()


class _Protocol(H11Protocol):
    """Hypercorn's HTTP/1.1, which tells us of outgoing heads and of the end of a response."""

    client_connection: ClientConnection

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, Response):
            await self._send_h11_event(
                h11.Response(
                    status_code=event.status_code,
                    reason=self.client_connection._outgoing_reason(event.status_code),
                    headers=self.client_connection._outgoing_headers(event.headers),
                )
            )
        else:
            await super().stream_send(event)
        if isinstance(event, StreamClosed):
            self.client_connection._response_over()


class ClientConnection:
    """A client's connection, as the guard runs it and as the application sees it.

    The application finds it as `scope["state"]["connection"]`; `on_gone` is what it is there for.

    Args:
        transport: The client's socket.
        context: What the server's connections share.
        tls: The TLS context, or None for plain HTTP.
    """

    def __init__(
        self,
        transport: ClientTransport,
        context: ServerContext,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._transport = transport
        self._context = context
        self._stream: Stream = (
            transport
            if tls is None
            else trio.SSLStream(transport, tls, server_side=True, https_compatible=True)
        )
        self._framer = RequestFramer(context.limits.framing)
        self._gone: EndCause | None = None
        self._listeners: dict[Callable[[EndCause], None], None] = {}
        self._in_request = False
        self._response_end = trio.Event()
        self._wanted = trio.Event()
        self._reason: bytes | None = None
        self._request_complete = True
        self._reading = trio.CancelScope()

    @property
    def secure(self) -> bool:
        """Whether the client speaks TLS to us."""
        return self._stream is not self._transport

    def on_gone(self, listener: Callable[[EndCause], None]) -> Callable[[], None]:
        """Call `listener` once, synchronously, when the client is gone or too slow.

        A client that is gone already is told at once.

        Returns:
            A function that takes the listener back; harmless when called twice.
        """
        if self._gone is not None:
            listener(self._gone)
        else:
            self._listeners[listener] = None
        return lambda: self._listeners.pop(listener, None)

    def close_when_idle(self) -> None:
        """Close it now if no request is under way; else it closes after the response."""
        if not self._in_request and self._framer.at_request_start:
            self._transport.close()

    def abort(self) -> None:
        """Reset it now."""
        self._transport.abort()

    async def run(self) -> None:
        """Serve the connection until either side closes it. Exceptions of the connection end here.

        Cancellation: the connection is reset and its application task cancelled.
        """
        try:
            if await self._handshake():
                self._transport.on_hangup(self._hung_up)
                async with trio.open_nursery() as nursery:
                    await self._serve(nursery)
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

    async def _serve(self, nursery: trio.Nursery) -> None:
        protocol = self._make_protocol(nursery)
        try:
            with self._reading:
                await self._read_requests(protocol)
        except HttpError as refusal:
            await self._refuse(protocol, refusal)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._tell_gone(EndCause.CLIENT_DISCONNECTED)
        await self._close()
        await protocol.handle(Closed())

    def _make_protocol(self, nursery: trio.Nursery) -> _Protocol:
        socket = self._transport.socket
        protocol = _Protocol(
            self._application,  # type: ignore[arg-type]
            self._context.config,
            self._context,  # type: ignore[arg-type]
            _ApplicationTasks(nursery),  # type: ignore[arg-type]
            {"connection": self},  # type: ignore[arg-type]
            self.secure,
            socket.getpeername()[:2],
            socket.getsockname()[:2],
            self._protocol_send,
        )
        protocol.client_connection = self
        return protocol

    async def _read_requests(self, protocol: _Protocol) -> None:
        event = self._framer.next_event()
        while True:
            if event is NEED_DATA:
                data = await self._receive()
                if not data:
                    self._hung_up()
                    return
                self._framer.receive_data(data)
                event = self._framer.next_event()
            elif event is END_OF_REQUEST:
                await self._wait_response_end()
                self._framer.start_next_request()
                event = self._framer.next_event()
            else:
                following = self._framer.next_event()
                await self._hand_on(protocol, event, last=following is END_OF_REQUEST)
                event = following

    async def _hand_on(
        self, protocol: _Protocol, event: RequestHead | BodyBytes, *, last: bool
    ) -> None:
        if isinstance(event, RequestHead):
            self._in_request = True
            self._response_end = trio.Event()
            self._wanted = trio.Event()
            data = event.raw
        else:
            # The rest that is here already is handed on unasked: an answer that needs no body then
            # leaves a connection that can be kept.
            if not last:
                await self._wanted.wait()
                self._wanted = trio.Event()
            data = event.data
        self._request_complete = last
        await protocol.handle(RawData(data))

    async def _wait_response_end(self) -> None:
        if self._transport.tells_hangup:
            await self._response_end.wait()
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read_ahead)
            await self._response_end.wait()
            nursery.cancel_scope.cancel()

    async def _read_ahead(self) -> None:
        while self._framer.held_bytes < READ_SIZE:
            data = await self._stream.receive_some(READ_SIZE)
            if not data:
                self._hung_up()
                return
            self._framer.receive_data(bytes(data))

    async def _receive(self) -> bytes:
        limits = self._context.limits
        if self._in_request:
            await self._wanted.wait()
            limit, late = limits.body_stall_s, "The request's body stopped coming."
        elif self._framer.at_request_start:
            limit, late = limits.idle_s, None
        else:
            limit, late = limits.head_s, "The request's head took too long."
        with trio.move_on_after(limit):
            return bytes(await self._stream.receive_some(READ_SIZE))
        if late is not None:
            raise RequestTimeout(late)
        return b""

    async def _refuse(self, protocol: _Protocol, refusal: HttpError) -> None:
        logger.info("refused a request: %s", refusal.message, extra={"status": refusal.status})
        self._request_complete = False
        if self._in_request and protocol.stream is not None:
            # The application has begun: it gives the answer.
            await protocol.stream.app_put({"type": _REFUSED, "error": refusal})  # type: ignore[arg-type, misc]
            await self._response_end.wait()
        else:
            await self._stream.send_all(_raw_reply(refusal))

    async def _application(self, scope: Message, receive: Receive, send: Send) -> None:
        async def receive_on_demand() -> Message:
            self._wanted.set()
            message = await receive()
            if message["type"] == _REFUSED:
                raise message["error"]
            return message

        async def send_with_reason(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._reason = message.get("reason")
            await send(message)

        await self._context.app(scope, receive_on_demand, send_with_reason)

    def _outgoing_headers(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        if self._context.terminated.is_set() or not self._request_complete:
            return [*headers, (b"Connection", b"close")]
        return headers

    def _outgoing_reason(self, status: int) -> bytes:
        return responses.get(status, "").encode() if self._reason is None else self._reason

    def _response_over(self) -> None:
        self._in_request = False
        self._response_end.set()
        self._wanted.set()

    async def _protocol_send(self, event: Event) -> None:
        if isinstance(event, Closed):
            # The reading task closes, so that the application does not wait for it.
            self._reading.cancel()
        elif isinstance(event, RawData):
            try:
                await self._stream.send_all(event.data)
            except WriteStalled:
                self._tell_gone(EndCause.CLIENT_TOO_SLOW)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._tell_gone(EndCause.CLIENT_DISCONNECTED)

    def _hung_up(self) -> None:
        if self._in_request:
            self._tell_gone(EndCause.CLIENT_DISCONNECTED)
            self._transport.abort()
        elif self._framer.at_request_start:
            self._transport.close()

    def _tell_gone(self, cause: EndCause) -> None:
        if self._gone is None:
            self._gone = cause
            for listener in tuple(self._listeners):
                listener(cause)
            self._listeners.clear()

    async def _close(self) -> None:
        if not self._request_complete:
            await self._linger()
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


class _ApplicationTasks:
    """What Hypercorn calls a task group: starts the application of one request."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    async def spawn_app(
        self, app: AsgiApp, _config: HypercornConfig, scope: Message, send: Send
    ) -> Callable[[Message], Awaitable[None]]:
        # Unbounded, because what is put in is bounded: one piece of body per `receive`.
        put, take = trio.open_memory_channel[Message](math.inf)
        self._nursery.start_soon(
            self._run, app, scope, take.receive, send, name=f"request {scope['method']}"
        )
        return put.send

    async def _run(self, app: AsgiApp, scope: Message, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except Exception:
            logger.exception("the application failed")
        await send(None)  # type: ignore[arg-type]


def _raw_reply(error: HttpError) -> bytes:
    request_id = make_request_id()
    body = error.as_body(request_id)
    fields = [
        *error.as_headers(),
        *identity_fields(request_id),
        (b"Content-Length", b"%d" % len(body)),
        (b"Connection", b"close"),
    ]
    status_line = b"HTTP/1.1 %d %s" % (error.status, responses.get(error.status, "").encode())
    head = [status_line, *(name + b": " + value for name, value in fields)]
    return b"\r\n".join(head) + b"\r\n\r\n" + body
