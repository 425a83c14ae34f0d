"""The exchange: one proxied request, from accepted to ended, and the registry of those in flight.

An exchange is the only owner of what a request holds: its cancel scope, its ticket at the gate, its
upstream connection, and the lease of the stream token that opened it. Whoever wants it to end calls
`Exchange.end` with a cause; the first cause stays. What it holds is given back by `release`, in one
place and in the order that promise P1 names: tasks gone, upstream closed, permit back, and only
then out of the registry.

It knows nothing of HTTP servers, routes or bodies. `end` and `release` do not block, so no cleanup
here needs a shield.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import trio

from proxy.core.causes import EndCause, Phase
from proxy.core.ends import reply_for
from proxy.core.errors import HttpError
from proxy.core.measures import Measures
from proxy.core.passing import Passing
from proxy.core.status.about import RequestAbout
from proxy.core.status.progress import Progress
from proxy.core.status.timings import Timings
from proxy.core.usage import Usage
from proxy.core.whole_events import SentCounts
from proxy.runtime.gate import Ticket
from proxy.runtime.stream_tokens import Lease
from proxy.runtime.upstream import UpstreamConnection

logger = logging.getLogger("proxy.exchange")


def _nobody() -> None:
    """Take what nobody wants to know."""


@dataclass(slots=True, eq=False)
class Exchange:
    """One request in flight.

    Attributes:
        request_id: The `X-Request-Id` it answers.
        route: The bounded route label, for logs and metrics.
        method: The request's method.
        started_at: Trio time in seconds at which it was accepted.
        phase: How far it has come; `enter` changes it.
        cause: Why it ended; None while it has not.
        error: What its client is told, where that is not the cause's own sentence.
        status: The status that its client was sent; None before.
        sent: What its client was sent.
        passing: What llama-server sends for it, as it passes.
        first_byte_at: Trio time at which llama-server's first byte of body arrived.
        admitted_at: Trio time at which it passed the gate.
        on_release: Called when it has given back what it held; set by the registry.
        on_change: Called when its phase or its cause is another; set by the registry.
        deadline_cause: What it ends by when its scope's deadline comes.
        usage: Tokens, as llama-server told at the end; zeros if it did not.
        generation: The engine's launch that it talks to; None until it connects.
        lease: What a stream token gave it; None without one.
        upstream_route: The route that llama-server is asked; None for one that does not generate.
        uses_slot: Whether llama-server works for it, and does not only answer beside its slots.
        key_name: The name of the API key that it came with.
        about: What it asks for, as far as it is shown.
        progress: How far prefill is, as llama-server told; None if it did not.
        timings: What the answer took, as llama-server told; None if it did not.
        conversation: Whose conversation it is of, where llama-server keeps one; its id.
    """

    request_id: str
    route: str
    method: str
    started_at: float
    phase: Phase = Phase.QUEUED
    cause: EndCause | None = None
    error: HttpError | None = None
    status: int | None = None
    sent: SentCounts = field(default_factory=SentCounts)
    passing: Passing = field(default_factory=Passing)
    admitted_at: float | None = None
    first_byte_at: float | None = None
    ticket: Ticket | None = None
    upstream: UpstreamConnection | None = None
    generation: int | None = None
    on_release: Callable[[], None] = lambda: None
    on_change: Callable[[], None] = _nobody
    lease: Lease | None = None
    conversation: tuple[str | None, str] | None = None
    usage: Usage = field(default_factory=Usage)
    upstream_route: str | None = None
    uses_slot: bool = False
    key_name: str | None = None
    about: RequestAbout = field(default_factory=RequestAbout)
    progress: Progress | None = None
    timings: Timings | None = None
    deadline_cause: EndCause = EndCause.DEADLINE_EXCEEDED
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def enter(self, phase: Phase) -> None:
        """Say how far it has come; its own task's to say."""
        self.phase = phase
        self.on_change()

    def end(self, cause: EndCause, error: HttpError | None = None) -> None:
        """End it for `cause`, at once; a later cause changes nothing.

        Args:
            cause: Why.
            error: What the client is told instead of the cause's own sentence.
        """
        if self.cause is not None:
            return
        self.cause = cause
        self.error = error
        self.scope.cancel(reason=cause.value)
        self.on_change()

    def end_at(self, when: float, cause: EndCause) -> None:
        """End it for `cause` at Trio time `when`, unless something else ends it before."""
        if when < self.scope.deadline:
            self.scope.deadline, self.deadline_cause = when, cause

    def note_deadline(self) -> None:
        """Say that its scope has been left: if nobody ended it, its deadline did.

        Also one whose answer was complete and had not been taken yet by its client.
        """
        if self.scope.cancelled_caught:
            if self.cause is EndCause.FINISHED and self.error is None:
                self.cause = None
            self.end(self.deadline_cause)

    def end_by_defect(self, error: HttpError) -> None:
        """End it for a mistake of ours, also one made after its answer was called complete.

        Args:
            error: What the client is told.
        """
        if self.cause is EndCause.FINISHED:
            self.cause = None
        self.end(EndCause.INTERNAL_ERROR, error)

    def take_lease(self, lease: Lease) -> None:
        """Live as long as `lease` does: its end and its revocation are this exchange's."""
        self.lease = lease
        lease.bind(self.end)
        if lease.ends_at is not None:
            self.end_at(lease.ends_at, EndCause.TOKEN_EXPIRED)

    def finish(self) -> None:
        """Say that its answer is complete, before its last byte is sent.

        A FIN that follows the last byte is then no cause any more.
        """
        if self.cause is None:
            self.cause = EndCause.FINISHED
            self.on_change()

    def release(self) -> None:
        """Close the upstream, give the permit and the lease back; idempotent, does not block."""
        self.generation = None
        self.release_engine()
        if self.lease is not None:
            self.lease.release()
            self.lease = None

    def release_engine(self) -> None:
        """Close the upstream and give the permit back, and keep the rest; idempotent."""
        if self.upstream is not None:
            self.upstream.close()
            self.upstream = None
        self.release_permit()
        self.on_release()

    def release_permit(self) -> None:
        """Give the permit, or the place in the queue, back and keep the rest; idempotent."""
        if self.ticket is not None:
            self.ticket.leave()
            self.ticket = None

    def reply(self) -> HttpError | None:
        """Return the error that its client is to be told; None for a client that needs none."""
        if self.error is not None:
            return self.error
        return None if self.cause is None else reply_for(self.cause)


