"""One exchange under way, from the request's body to the answer's end.

Owns the order: body, authority, gate, upstream, bytes both ways, end; and what a client is told
when it ends otherwise. Every decision (routes, headers, media, causes) is `core`'s; what an
exchange holds is the exchange's.

Routes that use a slot are read whole before they queue, so that a slow upload never holds a slot;
every other route is streamed both ways.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import trio

from proxy.core import headers as header_policy
from proxy.core.assembly import assembler_for
from proxy.core.causes import EndCause, Phase
from proxy.core.ends import cause_of
from proxy.core.errors import HttpError, InternalError, UpstreamFailed
from proxy.core.generation import stream_filter
from proxy.core.status.about import describe_request
from proxy.core.status.progress import find_progress
from proxy.core.status.timings import find_timings
from proxy.core.stream_ends import end_marks
from proxy.core.usage import TAIL_BYTES
from proxy.http1.asgi import Receive
from proxy.http1.connection import ClientConnection
from proxy.relay.answered_error import read_answered_error
from proxy.relay.answers import Answer, PassedOn, PutTogether, is_event_stream
from proxy.relay.connecting import connect, end_broken
from proxy.relay.downstream import Downstream
from proxy.relay.relayed_request import RelayedRequest
from proxy.relay.settings import RelaySettings
from proxy.relay.upload import upload
from proxy.runtime.backend import Backend
from proxy.runtime.exchange import Exchange
from proxy.runtime.pump import Flow, PumpError, SinkGone, SinkStalled, SourceMalformed
from proxy.runtime.response_head import ResponseHead
from proxy.runtime.stream_tokens import Lease
from proxy.runtime.upstream import BROKEN, MALFORMED, UpstreamConnection

logger = logging.getLogger("proxy.relay")

Authorize = Callable[[RelayedRequest], Lease | None]

_END_OF_CONVERSATION_S = 2.0
# Fits any socket's buffer, so that sending it never waits for llama-server to read; what is larger
# is sent while the answer may already come.
_SENT_AT_ONCE = 32 * 1024
# llama-server ends these conversations itself, or whoever took their place has.
_CONVERSATION_GOES_ON = frozenset(
    {EndCause.FINISHED, EndCause.CLIENT_DISCONNECTED, EndCause.SUPERSEDED, None}
)


class Carriage:
    """One exchange under way; one use.

    Args:
        backend: The engine with its gates.
        settings: How to treat every request.
        request: What is asked of llama-server.
        exchange: Owns what is held for it.
        downstream: The reply.
    """

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

    async def run(
        self, connection: ClientConnection, receive: Receive, authorize: Authorize | None
    ) -> None:
        """Carry it to its end, give back what it held, and tell the client what it has to know.

        Cancellation: as an end by `shutting_down`, without a word to the client.
        """
        exchange = self._exchange
        if self._settings.request_timeout_s:
            exchange.end_at(
                exchange.started_at + self._settings.request_timeout_s, EndCause.DEADLINE_EXCEEDED
            )
        forget = connection.on_gone(exchange.end)
        try:
            with exchange.scope:
                await self._carry(connection, receive, authorize)
            if not self._downstream.complete:
                exchange.note_deadline()
        except Exception:
            logger.exception("an exchange failed", extra={"request_id": self._request.request_id})
            if not self._downstream.complete:
                exchange.end_by_defect(InternalError("The proxy made a mistake."))
        finally:
            exchange.release()
            exchange.status = self._downstream.status
        await self._conclude()
        forget()

    async def _conclude(self) -> None:
        exchange = self._exchange
        await self._end_conversation()
        reply = exchange.reply()
        if reply is not None:
            await self._downstream.fail(reply)
            exchange.status = self._downstream.status

    async def _carry(
        self, connection: ClientConnection, receive: Receive, authorize: Authorize | None
    ) -> None:
        request, exchange, backend = self._request, self._exchange, self._backend
        try:
            if request.route.gated:
                await request.read(receive, allow_remote_media=self._settings.allow_remote_media)
            self._describe()
            lease = None if authorize is None else authorize(request)
            if lease is not None:
                exchange.take_lease(lease)
            request.ask_as_we_do(None if lease is None else lease.max_tokens)
            await self._supersede()
            upstream = await connect(
                backend,
                exchange,
                gated=request.route.gated,
                model=request.model,
                queue_timeout_s=self._settings.queue_timeout_s,
                comment=self._downstream.write_comment if request.wants_stream else None,
            )
            if request.body is not None and len(request.body) <= _SENT_AT_ONCE:
                await self._upload(receive, upstream)
                await self._download(connection, upstream)
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._upload, receive, upstream)
                await self._download(connection, upstream)
                nursery.cancel_scope.cancel()
        except HttpError as error:
            exchange.end(cause_of(error), error)

    def _describe(self) -> None:
        """Note what is asked for, for whoever looks at what is in flight."""
        request, exchange = self._request, self._exchange
        exchange.key_name, exchange.uses_slot = request.principal, request.route.gated
        if request.route.generates:
            exchange.upstream_route = request.route.label
            exchange.about = describe_request(
                request.route.label,
                request.fields,
                session=request.conversation,
                fast_path=request.fast_path,
                prediction=False,
                content=self._settings.show_content,
            )

    async def _supersede(self) -> None:
        """End the older request of the same conversation: llama-server has one for each."""
        conversation = self._request.conversation
        if conversation is None or not self._settings.forward_conversation_id:
            return
        self._exchange.conversation = (self._request.principal, conversation)
        if self._backend.exchanges.supersede(self._exchange):
            with trio.move_on_after(_END_OF_CONVERSATION_S):
                await self._backend.end_conversation(conversation)

    async def _upload(self, receive: Receive, upstream: UpstreamConnection) -> None:
        """Send the request; what breaks here shows in the response, or ends the exchange."""
        try:
            await upload(self._request, self._settings, self._backend.engine, receive, upstream)
        except UpstreamFailed:
            # llama-server may answer and close before it has read everything: the answer counts.
            return
        except HttpError as error:
            self._exchange.end(cause_of(error), error)

    async def _download(self, connection: ClientConnection, upstream: UpstreamConnection) -> None:
        try:
            self._exchange.enter(Phase.PREFILL)
            head = await upstream.receive_head()
            if self._downstream.started and head.status != 200:
                # Our queue comments have begun a stream with 200: the error becomes an event.
                raise await read_answered_error(head, upstream)
            answer = self._answer_to(head)
            self._request.forget_body()
            await answer.begin(head, self._client_fields(head))
            await self._relay_body(connection, upstream, answer)
            await answer.prepare()
            # A client may take its time over a whole answer: the slot is somebody else's by then.
            self._exchange.release_engine()
            await answer.deliver()
            self._exchange.finish()
            await answer.finish()
        except UpstreamFailed as error:
            await end_broken(self._backend, self._exchange, error)
        except HttpError as error:
            self._exchange.end(cause_of(error), error)
        else:
            self._exchange.usage = answer.usage()
            self._exchange.timings = find_timings(self._exchange.passing.tail(TAIL_BYTES))
            await self._learn_slots()

    def _answer_to(self, head: ResponseHead) -> Answer:
        request = self._request
        if not request.route.generates or not is_event_stream(head):
            return PassedOn(self._downstream)
        label, fields = request.route.label, request.fields
        assembler = assembler_for(label, fields, request.request_id)
        if assembler is None:
            return PassedOn(
                self._downstream, stream_filter(label, fields), end_marks(label, fields)
            )
        return PutTogether(self._downstream, assembler, self._backend.control())

    def _client_fields(self, head: ResponseHead) -> list[tuple[bytes, bytes]]:
        return header_policy.to_client(
            head.headers,
            request_id=self._request.request_id,
            via=self._settings.via,
            own_cors=self._settings.own_cors,
        )

    async def _relay_body(
        self, connection: ClientConnection, upstream: UpstreamConnection, answer: Answer
    ) -> None:
        exchange, engine = self._exchange, self._backend.engine
        while data := await self._next_of_body(upstream):
            engine.note_activity()
            if not await answer.take(data):
                exchange.progress = find_progress(data) or exchange.progress
                continue
            if exchange.first_byte_at is None:
                exchange.first_byte_at = trio.current_time()
                exchange.enter(Phase.DECODE)
            flow = answer.rest_of(upstream)
            if flow is not None:
                flow.send_timeout_s = connection.send_timeout_s
                await self._pump(connection, flow)
                return

    async def _next_of_body(self, upstream: UpstreamConnection) -> bytes:
        """Return what comes next; the head does not wait for what may take long."""
        if not upstream.holds_more:
            await self._downstream.send_head()
        return await upstream.receive_data()

    async def _pump(self, connection: ClientConnection, flow: Flow) -> None:
        """Leave the rest to the pump; a client that has half a chunk cannot be told anything."""
        try:
            await self._backend.pump.move(flow)
        except (SinkGone, SinkStalled) as error:
            stalled = isinstance(error, SinkStalled)
            connection.lose(EndCause.CLIENT_TOO_SLOW if stalled else EndCause.CLIENT_DISCONNECTED)
            await trio.sleep_forever()
        except PumpError as error:
            malformed = isinstance(error, SourceMalformed)
            raise UpstreamFailed(MALFORMED if malformed else BROKEN) from error
        finally:
            if flow.torn:
                connection.reset()

    async def _learn_slots(self) -> None:
        model = self._request.model
        if model is not None and self._request.route.gated and not self._backend.knows_slots(model):
            await self._backend.ask_slots(model)

    async def _end_conversation(self) -> None:
        """Stop a conversation that llama-server would go on with, unless its client just left."""
        conversation = self._request.conversation
        if (
            conversation is None
            or not self._settings.forward_conversation_id
            or self._exchange.cause in _CONVERSATION_GOES_ON
        ):
            return
        with trio.move_on_after(_END_OF_CONVERSATION_S, shield=True):
            await self._backend.end_conversation(conversation)
