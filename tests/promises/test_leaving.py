"""P1 and P2: a client that leaves frees its slot, in whatever phase and however it leaves."""

from __future__ import annotations

import pytest
import trio

import proxy
from tests.conftest import Running
from tests.fakes.engines import fake_engine, nothing_left
from tests.fakes.engines import running as fake_running
from tests.promises.observe import FREE_WITHIN_S, busy_slots, idle_after_s, until, wait_busy
from tests.promises.wire import LEAVING, Leave, Wire, wire

LONG = {"messages": [{"role": "user", "content": "Go on."}], "max_tokens": 30000}
ENDLESS = {**LONG, "stream": True, "ignore_eos": True}
CHAT = "/v1/chat/completions"

each_way = pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING.keys())


async def stream_begun(client: Wire) -> None:
    """Ask for an endless answer and wait for its first token."""
    await client.post(CHAT, ENDLESS)
    await client.read_until(b'"content":"')


@each_way
async def test_streaming_client_that_leaves_in_decode_frees_its_slot(
    running: Running, leave: Leave
) -> None:
    """The slot is idle within 250 ms of the client's end, and the proxy holds nothing."""
    async with wire(running.port) as client:
        await stream_begun(client)
        leave(client)
        assert await idle_after_s(running.engine) < FREE_WITHIN_S
    await until(lambda: running.server.in_flight == 0 and running.server.connections == 0)


@each_way
@pytest.mark.parametrize("path", [CHAT, "/completion", "/v1/completions", "/infill"])
async def test_client_that_asked_for_no_stream_frees_its_slot_beside_a_busy_one(
    running: Running, leave: Leave, path: str
) -> None:
    """It is streamed from llama-server all the same, so its leaving is noticed all the same.

    The other stream is of the same route: llama-server never decodes infill and completion
    together.
    """
    prompts = {"prompt": "Go on.", "input_prefix": "A ", "input_suffix": " z", "n_predict": 30000}
    body = {**ENDLESS, **prompts, "stream": False}
    async with wire(running.port) as other, wire(running.port) as client:
        await other.post(path, {**body, "stream": True})
        await other.read_until(b"data: ")
        await client.post(path, body)
        await wait_busy(running.engine, 2)
        leave(client)
        assert await idle_after_s(running.engine, busy=1) < FREE_WITHIN_S
        await until(lambda: running.server.in_flight == 1)


@each_way
async def test_client_that_leaves_beside_a_busy_slot_frees_its_own(
    running: Running, leave: Leave
) -> None:
    """Another stream's events do not keep llama-server from noticing."""
    async with wire(running.port) as other, wire(running.port) as client:
        await stream_begun(other)
        await stream_begun(client)
        leave(client)
        assert await idle_after_s(running.engine, busy=1) < FREE_WITHIN_S
        await until(lambda: running.server.in_flight == 1)


@each_way
async def test_queued_client_that_leaves_is_gone_at_once(running: Running, leave: Leave) -> None:
    """It never reaches llama-server, and the next in the queue has its place."""
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(hold_a_slot, running.port)
        await wait_busy(running.engine, 4)
        async with wire(running.port) as queued:
            await queued.post(CHAT, ENDLESS)
            await until(lambda: running.server.in_flight == 5)
            leave(queued)
            with trio.fail_after(FREE_WITHIN_S):
                await until(lambda: running.server.in_flight == 4)
        assert await busy_slots(running.engine) == 4
        nursery.cancel_scope.cancel()


async def hold_a_slot(port: int) -> None:
    """Read an endless answer until cancelled."""
    async with wire(port) as client:
        await stream_begun(client)
        await client.read_until(b"never comes")


@each_way
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_client_that_leaves_before_the_first_byte_closes_the_upstream(
    leave: Leave, stream: bool
) -> None:
    """llama-server's connection is closed at once, not when its answer comes."""
    with nothing_left():
        async with (
            fake_running(fake_engine()) as engine,
            proxy.open_proxy(engine, port=0) as server,
            wire(server.port) as client,
        ):
            await client.post(f"{CHAT}?first_s=600", {**LONG, "stream": stream})
            await wait_busy(engine, 1)
            leave(client)
            assert await idle_after_s(engine) < FREE_WITHIN_S
            await until(lambda: server.in_flight == 0)


async def test_fifty_clients_that_leave_at_once_leave_nothing(running: Running) -> None:
    """Streaming, queued and answered ones end together."""
    clients: list[Wire] = []
    async with trio.open_nursery() as nursery:

        async def come() -> None:
            async with wire(running.port) as client:
                await client.post(CHAT, ENDLESS)
                clients.append(client)
                await client.read_to_end()

        for _ in range(50):
            nursery.start_soon(come)
        await until(lambda: running.server.in_flight == 50)
        await wait_busy(running.engine, 4)
        nursery.cancel_scope.cancel()
    assert await idle_after_s(running.engine) < FREE_WITHIN_S
    await until(lambda: running.server.in_flight == 0 and running.server.connections == 0)


async def test_client_that_pipelines_and_leaves_is_noticed(running: Running) -> None:
    """Bytes behind a request hide no FIN: they are held back, and the hang-up is told apart."""
    async with wire(running.port) as client:
        await stream_begun(client)
        await client.send(b"\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.fin()
        assert await idle_after_s(running.engine) < FREE_WITHIN_S
    await until(lambda: running.server.in_flight == 0)
