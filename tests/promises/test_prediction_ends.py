"""P1 and P3 for predictions: the permit, a crash of llama-server, and a shutdown.

What each end is called, and what is told of it, is `test_prediction_causes`'s.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import trio

import proxy
from proxy import Phase
from tests.conftest import Running
from tests.fakes.engines import fake_engine, nothing_left
from tests.fakes.engines import running as fake_running
from tests.promises.observe import leaves_nothing, wait_busy
from tests.promises.predicting import (
    ASYNC,
    NAME,
    STREAM,
    answered,
    ask,
    ended,
    follow,
    in_phase,
    put_head,
    snapshot,
    whole_stream,
)
from tests.promises.wire import wire

ENDLESS = "?events=100000&pace_s=0.01"
LONG: dict[str, Any] = {"max_tokens": 30000, "ignore_eos": True}
MODES = {"blocking": (), "stream": (STREAM,), "async": (ASYNC,)}
PLACE = (None, NAME)
# So many in a row are enough: Cog refused 7 of them.
IN_A_ROW = 400


# --- the permit ---


@pytest.mark.parametrize("mode", [(), (STREAM,)], ids=["blocking", "stream"])
async def test_permit_is_back_before_the_end_is_told(mode: tuple[str, ...]) -> None:
    """400 in a row on the only slot, with no queue: the next one never meets a 409."""
    async with (
        proxy.open_llama_server(extra_args=("-np", "1")) as engine,
        proxy.open_proxy(engine, port=0, max_queue=0) as server,
        leaves_nothing(server),
        wire(server.port) as client,
    ):
        for number in range(IN_A_ROW):
            body = b'{"input": {"prompt": "Go on.", "max_tokens": 1}}'
            await client.send(put_head(f"p{number}", body, *mode))
            # On one connection, the next is asked for as soon as the end is there to be read.
            received = await client.read_until(b'"status":"succeeded"}')
            assert received.startswith(b"HTTP/1.1 200 OK"), received
            if mode:
                await client.read_until(b"\r\n0\r\n\r\n")
            client.received = b""
    assert server._predictions.counts == {"succeeded": IN_A_ROW}


# --- llama-server's crash ---


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
async def test_crash_fails_those_that_run_and_the_next_ones_are_served(
    running: Running, mode: tuple[str, ...]
) -> None:
    """Failed with the signal; who is queued waits for the restart, and succeeds."""
    engine, server = running.engine, running.server
    async with leaves_nothing(server), wire(server.port) as client, trio.open_nursery() as nursery:
        failed: list[dict[str, Any]] = []

        async def hold(number: int) -> None:
            async with wire(server.port) as other:
                await ask(other, "Go on.", STREAM, name=f"p{number}", **LONG)
                failed.append(whole_stream(await other.read_to_end())[-1].data)

        for number in range(4):
            nursery.start_soon(hold, number)
        await wait_busy(engine, 4)
        for number in range(4):
            await in_phase(server, Phase.DECODE, f"p{number}")
        await ask(client, "Go on.", *mode, max_tokens=3)
        await in_phase(server, Phase.QUEUED)
        os.kill(engine.pid or 0, signal.SIGKILL)
        assert (await ended(server)).snapshot()["status"] == "succeeded"
        await client.read_to_end()
    assert [found["status"] for found in failed] == ["failed"] * 4
    assert all("signal 9 (SIGKILL)" in found["error"] for found in failed)
    assert engine.generation == 2


# --- shutdown ---


async def test_drain_lets_an_async_prediction_finish() -> None:
    """Nobody is connected for it any more, and it is waited for all the same."""
    with nothing_left():
        async with (
            fake_running(fake_engine()) as engine,
            proxy.open_proxy(engine, port=0) as server,
        ):
            async with wire(server.port) as client:
                await ask(client, "?events=20&pace_s=0.01", ASYNC)
                assert answered(await client.read_to_end())["status"] == "starting"
            await in_phase(server, Phase.DECODE)
            await server.drain()
            found = server._predictions.finished(PLACE)
            assert found is not None
            assert found.snapshot()["status"] == "succeeded"
            assert server.in_flight == 0


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
async def test_drain_ends_those_that_wait_at_once(mode: tuple[str, ...]) -> None:
    """They have not begun: they are failed with the reason, and do not use the drain time."""
    async with (
        fake_running(fake_engine("--fake-slots", "1")) as engine,
        proxy.open_proxy(engine, port=0) as server,
        wire(server.port) as served,
        wire(server.port) as client,
    ):
        await ask(served, "?events=20&pace_s=0.01", STREAM, name="served")
        await served.read_until(b"event: output")
        await ask(client, "?events=1", *mode)
        await in_phase(server, Phase.QUEUED)
        await server.drain()
        found = server._predictions.finished(PLACE)
        assert found is not None
        assert found.snapshot()["error"] == "The server is shutting down."
        assert whole_stream(await served.read_to_end())[-1].data["status"] == "succeeded"


async def test_drain_tells_the_followers_of_an_async_prediction_that_outlasts_it() -> None:
    """Each gets its one `completed`, failed with the reason."""
    async with (
        fake_running(fake_engine()) as engine,
        proxy.open_proxy(engine, port=0, drain_s=0.1) as server,
        wire(server.port) as caller,
        wire(server.port) as first,
        wire(server.port) as second,
    ):
        await ask(caller, ENDLESS, ASYNC)
        await caller.read_to_end()
        for client in (first, second):
            await follow(client)
            await client.read_until(b"event: output")
        await server.drain()
        for client in (first, second):
            told = whole_stream(await client.read_to_end())[-1].data
            assert (told["status"], told["error"]) == ("failed", "The server is shutting down.")
        assert server.in_flight == 0


async def test_result_is_there_for_who_asks_later(running: Running) -> None:
    """Of one that failed, too: what was told stays, and nothing runs twice."""
    server = running.server
    async with wire(server.port) as client:
        await ask(client, "Go on.", ASYNC, **LONG)
        await in_phase(server, Phase.DECODE)
        os.kill(running.engine.pid or 0, signal.SIGKILL)
        await ended(server)
    first = await snapshot(server)
    for fields in ((), (STREAM,)):
        async with wire(server.port) as client:
            await ask(client, "Go on.", *fields)
            received = await client.read_to_end()
            told = whole_stream(received)[-1].data if fields else answered(received)
            assert (told["status"], told["error"]) == ("failed", first["error"])
    assert server._predictions.counts == {"failed": 1}
