"""P1, P2 and P3 as one table: in every phase, for every way to end, nothing is left.

Each case brings one exchange to a moment of its life, beside other streams, and ends it in one way.
Then llama-server's slot is idle within 250 ms, the exchange is gone and its permit back, its client
was told the truth, the log names the cause, the other streams go on, and no task, descriptor or
child is left.

llama-server is the fake one here, which stays at any moment for as long as it is wanted; the same
with a real one, as far as a real one can be brought there: `test_leaving`, `test_prefill`,
`test_broken_upstream`.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product

import pytest
import trio

import proxy
from proxy import EndCause, LlamaServer, Phase, ProxyServer
from proxy.runtime.exchange import Exchange
from proxy.runtime.external import ExternalServer
from proxy.runtime.outbound import ControlClient
from tests.fakes.deaf_upstream import deaf_upstream
from tests.fakes.engines import fake_engine, nothing_left
from tests.fakes.engines import running as fake_running
from tests.promises.listeners import Listener
from tests.promises.observe import (
    FREE_WITHIN_S,
    exchange_of,
    held,
    idle_after_s,
    leaves_nothing,
    until,
)
from tests.promises.replies import CHUNKED_END, error_told
from tests.promises.wire import PATIENCE_S, Leave, Wire, wire

Engine = LlamaServer | ExternalServer

WHOLE = {"messages": [{"role": "user", "content": "Go on."}]}
SLOTS = 2
NAME = "mine"


# --- moments ---


@dataclass(frozen=True, slots=True)
class Moment:
    """How far the exchange has come when it ends.

    Attributes:
        phase: Its phase.
        query: Asks the fake llama-server to stay there.
        stage: What the fake is about to send it; None where it has not come to the fake.
        neighbours: How many streams are decoded beside it.
        begun: Whether a streaming client has the head of its reply.
    """

    phase: Phase
    query: str = ""
    stage: str | None = None
    neighbours: int = 1
    begun: bool = False


MOMENTS = {
    "queued": Moment(Phase.QUEUED, neighbours=SLOTS),
    "connecting": Moment(Phase.CONNECTING, neighbours=0),
    "before the first byte": Moment(Phase.PREFILL, "first_s=600", "head"),
    "prefill": Moment(Phase.PREFILL, "progress=100000&pace_s=0.01", "progress", begun=True),
    "decode": Moment(Phase.DECODE, "events=100000&pace_s=0.01", "tokens", begun=True),
}


# --- ways ---


@dataclass(slots=True)
class Scene:
    """An exchange at its moment, and all that can end it."""

    engine: Engine
    server: ProxyServer
    client: Wire

    @property
    def exchange(self) -> Exchange:
        """The exchange, which is in flight."""
        found = exchange_of(self.server, NAME)
        assert found is not None
        return found

    @property
    def llama_server(self) -> LlamaServer:
        """The fake."""
        assert isinstance(self.engine, LlamaServer)
        return self.engine

    @property
    def control(self) -> ControlClient:
        """What asks the fake."""
        return ControlClient(self.engine.address, self.engine.api_key)

    async def end_reply(self, how: str) -> None:
        """Let the fake end its reply so."""
        await self.control.ask(f"/fake/end?name={NAME}&end={how}", {})


@dataclass(frozen=True, slots=True)
class Way:
    """How the exchange ends.

    Attributes:
        act: Does it.
        cause: What the log has to call it.
        error: Status and type that the client is told; None for a client that left.
        spares: Whether the other streams go on.
        gone_within_s: How soon the exchange is gone and its permit back.
    """

    act: Callable[[Scene], Awaitable[None]]
    cause: EndCause
    error: tuple[int, str] | None = None
    spares: bool = True
    gone_within_s: float = FREE_WITHIN_S


def client_does(leave: Leave) -> Callable[[Scene], Awaitable[None]]:
    """Return a way of the client's."""

    async def act(scene: Scene) -> None:
        leave(scene.client)

    return act


