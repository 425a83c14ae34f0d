"""The relay: one proxied request from its head to its end, as a plain ASGI application.

Owns the order of an exchange on the main listener: body, gate, upstream, bytes both ways, end.
Every decision (routes, headers, media, causes) is `core`'s; what an exchange holds is the
exchange's.

Routes that use a slot are read whole before they queue, so that a slow upload never holds a slot;
every other route is streamed both ways.
"""

from __future__ import annotations

import json
import logging
import math
from dataclasses import dataclass
from typing import NoReturn

import trio

from proxy.core import headers as header_policy
from proxy.core.assembly import assembler_for
from proxy.core.causes import EndCause, Phase
from proxy.core.ends import cause_of
from proxy.core.errors import HttpError, InternalError, RelayedError, UpstreamFailed
from proxy.core.generation import stream_filter, upstream_body
from proxy.core.media import refuse_foreign_media
from proxy.http1.asgi import Message, Receive, Send
from proxy.http1.connection import ClientConnection
from proxy.relay.answers import Answer, PassedOn, PutTogether, is_event_stream
from proxy.relay.downstream import Downstream
from proxy.relay.relayed_request import RelayedRequest, parse_object, read_body
from proxy.runtime.backend import Backend
from proxy.runtime.exchange import Exchange
from proxy.runtime.upstream import ResponseHead, UpstreamConnection, open_upstream

logger = logging.getLogger("proxy.relay")

# Proxies and clients between give up a silent connection after 30 to 60 s; half of that is safe.
QUEUE_COMMENT_S = 15.0
# How long a connect may take: llama-server's backlog of 128 is never full behind our gate.
CONNECT_TIMEOUT_S = 10.0
# Enough for any error body of llama-server's (a context overflow is under 1 KiB).
_MAX_ERROR_BODY = 64 * 1024
_END_OF_CONVERSATION_S = 2.0


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """How the relay treats every request; times in seconds, 0 for none.

    Attributes:
        queue_timeout_s: How long a request may wait for a permit or a restart.
        request_timeout_s: How long the whole exchange may take.
        forward_conversation_id: Pass `X-Conversation-Id` on, and end the conversation ourselves.
        allow_remote_media: Let llama-server fetch the URLs that a body names.
        via: Add `Via` (RFC 9110 section 7.6.3).
        forwarded: Add `Forwarded` (RFC 7239).
        own_cors: Whether CORS is ours and not llama-server's.
    """

    queue_timeout_s: float = 120.0
    request_timeout_s: float = 0.0
    forward_conversation_id: bool = False
    allow_remote_media: bool = False
    via: bool = False
    forwarded: bool = False
    own_cors: bool = True


