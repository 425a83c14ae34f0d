"""P1 and P2: a client that leaves frees its slot, in whatever phase and however it leaves."""

from __future__ import annotations

import pytest
import trio

import proxy
from tests.conftest import Running
from tests.fakes.engines import fake_engine, nothing_left
from tests.fakes.engines import running as fake_running
from tests.promises.listeners import Listener
from tests.promises.observe import (
    FREE_WITHIN_S,
    busy_slots,
    idle_after_s,
    leaves_nothing,
    until,
    wait_busy,
)
from tests.promises.wire import LEAVING, Leave, Wire

LONG = {"messages": [{"role": "user", "content": "Go on."}], "max_tokens": 30000}
ENDLESS = {**LONG, "stream": True, "ignore_eos": True}

each_way = pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING.keys())


async def stream_begun(listener: Listener, client: Wire) -> None:
    """Ask for an endless answer and wait for its first token."""
    await client.post(listener.chat, ENDLESS)
    await client.read_until(b'"content":"')


@each_way
async def test_streaming_client_that_leaves_in_decode_frees_its_slot(
    running: Running, listener: Listener, leave: Leave
) -> None:
    """The slot is idle within 250 ms of the client's end, and the proxy holds nothing."""
    async with leaves_nothing(running.server), listener.wire(running.server) as client:
        await stream_begun(listener, client)
        leave(client)
        assert await idle_after_s(running.engine) < FREE_WITHIN_S


@each_way
@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/completion", "/v1/completions", "/infill"]
)
async def test_client_that_asked_for_no_stream_frees_its_slot_beside_a_busy_one(
    running: Running, listener: Listener, leave: Leave, path: str
) -> None:
    """It is streamed from llama-server all the same, so its leaving is noticed all the same.

    The other stream is of the same route: llama-server never decodes infill and completion
    together.
    """
    prompts = {"prompt": "Go on.", "input_prefix": "A ", "input_suffix": " z", "n_predict": 30000}
    body = {**ENDLESS, **prompts, "stream": False}
    server = running.server
    async with listener.wire(server) as other, listener.wire(server) as client:
        await other.post(path, {**body, "stream": True})
        await other.read_until(b"data: ")
        await client.post(path, body)
        await wait_busy(running.engine, 2)
        leave(client)
        assert await idle_after_s(running.engine, busy=1) < FREE_WITHIN_S
        await until(lambda: server.in_flight == 1)


@each_way
async def test_client_that_leaves_beside_a_busy_slot_frees_its_own(
    running: Running, listener: Listener, leave: Leave
) -> None:
    """Another stream's events do not keep llama-server from noticing."""
    server = running.server
    async with listener.wire(server) as other:
        await stream_begun(listener, other)
        async with leaves_nothing(server), listener.wire(server) as client:
            await stream_begun(listener, client)
            leave(client)
            assert await idle_after_s(running.engine, busy=1) < FREE_WITHIN_S


@each_way
async def test_queued_client_that_leaves_is_gone_at_once(
    running: Running, listener: Listener, leave: Leave
) -> None:
    """It never reaches llama-server, and the next in the queue has its place."""
    server = running.server
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(hold_a_slot, listener, server)
        await wait_busy(running.engine, 4)
        async with leaves_nothing(server), listener.wire(server) as queued:
            await queued.post(listener.chat, ENDLESS)
            await until(lambda: server.in_flight == 5)
            leave(queued)
            with trio.fail_after(FREE_WITHIN_S):
                await until(lambda: server.in_flight == 4)
        assert await busy_slots(running.engine) == 4
        nursery.cancel_scope.cancel()


async def hold_a_slot(listener: Listener, server: proxy.ProxyServer) -> None:
    """Read an endless answer until cancelled."""
    async with listener.wire(server) as client:
        await stream_begun(listener, client)
        await client.read_until(b"never comes")


@each_way
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_client_that_leaves_before_the_first_byte_closes_the_upstream(
    listener: Listener, leave: Leave, stream: bool
) -> None:
    """llama-server's connection is closed at once, not when its answer comes."""
    with nothing_left():
        async with (
            fake_running(fake_engine()) as engine,
            proxy.open_proxy(engine, port=0) as server,
            listener.wire(server) as client,
        ):
            await client.post(f"{listener.chat}?first_s=600", {**LONG, "stream": stream})
            await wait_busy(engine, 1)
            leave(client)
            assert await idle_after_s(engine) < FREE_WITHIN_S
            await until(lambda: server.in_flight == 0)


@each_way
async def test_fifty_clients_that_leave_at_once_leave_nothing(
    running: Running, listener: Listener, leave: Leave
) -> None:
    """Those that are streamed to and those that wait end together."""
    server = running.server
    clients: list[Wire] = []
    async with leaves_nothing(server), trio.open_nursery() as nursery:

        async def come() -> None:
            async with listener.wire(server) as client:
                await client.post(listener.chat, ENDLESS)
                clients.append(client)
                await trio.sleep_forever()

        for _ in range(50):
            nursery.start_soon(come)
        await until(lambda: len(clients) == server.in_flight == 50)
        await wait_busy(running.engine, 4)
        for client in clients:
            leave(client)
        assert await idle_after_s(running.engine) < FREE_WITHIN_S
        nursery.cancel_scope.cancel()


async def test_client_that_pipelines_and_leaves_is_noticed(
    running: Running, listener: Listener
) -> None:
    """Bytes behind a request hide no FIN: they are held back, and the hang-up is told apart."""
    async with leaves_nothing(running.server), listener.wire(running.server) as client:
        await stream_begun(listener, client)
        await client.send(b"\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.fin()
        assert await idle_after_s(running.engine) < FREE_WITHIN_S