def upstream_does(how: str) -> Callable[[Scene], Awaitable[None]]:
    """Return a way of llama-server's."""

    async def act(scene: Scene) -> None:
        await scene.end_reply(how)

    return act


async def cancel_as_admin(scene: Scene) -> None:
    """Delete it."""
    async with wire(scene.server.port) as admin:
        await admin.send(
            f"DELETE /proxy/exchanges/{NAME} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        )
        await admin.read_until(b"HTTP/1.1 204")


async def let_deadline_come(scene: Scene) -> None:
    """Bring the deadline of `--request-timeout-s` forward, which no test should wait for."""
    assert scene.exchange.scope.deadline < float("inf")
    scene.exchange.scope.deadline = trio.current_time()


async def shut_down(scene: Scene) -> None:
    """Drain, and cut what outlasts it."""
    await scene.server.drain()


async def kill_llama_server(scene: Scene) -> None:
    """Kill it, and wait for the next."""
    engine = scene.llama_server
    os.kill(engine.pid or 0, signal.SIGKILL)
    with trio.fail_after(PATIENCE_S):
        await engine.wait_exited(1)
        await engine.wait_ready()


async def stall_and_leave(scene: Scene) -> None:
    """Nothing comes any more, so the client gives up."""
    await scene.end_reply("stall")
    scene.client.fin()


GONE = EndCause.CLIENT_DISCONNECTED
# A broken connection may be a crash: half a second is given to the report of the process's end.
BROKEN = partial(
    Way,
    cause=EndCause.UPSTREAM_ERROR,
    error=(502, "upstream_error"),
    gone_within_s=FREE_WITHIN_S + 0.5,
)
WAYS = {
    "FIN": Way(client_does(Wire.fin), GONE),
    "RST": Way(client_does(Wire.reset), GONE),
    "half-close": Way(client_does(Wire.half_close), GONE),
    "admin": Way(cancel_as_admin, EndCause.CANCELLED_BY_ADMIN, (503, "unavailable_error")),
    "deadline": Way(let_deadline_come, EndCause.DEADLINE_EXCEEDED, (504, "timeout_error")),
    "shutdown": Way(shut_down, EndCause.SHUTTING_DOWN, (503, "unavailable_error"), spares=False),
    "kill -9": Way(
        kill_llama_server, EndCause.UPSTREAM_CRASHED, (502, "upstream_error"), spares=False
    ),
    "upstream RST": BROKEN(upstream_does("reset")),
    "upstream FIN": BROKEN(upstream_does("cut")),
    "upstream ends mid-chunk": BROKEN(upstream_does("mid_chunk")),
    "upstream stalls, FIN": Way(stall_and_leave, GONE),
}

OF_UPSTREAM = [way for way in WAYS if way == "kill -9" or way.startswith("upstream")]
LEFT_OUT = {
    **{
        ("queued", way): "it is not with llama-server: it waits for the next launch, or a permit"
        for way in OF_UPSTREAM
    },
    **{
        ("connecting", way): "nobody is there to do it: the kernel gives up after some seconds"
        for way in OF_UPSTREAM
    },
    ("before the first byte", "upstream ends mid-chunk"): "there is no chunk yet",
    ("before the first byte", "upstream stalls, FIN"): "it is what FIN at this moment is",
}
CASES = [case for case in product(MOMENTS, WAYS) if case not in LEFT_OUT]


# --- the cases ---


def test_every_combination_is_run_or_left_out_for_a_reason() -> None:
    """No name in the table is a slip of the pen."""
    assert set(LEFT_OUT) <= set(product(MOMENTS, WAYS))


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize(("moment", "way"), CASES, ids=[", ".join(case) for case in CASES])
async def test_nothing_is_left_of_an_exchange(
    listener: Listener, moment: str, way: str, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Slot, permit, exchange, tasks, descriptors, children; and the cause is told."""
    caplog.set_level(logging.INFO, "proxy.exchange")
    at, end = MOMENTS[moment], WAYS[way]
    with nothing_left():
        async with (
            engine_for(at) as engine,
            proxy.open_proxy(engine, port=0, drain_s=0.05, request_timeout_s=60) as server,
            leaves_nothing(server),
            neighbours(listener, server, at.neighbours),
            listener.wire(server) as client,
        ):
            scene = Scene(engine, server, client)
            await bring_to(at, listener, scene, stream)
            await end.act(scene)
            await check_freed(end, scene, at.neighbours if end.spares else 0)
            await check_told(end, client, begun=at.begun and stream)
    (record,) = [found for found in caplog.records if getattr(found, "request_id", "") == NAME]
    assert record.cause == end.cause  # type: ignore[attr-defined]


@asynccontextmanager
async def engine_for(moment: Moment) -> AsyncIterator[Engine]:
    """Run the engine that keeps an exchange at `moment`."""
    if moment.phase is not Phase.CONNECTING:
        async with fake_running(fake_engine("--fake-slots", str(SLOTS))) as engine:
            yield engine
        return
    async with deaf_upstream() as deaf, proxy.open_upstream(deaf.url) as upstream:
        await deaf.turn_deaf()
        yield upstream


@asynccontextmanager
async def neighbours(listener: Listener, server: ProxyServer, count: int) -> AsyncIterator[None]:
    """Have so many streams decoded while the block runs."""
    async with AsyncExitStack() as stack:
        for _ in range(count):
            other = await stack.enter_async_context(listener.wire(server))
            await other.post(
                f"{listener.chat}?events=100000&pace_s=0.02", {**WHOLE, "stream": True}
            )
            await other.read_until(b'"content"')
        yield


async def bring_to(moment: Moment, listener: Listener, scene: Scene, stream: bool) -> None:
    """Send the request, and wait until its exchange is there."""
    target = f"{listener.chat}?name={NAME}&{moment.query}"
    fields = (f"X-Request-Id: {NAME}", "Connection: close")
    await scene.client.post(target, {**WHOLE, "stream": stream}, *fields)
    if moment.phase is Phase.QUEUED:
        await until(lambda: held(scene.server)["place"] == 1)
    if moment.stage is not None:
        with trio.fail_after(PATIENCE_S):
            while await scene.control.get_json(f"/fake/stage?name={NAME}") != {
                "stage": moment.stage
            }:
                await trio.sleep(0.002)
    await until(partial(is_in, scene.server, moment.phase))
    if moment.begun and stream:
        await scene.client.read_until(b"\r\n\r\n")


def is_in(server: ProxyServer, phase: Phase) -> bool:
    """Return whether the exchange has come so far."""
    found = exchange_of(server, NAME)
    return found is not None and found.phase is phase


async def check_freed(way: Way, scene: Scene, spared: int) -> None:
    """Within 250 ms the slot is idle, and soon the exchange is gone with its permit."""
    server = scene.server
    if isinstance(scene.engine, LlamaServer):
        assert await idle_after_s(scene.engine, busy=spared) < FREE_WITHIN_S
    with trio.fail_after(way.gone_within_s):
        await until(lambda: exchange_of(server, NAME) is None)
    found = held(server)
    assert (found["exchange"], found["permit"], found["place"]) == (spared, spared, 0)


async def check_told(way: Way, client: Wire, *, begun: bool) -> None:
    """The client got the error, as an event if its stream had begun, or a reply without an end."""
    if way.error is not None:
        received = await client.read_to_end()
        error = error_told(received)
        assert (error["code"], error["type"]) == way.error
        assert received.startswith(b"HTTP/1.1 200 OK") == begun
    elif way is WAYS["half-close"]:
        received = await client.read_to_end()
        assert b"[DONE]" not in received
        assert not received.endswith(CHUNKED_END)