class Relay:
    """Carries requests to the backend's engine and answers back, unchanged.

    Args:
        backend: The engine with its gates.
        settings: How to treat every request.
    """

    def __init__(self, backend: Backend, settings: RelaySettings) -> None:
        self._backend = backend
        self._settings = settings

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Carry one request to its end.

        Cancellation: the exchange ends, its upstream is closed, its permit is back.
        """
        request = RelayedRequest.of(scope)
        connection: ClientConnection = scope["state"]["connection"]
        exchange = Exchange(
            request.request_id, request.route.label, request.method, trio.current_time()
        )
        downstream = Downstream(
            send,
            connection,
            dialect=request.route.dialect,
            request_id=request.request_id,
            http_version=scope["http_version"],
        )
        trio.lowlevel.current_task().name = f"exchange {request.request_id} {request.route.label}"
        with self._backend.exchanges.open(exchange):
            await _Carriage(self._backend, self._settings, request, exchange, downstream).run(
                connection, receive
            )


class _Carriage:
    """One exchange under way."""

    def __init__(
        self,
        backend: Backend,
        settings: RelaySettings,
        request: RelayedRequest,
        exchange: Exchange,
        downstream: Downstream,
    ) -> None:
        self._backend = backend
        self._settings = settings
        self._request = request
        self._exchange = exchange
        self._downstream = downstream

    async def run(self, connection: ClientConnection, receive: Receive) -> None:
        exchange = self._exchange
        if self._settings.request_timeout_s:
            exchange.scope.deadline = exchange.started_at + self._settings.request_timeout_s
        forget = connection.on_gone(exchange.end)
        try:
            with exchange.scope:
                await self._carry(receive)
            if exchange.scope.cancelled_caught:
                exchange.end(EndCause.DEADLINE_EXCEEDED)
        except Exception:
            logger.exception("an exchange failed", extra={"request_id": self._request.request_id})
            exchange.end(EndCause.FINISHED, InternalError("The proxy made a mistake."))
        finally:
            exchange.release()
            exchange.status = self._downstream.status
            exchange.bytes_out = self._downstream.bytes_sent
        await self._conclude()
        forget()

    async def _conclude(self) -> None:
        exchange = self._exchange
        await self._end_conversation()
        reply = exchange.reply()
        if reply is not None:
            await self._downstream.fail(reply)
            exchange.status = self._downstream.status
            exchange.bytes_out = self._downstream.bytes_sent

    async def _carry(self, receive: Receive) -> None:
        try:
            await self._read_slot_request(receive)
            upstream = await self._connect()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._upload, receive, upstream)
                await self._download(upstream)
                nursery.cancel_scope.cancel()
        except HttpError as error:
            self._exchange.end(cause_of(error), error)

    async def _read_slot_request(self, receive: Receive) -> None:
        request = self._request
        if not request.route.gated:
            return
        body = await read_body(receive)
        if body is None:
            await self._client_left()
        request.body = body
        if request.has_json:
            request.fields = await parse_object(body)
        if request.route.generates:
            if not self._settings.allow_remote_media:
                refuse_foreign_media(request.fields)
            request.body = upstream_body(request.route.label, request.fields, body)

    async def _client_left(self) -> NoReturn:
        self._exchange.end(EndCause.CLIENT_DISCONNECTED)
        await trio.sleep_forever()

    async def _upload(self, receive: Receive, upstream: UpstreamConnection) -> None:
        """Send the request; what breaks here shows in the response, or ends the exchange."""
        try:
            await self._send_head(upstream)
            if self._request.body is not None:
                await upstream.send_data(self._request.body)
            else:
                await self._stream_body(receive, upstream)
            await upstream.send_end()
        except UpstreamFailed:
            # llama-server may answer and close before it has read everything: the answer counts.
            return
        except HttpError as error:
            self._exchange.end(cause_of(error), error)

    async def _stream_body(self, receive: Receive, upstream: UpstreamConnection) -> None:
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                await self._client_left()
            if message["body"]:
                await upstream.send_data(message["body"])
            more = message["more_body"]

    async def _send_head(self, upstream: UpstreamConnection) -> None:
        request, settings = self._request, self._settings
        address = self._backend.engine.address
        fields = header_policy.to_upstream(
            request.relayed_headers,
            authority=address.authority,
            # Empty for a moment after a crash: the connection is broken then, and will say so.
            api_key=self._backend.engine.api_key or None,
            request_id=request.request_id,
            forward_conversation_id=settings.forward_conversation_id,
            via=settings.via,
            forwarded_for=request.client_host if settings.forwarded else None,
        )
        target = (address.base_path + request.target).encode()
        await upstream.send_head(
            request.method.encode(), target, [*fields, *self._framing(), (b"Connection", b"close")]
        )

    def _framing(self) -> list[tuple[bytes, bytes]]:
        request = self._request
        if request.body is not None:
            return [(b"Content-Length", str(len(request.body)).encode())]
        length = request.header(b"content-length")
        if length is not None:
            return [(b"Content-Length", length)]
        if request.header(b"transfer-encoding") is not None:
            return [(b"Transfer-Encoding", b"chunked")]
        return []

    async def _connect(self) -> UpstreamConnection:
        """Pass the gate and connect; a launch that dies in between is waited out, not reported."""
        exchange, engine = self._exchange, self._backend.engine
        give_up_at = trio.current_time() + self._settings.queue_timeout_s
        while True:
            await self._pass_gate(give_up_at)
            exchange.admitted_at = trio.current_time()
            exchange.phase = Phase.CONNECTING
            generation = engine.generation
            upstream: UpstreamConnection | None
            try:
                with trio.fail_after(CONNECT_TIMEOUT_S):
                    upstream = await open_upstream(engine.address)
            except (UpstreamFailed, trio.TooSlowError):
                upstream = None
            if upstream is not None:
                exchange.upstream, exchange.generation = upstream, generation
                return upstream
            if not await self._backend.crashed(generation):
                raise UpstreamFailed("llama-server could not be reached.")
            exchange.release()
            exchange.phase = Phase.QUEUED

    async def _pass_gate(self, give_up_at: float) -> None:
        gate = self._backend.gate_for(gated=self._request.route.gated, model=self._request.model)
        ticket = self._exchange.ticket = gate.enter()
        while True:
            comment_at = (
                trio.current_time() + QUEUE_COMMENT_S if self._request.wants_stream else math.inf
            )
            with trio.move_on_at(min(give_up_at, comment_at)):
                await ticket.wait_admitted()
                return
            if trio.current_time() >= give_up_at:
                await self._time_out_in_queue()
            await self._downstream.write_comment(f"queued, position {ticket.position}")

    async def _time_out_in_queue(self) -> None:
        self._exchange.end(EndCause.QUEUE_TIMEOUT, self._backend.obstacle())
        await trio.sleep_forever()

    async def _download(self, upstream: UpstreamConnection) -> None:
        try:
            self._exchange.phase = Phase.PREFILL
            head = await upstream.receive_head()
            if self._downstream.started and head.status != 200:
                await self._raise_answered(head, upstream)
            answer = self._answer_to(head)
            await answer.begin(head, self._client_fields(head))
            await self._relay_body(upstream, answer)
            await answer.prepare()
            self._exchange.finish()
            await answer.finish()
        except UpstreamFailed as error:
            await self._explain(error)
        except HttpError as error:
            self._exchange.end(cause_of(error), error)
        else:
            self._exchange.usage = answer.usage()
            await self._learn_slots()

    def _answer_to(self, head: ResponseHead) -> Answer:
        request = self._request
        if not request.route.generates or not is_event_stream(head):
            return PassedOn(self._downstream)
        label, fields = request.route.label, request.fields
        assembler = assembler_for(label, fields, request.request_id)
        if assembler is None:
            return PassedOn(self._downstream, stream_filter(label, fields))
        return PutTogether(self._downstream, assembler, self._backend.control())

    def _client_fields(self, head: ResponseHead) -> list[tuple[bytes, bytes]]:
        return header_policy.to_client(
            head.headers,
            request_id=self._request.request_id,
            via=self._settings.via,
            own_cors=self._settings.own_cors,
        )

    async def _relay_body(self, upstream: UpstreamConnection, answer: Answer) -> None:
        exchange, engine = self._exchange, self._backend.engine
        while data := await upstream.receive_data():
            engine.note_activity()
            if await answer.take(data) and exchange.first_byte_at is None:
                exchange.first_byte_at = trio.current_time()
                exchange.phase = Phase.DECODE
            exchange.bytes_out = self._downstream.bytes_sent

    async def _raise_answered(self, head: ResponseHead, upstream: UpstreamConnection) -> NoReturn:
        """Turn llama-server's error into ours: our queue comments have begun a stream with 200."""
        body = bytearray()
        while (data := await upstream.receive_data()) and len(body) < _MAX_ERROR_BODY:
            body += data
        raise _as_relayed(head.status, bytes(body))

    async def _explain(self, error: UpstreamFailed) -> None:
        """End the exchange on a broken connection: with the crash behind it, if there is one."""
        generation = self._exchange.generation
        if generation is not None and await self._backend.crashed(generation):
            error = self._backend.crash_error()
        self._exchange.end(cause_of(error), error)

    async def _learn_slots(self) -> None:
        model = self._request.model
        if model is not None and self._request.route.gated and not self._backend.knows_slots(model):
            await self._backend.ask_slots(model)

    async def _end_conversation(self) -> None:
        """Stop a conversation that llama-server would go on with, unless its client just left."""
        conversation = self._request.header(b"x-conversation-id")
        cause = self._exchange.cause
        if (
            conversation is None
            or not self._settings.forward_conversation_id
            or cause in (EndCause.FINISHED, EndCause.CLIENT_DISCONNECTED, None)
        ):
            return
        with trio.move_on_after(_END_OF_CONVERSATION_S, shield=True):
            await self._backend.end_conversation(conversation.decode("latin1"))


def _as_relayed(status: int, body: bytes) -> RelayedError:
    try:
        error = json.loads(body)["error"]
        return RelayedError(status, str(error["type"]), str(error["message"]))
    except (ValueError, KeyError, TypeError):
        return RelayedError(status, "upstream_error", f"llama-server answered {status}.")
