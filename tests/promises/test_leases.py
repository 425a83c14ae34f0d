"""P6: a stream ends with the lease of the token that opened it, and with the token's revocation.

In every phase the slot is idle and the permit back within 250 ms of that moment, and the client is
told why. The leases are short and real: nobody turns a clock.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import product

import pytest
import trio

import proxy
from proxy import EndCause, LlamaServer, StreamToken
from proxy.fastpath.door import PATHS
from tests.conftest import Running
from tests.fakes.engines import fake_engine, nothing_left
from tests.fakes.engines import running as fake_running
from tests.fakes.scripted_server import answering, scripted_server
from tests.fakes.staged_engine import StagedEngine
from tests.promises.listeners import FAST, Listener
from tests.promises.observe import (
    FREE_WITHIN_S,
    exchange_of,
    held,
    leaves_nothing,
    until,
    wait_busy,
)
from tests.promises.replies import CHUNKED_END, error_told
from tests.promises.test_matrix import (
    MOMENTS,
    NAME,
    Moment,
    Scene,
    bring_to,
    engine_for,
    neighbours,
)
from tests.promises.test_prefill import BODIES as LONG_BODIES
from tests.promises.test_prefill import SMALL_BATCHES
from tests.promises.wire import wire

# Time enough to bring an exchange to any of its moments on a busy machine.
LEASE_S = 0.8

HELLO: dict[str, object] = {"messages": [{"role": "user", "content": "Go on."}]}
STREAM = {**HELLO, "stream": True}
ENDLESS = {"ignore_eos": True, "max_tokens": 30000, "n_predict": 30000, "max_output_tokens": 30000}


# --- ways ---


@dataclass(frozen=True, slots=True)
class Way:
    """How the token ends its stream.

    Attributes:
        act: Brings it about, and returns the Trio time at which the stream has to end.
        cause: What the log has to call it.
        words: A part of what the client is told.
        lease_s: The token's lease.
    """

    act: Callable[[proxy.ProxyServer, StreamToken], Awaitable[float]]
    cause: EndCause
    words: str
    lease_s: float


async def outlive_lease(server: proxy.ProxyServer, token: StreamToken) -> float:
    """Do nothing: it ends by itself."""
    exchange = exchange_of(server, NAME)
    assert exchange is not None
    assert exchange.lease is not None
    assert exchange.lease.ends_at is not None
    # Else the exchange had not come to its moment before.
    assert trio.current_time() < exchange.lease.ends_at
    return exchange.lease.ends_at


async def revoke(server: proxy.ProxyServer, token: StreamToken) -> float:
    """Delete the token, at the main listener."""
    due = trio.current_time()
    async with wire(server.port) as client:
        line = f"DELETE /v1/stream-tokens/{token.id} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        await client.send(line.encode())
        assert await client.read_until(b"\r\n\r\n")
        assert client.received.startswith(b"HTTP/1.1 204")
    return due


WAYS = {
    "lease": Way(outlive_lease, EndCause.TOKEN_EXPIRED, "lease", LEASE_S),
    "revoked": Way(revoke, EndCause.TOKEN_REVOKED, "revoked", 600.0),
}
each_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
each_form = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


def opened_by(token: StreamToken) -> Listener:
    """Return the fast listener to a client that has this token."""
    return replace(FAST, credentials=lambda _: (f"X-Stream-Token: {token.token}",))


async def check_ended(server: proxy.ProxyServer, due: float, *, busy: int = 0) -> None:
    """By 250 ms after `due`, and not before it, the exchange is gone, permit and slot are back.

    Args:
        server: The proxy.
        due: When the stream has to end, in Trio's time.
        busy: How many other slots work.
    """
    await until(lambda: exchange_of(server, NAME) is None)
    gone_after_s = trio.current_time() - due
    engine = server._backend.engine
    if isinstance(engine, LlamaServer):
        await wait_busy(engine, busy)
    assert trio.current_time() - due < FREE_WITHIN_S
    assert gone_after_s > 0
    found = held(server)
    assert (found["permit"], found["place"], found["lease"]) == (busy, 0, busy)


def check_told(received: bytes, way: Way, *, begun: bool) -> None:
    """A stream that had begun ends with an error event, any other reply is an error status."""
    error = error_told(received)
    assert (error["code"], error["type"]) == (401, "authentication_error")
    assert way.words in str(error["message"])
    assert received.startswith(b"HTTP/1.1 200 OK") == begun


# --- in every phase ---

CASES = list(product(MOMENTS, WAYS))


@each_form
@pytest.mark.parametrize(("moment", "name"), CASES, ids=[", ".join(case) for case in CASES])
async def test_stream_ends_with_its_token_in_every_phase(
    moment: str, name: str, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Beside other streams, which go on; log and metrics name the cause, and nothing is left."""
    caplog.set_level(logging.INFO, "proxy.exchange")
    at, way = MOMENTS[moment], WAYS[name]
    with nothing_left():
        async with at_moment(at, way, stream=stream) as (scene, token):
            due = await way.act(scene.server, token)
            await check_ended(scene.server, due, busy=at.neighbours)
            check_told(await scene.client.read_to_end(), way, begun=at.begun and stream)
            ended = scene.server._backend.exchanges.measures.exchanges
            assert ended["/v1/chat/completions", way.cause] == 1
    (record,) = [found for found in caplog.records if getattr(found, "request_id", "") == NAME]
    assert record.cause == way.cause  # type: ignore[attr-defined]