class ExchangeObserver(Protocol):
    """Who wants to know how exchanges go on; its methods neither block nor raise."""

    def opened(self, exchange: Exchange) -> None:
        """Take that there is a new one."""
        ...

    def changed(self, exchange: Exchange) -> None:
        """Take that one has another phase, or a cause."""
        ...

    def ended(self, exchange: Exchange) -> None:
        """Take that one is over and measured."""
        ...


class ExchangeRegistry:
    """The exchanges in flight, and the measures of those that ended.

    Attributes:
        measures: Of those that ended.
        total: How many there have been, with those in flight.
        observer: Is told of each; None for nobody.
    """

    def __init__(self) -> None:
        self.measures = Measures()
        self.total = 0
        self.observer: ExchangeObserver | None = None
        self._live: dict[Exchange, None] = {}
        self._released = trio.Event()

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Exchange]:
        return iter(tuple(self._live))

    @contextmanager
    def open(self, exchange: Exchange) -> Iterator[Exchange]:
        """Keep `exchange` in the registry while the block runs, then log its one line.

        The block must have called `release` before it ends; what it forgot is given back here.
        """
        self._live[exchange] = None
        self.total += 1
        exchange.on_release = self._note_release
        observer = self.observer
        if observer is not None:
            exchange.on_change = partial(observer.changed, exchange)
            observer.opened(exchange)
        try:
            yield exchange
        finally:
            exchange.release()
            exchange.enter(Phase.ENDED)
            del self._live[exchange]
            _measure_end(exchange, self.measures)
            _log_end(exchange)
            if observer is not None:
                observer.ended(exchange)
                # Else the two would hold each other until the collector comes by.
                exchange.on_change = _nobody

    def _note_release(self) -> None:
        self._released.set()

    def end_all(
        self,
        cause: EndCause,
        error: Callable[[], HttpError] | None = None,
        *,
        only: Callable[[Exchange], bool] = lambda exchange: True,
    ) -> None:
        """End every exchange that `only` selects; does not wait for them."""
        for exchange in self:
            if only(exchange):
                exchange.end(cause, error() if error is not None else None)

    def supersede(self, newer: Exchange) -> bool:
        """End the older exchanges of `newer`'s conversation; return whether there was one."""
        older = [
            found
            for found in self
            if found is not newer and found.conversation == newer.conversation
        ]
        for found in older:
            found.end(EndCause.SUPERSEDED)
        return bool(older)

    async def wait_none_on_engine(self) -> None:
        """Wait until no exchange holds a connection to llama-server.

        Cancellation: nothing changes.
        """
        while any(exchange.upstream is not None for exchange in self._live):
            # Several may wait: each event is everybody's.
            if self._released.is_set():
                self._released = trio.Event()
            await self._released.wait()


def _measure_end(exchange: Exchange, measures: Measures) -> None:
    now = trio.current_time()
    admitted, first_byte = exchange.admitted_at, exchange.first_byte_at
    measures.exchanges[exchange.route, _cause(exchange)] += 1
    measures.bytes_sent += exchange.sent.bytes
    measures.count_phase(Phase.QUEUED.value, (admitted or now) - exchange.started_at)
    if admitted is not None:
        measures.count_phase(Phase.PREFILL.value, (first_byte or now) - admitted)
    if first_byte is not None:
        measures.count_phase(Phase.DECODE.value, now - first_byte)
        measures.count_first_token(exchange.route, first_byte - exchange.started_at)
    measures.tokens["prompt"] += exchange.usage.prompt_tokens
    measures.tokens["completion"] += exchange.usage.completion_tokens


def _cause(exchange: Exchange) -> str:
    """Return its end cause; an exchange that was cancelled from outside ends with the server."""
    return (exchange.cause or EndCause.SHUTTING_DOWN).value


def _log_end(exchange: Exchange) -> None:
    now = trio.current_time()
    cause = _cause(exchange)
    fields = {
        "request_id": exchange.request_id,
        "method": exchange.method,
        "route": exchange.route,
        "status": exchange.status,
        "cause": cause,
        "bytes": exchange.sent.bytes,
        "queued_s": _elapsed(exchange.started_at, exchange.admitted_at),
        "first_byte_s": _elapsed(exchange.started_at, exchange.first_byte_at),
        "prompt_tokens": exchange.usage.prompt_tokens,
        "completion_tokens": exchange.usage.completion_tokens,
        "total_s": round(now - exchange.started_at, 4),
    }
    logger.info(
        "%s %s -> %s %s", exchange.method, exchange.route, exchange.status, cause, extra=fields
    )


def _elapsed(start: float, end: float | None) -> float | None:
    return None if end is None else round(end - start, 4)
