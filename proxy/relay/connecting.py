"""From an exchange that may be carried to its connection with llama-server: the gate, and the dial.

Owns the wait: in the queue, with comments that keep a streaming client's connection alive, and over
a restart of llama-server. It sends and receives nothing.
"""

from __future__ import annotations

import math

import trio

from proxy.core.causes import EndCause, Phase
from proxy.core.errors import UpstreamFailed
from proxy.relay.downstream import Downstream
from proxy.relay.relayed_request import RelayedRequest
from proxy.runtime.backend import Backend
from proxy.runtime.exchange import Exchange
from proxy.runtime.upstream import UpstreamConnection, open_upstream

# Proxies and clients between give up a silent connection after 30 to 60 s; half of that is safe.
QUEUE_COMMENT_S = 15.0
# How long a connect may take: llama-server's backlog of 128 is never full behind our gate.
CONNECT_TIMEOUT_S = 10.0


async def connect(
    backend: Backend,
    request: RelayedRequest,
    exchange: Exchange,
    downstream: Downstream,
    *,
    queue_timeout_s: float,
) -> UpstreamConnection:
    """Pass the gate and connect; a launch that dies in between is waited out, not reported.

    Raises:
        HttpError: What the gate refuses with.
        UpstreamFailed: llama-server runs and cannot be reached.

    Cancellation: what the exchange holds by then is its own to release.
    """
    give_up_at = trio.current_time() + queue_timeout_s
    while True:
        await _pass_gate(backend, request, exchange, downstream, give_up_at)
        exchange.admitted_at = trio.current_time()
        exchange.phase = Phase.CONNECTING
        generation = backend.engine.generation
        upstream = await _dial(backend)
        if upstream is not None:
            exchange.upstream, exchange.generation = upstream, generation
            return upstream
        if not await backend.crashed(generation):
            raise UpstreamFailed("llama-server could not be reached.")
        exchange.release_permit()
        exchange.phase = Phase.QUEUED


async def _dial(backend: Backend) -> UpstreamConnection | None:
    try:
        with trio.fail_after(CONNECT_TIMEOUT_S):
            return await open_upstream(backend.engine.address)
    except (UpstreamFailed, trio.TooSlowError):
        return None


async def _pass_gate(
    backend: Backend,
    request: RelayedRequest,
    exchange: Exchange,
    downstream: Downstream,
    give_up_at: float,
) -> None:
    gate = backend.gate_for(gated=request.route.gated, model=request.model)
    ticket = exchange.ticket = gate.enter()
    while True:
        comment_at = trio.current_time() + QUEUE_COMMENT_S if request.wants_stream else math.inf
        with trio.move_on_at(min(give_up_at, comment_at)):
            await ticket.wait_admitted()
            return
        if trio.current_time() >= give_up_at:
            exchange.end(EndCause.QUEUE_TIMEOUT, backend.obstacle())
            await trio.sleep_forever()
        await downstream.write_comment(f"queued, position {ticket.position}")