@asynccontextmanager
async def at_moment(
    at: Moment, way: Way, *, stream: bool
) -> AsyncIterator[tuple[Scene, StreamToken]]:
    """Bring an exchange that a token opened to a moment of its life."""
    async with (
        engine_for(at) as engine,
        proxy.open_proxy(engine, port=0, drain_s=0.05) as server,
        leaves_nothing(server),
        neighbours(FAST, server, at.neighbours),
    ):
        token = server.stream_tokens.issue(lease_s=way.lease_s)
        listener = opened_by(token)
        async with listener.wire(server) as client:
            scene = Scene(engine, server, client)
            await bring_to(at, listener, scene, stream)
            yield scene, token


@each_way
async def test_client_that_does_not_read_does_not_keep_its_slot(way: Way) -> None:
    """It cannot be told, and is not waited for: neither slot nor permit is its any more."""
    async with (
        fake_running(fake_engine()) as engine,
        proxy.open_proxy(engine, port=0, send_timeout_s=1) as server,
        leaves_nothing(server),
    ):
        token = server.stream_tokens.issue(lease_s=way.lease_s)
        async with opened_by(token).wire(server, receive_buffer=4096) as client:
            query = "events=100000&padding=20000"
            await client.post(f"/stream?{query}", STREAM, f"X-Request-Id: {NAME}")
            await wait_busy(engine, 1)
            due = await way.act(server, token)
            await until(lambda: held(server)["lease"] == 0)
            await wait_busy(engine, 0)
            assert 0 < trio.current_time() - due < FREE_WITHIN_S
            assert held(server)["permit"] == 0
            await until(lambda: server.in_flight == 0)


async def test_lease_that_has_no_end_ends_nothing(running: Running) -> None:
    """Where the operator allows it: the stream comes to its own end."""
    token = running.server.stream_tokens.issue(lease_s=0)
    async with opened_by(token).wire(running.server) as client:
        await client.post("/stream", {**HELLO, "max_tokens": 5}, "Connection: close")
        assert b'"finish_reason":"length"' in await client.read_to_end()


# --- a real llama-server ---


@each_way
@each_form
@pytest.mark.parametrize("path", ["/stream", "/completion"])
async def test_real_llama_servers_slot_is_idle_when_its_token_ends(
    running: Running, path: str, stream: bool, way: Way
) -> None:
    """In decode, beside a stream of somebody else's."""
    server, engine = running.server, running.engine
    token = server.stream_tokens.issue(lease_s=way.lease_s)
    body = {**ENDLESS, **HELLO, "prompt": "Go on."}
    async with (
        FAST.wire(server) as other,
        opened_by(token).wire(server) as client,
        trio.open_nursery() as nursery,
    ):
        await other.post(path, {**body, "stream": True})
        await other.read_until(b"data: ")
        fields = (f"X-Request-Id: {NAME}", "Connection: close")
        await client.post(path, {**body, "stream": stream}, *fields)
        await wait_busy(engine, 2)
        if stream:
            await client.read_until(b"data: ")
        nursery.start_soon(client.read_to_end)
        await check_ended(server, await way.act(server, token), busy=1)
    check_told(client.received, way, begun=stream)


@each_way
@each_form
async def test_real_llama_servers_prefill_ends_with_the_token(stream: bool, way: Way) -> None:
    """Within a batch, which is a small one here."""
    async with (
        proxy.open_llama_server(extra_args=SMALL_BATCHES) as engine,
        proxy.open_proxy(engine, port=0) as server,
        leaves_nothing(server),
    ):
        token = server.stream_tokens.issue(lease_s=min(way.lease_s, 0.4))
        async with opened_by(token).wire(server) as client:
            body = {**ENDLESS, **LONG_BODIES["/v1/chat/completions"], "stream": stream}
            await client.post("/stream", body, f"X-Request-Id: {NAME}", "Connection: close")
            await wait_busy(engine, 1)
            await check_ended(server, await way.act(server, token))
            received = await client.read_to_end()
    # Progress may have come, of which nothing was sent but the head.
    check_told(received, way, begun=received.startswith(b"HTTP/1.1 200"))
    assert b'"content":"' not in received


# --- what is told ---

BEGUN = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'f\r\ndata: {"a":1}\n\n\r\n'
)


@pytest.mark.parametrize("path", sorted(PATHS))
async def test_streams_end_is_told_in_its_dialect(path: str) -> None:
    """As every other error inside a stream of that route is."""
    engine = StagedEngine()
    async with (
        scripted_server(answering(BEGUN, stay=True)) as engine.told_address,
        proxy.open_proxy(engine, port=0) as server,
    ):
        token = server.stream_tokens.issue()
        async with opened_by(token).wire(server) as client:
            await client.post(path, {"stream": True}, "Connection: close")
            await client.read_until(b"data: ")
            server.stream_tokens.revoke(token.id)
            received = await client.read_to_end()
    assert received.endswith(CHUNKED_END)
    event = received.removesuffix(CHUNKED_END).strip().rsplit(b"\r\n", 1)[-1]
    named = "responses" in path or "messages" in path
    assert event.startswith(b"event: error\ndata: {" if named else b'data: {"error": {')
    assert b"The stream token was revoked." in event
    assert b"[DONE]" not in received
