"""From an exchange that may be carried to its connection with llama-server: the gate, and the dial.

Owns the wait: in the queue, with comments that keep a streaming client's connection alive, and over
a restart of llama-server; and what a connection that broke later means. It sends and receives
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio

from proxy.core.causes import EndCause, Phase
from proxy.core.ends import cause_of
from proxy.core.errors import UpstreamFailed
from proxy.runtime.backend import Backend
from proxy.runtime.exchange import Exchange
from proxy.runtime.gate import Ticket
from proxy.runtime.upstream import UpstreamConnection, open_upstream

# Proxies and clients between give up a silent connection after 30 to 60 s; half of that is safe.
QUEUE_COMMENT_S = 15.0
# How long a connect may take: llama-server's backlog of 128 is never full behind our gate.
CONNECT_TIMEOUT_S = 10.0


Comment = Callable[[str], Awaitable[None]]


async def connect(
    backend: Backend,
    exchange: Exchange,
    *,
    gated: bool,
    model: str | None,
    queue_timeout_s: float,
    comment: Comment | None = None,
) -> UpstreamConnection:
    """Pass the gate and connect; a launch that dies in between is waited out, not reported.

    Args:
        backend: The engine with its gates.
        exchange: Gets what is held for it; a ticket that it has already is used.
        gated: Whether it uses a slot.
        model: The model that it is for; matters only with a router.
        queue_timeout_s: How long it may wait, in seconds.
        comment: Tells a client that waits that it does; None for one that cannot be told.

    Raises:
        HttpError: What the gate refuses with.
        UpstreamFailed: llama-server runs and cannot be reached.

    Cancellation: what the exchange holds by then is its own to release.
    """
    give_up_at = trio.current_time() + queue_timeout_s
    while True:
        ticket = exchange.ticket
        if ticket is None:
            ticket = exchange.ticket = backend.gate_for(gated=gated, model=model).enter()
        await _wait_admitted(backend, exchange, ticket, give_up_at, comment)
        exchange.admitted_at = trio.current_time()
        exchange.enter(Phase.CONNECTING)
        generation = backend.engine.generation
        upstream = await _dial(backend)
        if upstream is not None:
            exchange.upstream, exchange.generation = upstream, generation
            return upstream
        if not await backend.crashed(generation):
            raise UpstreamFailed("llama-server could not be reached.")
        exchange.release_permit()
        exchange.enter(Phase.QUEUED)


async def end_broken(backend: Backend, exchange: Exchange, error: UpstreamFailed) -> None:
    """End an exchange on a broken connection: with the crash behind it, if there is one."""
    generation = exchange.generation
    # The permit is kept until the report is there: who is queued is not sent to a dying server.
    if generation is not None and await backend.crashed(generation):
        error = backend.crash_error()
    exchange.end(cause_of(error), error)


async def _dial(backend: Backend) -> UpstreamConnection | None:
    try:
        with trio.fail_after(CONNECT_TIMEOUT_S):
            return await open_upstream(backend.engine.address)
    except (UpstreamFailed, trio.TooSlowError):
        return None


async def _wait_admitted(
    backend: Backend,
    exchange: Exchange,
    ticket: Ticket,
    give_up_at: float,
    comment: Comment | None,
) -> None:
    while True:
        comment_at = math.inf if comment is None else trio.current_time() + QUEUE_COMMENT_S
        with trio.move_on_at(min(give_up_at, comment_at)):
            await ticket.wait_admitted()
            return
        if trio.current_time() >= give_up_at or comment is None:
            exchange.end(EndCause.QUEUE_TIMEOUT, backend.obstacle())
            await trio.sleep_forever()
        await comment(f"queued, position {ticket.position}")
