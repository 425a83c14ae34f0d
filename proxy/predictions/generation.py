"""How the text of a prediction is had from llama-server: gate, connection, request, answer.

Owns the exchange's way from its ticket to the end of the answer. What is made of the text is the
teller's; how an exchange ends otherwise, and what it held is given back, is `live`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import trio

from proxy.core import headers as header_policy
from proxy.core.causes import Phase
from proxy.core.errors import HttpError, RelayedError, UpstreamFailed
from proxy.core.predictions.answer import AnswerReader, Output, Thought
from proxy.core.predictions.inputs import UpstreamRequest
from proxy.core.status.progress import find_progress
from proxy.core.status.timings import find_timings
from proxy.core.usage import TAIL_BYTES, Usage
from proxy.relay.answered_error import read_answered_error
from proxy.relay.answers import CUT_SHORT
from proxy.relay.connecting import connect
from proxy.runtime.backend import Backend
from proxy.runtime.exchange import Exchange
from proxy.runtime.upstream import Field, UpstreamConnection

# One read can bring more events than a log holds, after we were busy: who follows is let have some
# of them before the next come, and misses none.
_MOST_AT_ONCE = 64


class Teller(Protocol):
    """Is told how the prediction goes on."""

    def began(self) -> None:
        """Take that it has its slot."""
        ...

    def said(self, text: str) -> None:
        """Take a piece of its output."""
        ...

    def thought(self, text: str) -> None:
        """Take a piece of what the model thought before."""
        ...

    def flush(self) -> None:
        """Take that all that came together has been told."""
        ...

    def measured(self, metrics: dict[str, int | float]) -> None:
        """Take what llama-server measured at the end."""
        ...


async def generate(
    backend: Backend,
    exchange: Exchange,
    asked: UpstreamRequest,
    teller: Teller,
    *,
    queue_timeout_s: float,
) -> None:
    """Have the whole answer, or raise why it is not to be had.

    Args:
        backend: The engine with its gates.
        exchange: Has its ticket; gets the connection.
        asked: What llama-server is asked.
        teller: Is told each piece as it comes.
        queue_timeout_s: How long it may wait for a slot, in seconds.

    Raises:
        UpstreamFailed: The connection broke, or llama-server ended the answer too early.
        HttpError: llama-server refused, or told an error; or nobody could be asked.

    Cancellation: what the exchange holds by then is its own to release.
    """
    upstream = await connect(
        backend, exchange, gated=True, model=model_of(asked), queue_timeout_s=queue_timeout_s
    )
    teller.began()
    exchange.enter(Phase.PREFILL)
    failure: HttpError | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send, backend, exchange, asked, upstream)
        try:
            await _receive(backend, exchange, AnswerReader(asked.path), upstream, teller)
        except HttpError as error:
            # Raised outside: it is one error, and would leave the nursery in a group.
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def model_of(asked: UpstreamRequest) -> str | None:
    """Return the model that is asked for; matters only with a router."""
    model = asked.fields.get("model")
    return model if isinstance(model, str) else None


async def _send(
    backend: Backend, exchange: Exchange, asked: UpstreamRequest, upstream: UpstreamConnection
) -> None:
    body, target = asked.as_body(), _target(backend, asked)
    try:
        await upstream.send_whole(b"POST", target, _fields(backend, exchange, len(body)), body)
    except UpstreamFailed:
        # llama-server may answer and close before it has read everything: the answer counts.
        return


def _target(backend: Backend, asked: UpstreamRequest) -> bytes:
    return (backend.engine.address.base_path + asked.path).encode()


def _fields(backend: Backend, exchange: Exchange, length: int) -> list[Field]:
    engine = backend.engine
    fields = header_policy.to_upstream(
        [(b"Content-Type", b"application/json")],
        authority=engine.address.authority,
        # Empty for a moment after a crash: the connection is broken then, and will say so.
        api_key=engine.api_key or None,
        request_id=exchange.request_id,
    )
    return [*fields, (b"Content-Length", b"%d" % length), (b"Connection", b"close")]


async def _receive(
    backend: Backend,
    exchange: Exchange,
    reader: AnswerReader,
    upstream: UpstreamConnection,
    teller: Teller,
) -> None:
    head = await upstream.receive_head()
    if head.status != 200:
        raise await read_answered_error(head, upstream)
    while data := await upstream.receive_data():
        backend.engine.note_activity()
        exchange.passing.note(data)
        if exchange.first_byte_at is None:
            exchange.progress = find_progress(data) or exchange.progress
        await _tell_all(reader.feed(data), exchange, teller)
        if reader.error is not None:
            break
    if reader.error is not None:
        # A head that said 200 came before it.
        raise RelayedError(500, "server_error", reader.error)
    if not reader.whole:
        raise UpstreamFailed(CUT_SHORT)
    metrics = reader.metrics()
    exchange.usage = Usage(
        int(metrics.get("prompt_tokens", 0)), int(metrics.get("completion_tokens", 0))
    )
    exchange.timings = find_timings(exchange.passing.tail(TAIL_BYTES))
    teller.measured(metrics)


async def _tell_all(pieces: Sequence[Output | Thought], exchange: Exchange, teller: Teller) -> None:
    for number, piece in enumerate(pieces, start=1):
        if exchange.first_byte_at is None:
            exchange.first_byte_at = trio.current_time()
            exchange.enter(Phase.DECODE)
        exchange.sent.events += 1
        tell = teller.said if isinstance(piece, Output) else teller.thought
        tell(piece.text)
        if number % _MOST_AT_ONCE == 0:
            teller.flush()
            await trio.lowlevel.checkpoint()
    teller.flush()
