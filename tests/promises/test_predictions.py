"""P1 and P2 for predictions: who leaves or cancels frees the slot, and nothing is left.

A prediction lives as long as those whom it is for: the caller that waits, or all that follow its
events, or nobody in particular. Failures are `test_prediction_causes`'s and
`test_prediction_ends`'s, streams that are slow or resumed `test_prediction_streams`'s.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio

import proxy
from proxy import LlamaServer, Phase, ProxyServer
from proxy.runtime.outbound import ControlClient
from proxy.runtime.task_tree import task_tree
from tests.conftest import Running
from tests.fakes.engines import fake_engine, nothing_left
from tests.fakes.engines import running as fake_running
from tests.left_behind import Leftovers
from tests.promises.observe import (
    FREE_WITHIN_S,
    busy_slots,
    idle_after_s,
    leaves_nothing,
    until,
    wait_busy,
)
from tests.promises.predicting import (
    ASYNC,
    LAST,
    NAME,
    STREAM,
    answered,
    ask,
    cancel,
    end_reply,
    ended,
    follow,
    followers,
    in_phase,
    snapshot,
    whole_stream,
)
from tests.promises.test_prefill import SMALL_BATCHES, WORDS
from tests.promises.wire import LEAVING, Leave, Wire, wire

ENDLESS: dict[str, Any] = {"max_tokens": 30000, "ignore_eos": True}
# Of the fake llama-server: it goes on until it is told to end.
HELD = f"?name={NAME}&events=3&pace_s=3600"
# And this one holds the only slot.
OTHER = "?name=other&events=3&pace_s=3600"

each_way = pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING.keys())
# Both end with the last client that waits for them.
each_bound_mode = pytest.mark.parametrize("mode", [(), (STREAM,)], ids=["blocking", "stream"])
each_mode = pytest.mark.parametrize(
    "mode", [(), (STREAM,), (ASYNC,)], ids=["blocking", "stream", "async"]
)
Mode = tuple[str, ...]


@asynccontextmanager
async def one_slot() -> AsyncIterator[tuple[LlamaServer, ProxyServer]]:
    """Run a proxy before a fake llama-server that has one slot."""
    with nothing_left():
        async with (
            fake_running(fake_engine("--fake-slots", "1")) as engine,
            proxy.open_proxy(engine, port=0) as server,
        ):
            yield engine, server


# --- clients that leave ---


@each_way
@each_bound_mode
async def test_client_that_leaves_in_decode_frees_the_slot(
    running: Running, mode: Mode, leave: Leave
) -> None:
    """The slot is idle within 250 ms, the prediction is canceled, and nothing is held."""
    server = running.server
    async with leaves_nothing(server), wire(server.port) as client:
        await ask(client, "Go on.", *mode, **ENDLESS)
        await in_phase(server, Phase.DECODE)
        leave(client)
        assert await idle_after_s(running.engine) < FREE_WITHIN_S
    assert (await snapshot(server))["status"] == "canceled"


@pytest.fixture
async def slow(leftovers: Leftovers) -> AsyncIterator[Running]:
    """An engine that reads long prompts in many small batches."""
    async with (
        proxy.open_llama_server(extra_args=SMALL_BATCHES) as engine,
        proxy.open_proxy(engine, port=0, drain_s=5) as server,
    ):
        yield Running(engine, server)


@pytest.mark.parametrize("leave", [Wire.fin, Wire.reset], ids=["fin", "reset"])
@each_bound_mode
async def test_client_that_leaves_in_prefill_frees_the_slot(
    slow: Running, mode: Mode, leave: Leave
) -> None:
    """Within 250 ms, beside a prediction that decodes and goes on."""
    server = slow.server
    async with wire(server.port) as other:
        await ask(other, "Go on.", STREAM, name="other", **ENDLESS)
        await other.read_until(b"event: output")
        async with leaves_nothing(server), wire(server.port) as client:
            await ask(client, WORDS, *mode, **ENDLESS)
            await wait_busy(slow.engine, 2)
            await in_phase(server, Phase.PREFILL)
            leave(client)
            assert await idle_after_s(slow.engine, busy=1) < FREE_WITHIN_S
        found = await snapshot(server)
        assert (found["status"], "output" in found) == ("canceled", False)
        assert (await snapshot(server, "other"))["status"] == "processing"


@each_way
@each_bound_mode
async def test_client_that_leaves_in_the_queue_is_gone_at_once(mode: Mode, leave: Leave) -> None:
    """Its prediction is canceled without a start, and never reaches llama-server."""
    async with one_slot() as (engine, server), slot_taken(server):
        async with leaves_nothing(server), wire(server.port) as client:
            await ask(client, HELD, *mode)
            await in_phase(server, Phase.QUEUED)
            leave(client)
        found = await snapshot(server)
        assert (found["status"], found["metrics"]) == ("canceled", {"predict_time": 0.0})
        assert await generations(engine) == 1


@asynccontextmanager
async def slot_taken(server: ProxyServer) -> AsyncIterator[Wire]:
    """Hold the only slot by a prediction that follows its own events."""
    async with wire(server.port) as other:
        await ask(other, OTHER, STREAM, name="other")
        await other.read_until(b"event: output")
        yield other


async def generations(engine: LlamaServer) -> int:
    """Return how many times the fake llama-server was asked for text."""
    control = ControlClient(engine.address, engine.api_key)
    state = await control.get_json("/fake/state")
    assert isinstance(state, dict)
    return sum(method == "POST" for method, _ in state["requests"])


@each_way
async def test_stream_ends_its_prediction_with_its_last_follower(
    running: Running, leave: Leave
) -> None:
    """Who made it may leave while another follows; the slot is idle 250 ms after the last one."""
    server = running.server
    async with (
        leaves_nothing(server),
        wire(server.port) as maker,
        wire(server.port) as joined,
    ):
        await ask(maker, "Go on.", STREAM, **ENDLESS)
        await maker.read_until(b"event: output")
        await follow(joined)
        await joined.read_until(b"event: output")
        leave(maker)
        await until(lambda: followers(server) == 1)
        joined.received = b""
        await joined.read_until(b"event: output")
        assert await busy_slots(running.engine) == 1
        leave(joined)
        assert await idle_after_s(running.engine) < FREE_WITHIN_S
    assert (await snapshot(server))["status"] == "canceled"


@each_way
async def test_caller_that_leaves_ends_a_prediction_that_others_follow(leave: Leave) -> None:
    """A blocking one is its caller's; those who follow it are told, with one `completed`."""
    async with (
        one_slot() as (_, server),
        leaves_nothing(server),
        wire(server.port) as caller,
        wire(server.port) as joined,
    ):
        await ask(caller, HELD)
        await in_phase(server, Phase.DECODE)
        await follow(joined)
        await joined.read_until(b"event: output")
        leave(caller)
        found = whole_stream(await joined.read_to_end())
        assert found[-1].data["status"] == "canceled"


@each_way
async def test_async_prediction_outlives_its_caller_and_its_followers(leave: Leave) -> None:
    """It has its slot until llama-server has answered, and its whole output is kept."""
    async with one_slot() as (engine, server), leaves_nothing(server):
        async with wire(server.port) as caller, wire(server.port) as joined:
            await ask(caller, HELD, ASYNC)
            await caller.read_until(b'"starting"}')
            leave(caller)
            await follow(joined)
            await joined.read_until(b"event: output")
            leave(joined)
            await until(lambda: followers(server) == 0 and server.connections == 0)
        assert (await snapshot(server))["status"] == "processing"
        await end_reply(engine, "clean")
        assert (await ended(server)).snapshot()["output"] == [f"{NAME}0 "]
        assert (await snapshot(server))["status"] == "succeeded"


@each_way
async def test_fifty_clients_that_leave_together_leave_nothing(
    running: Running, leave: Leave
) -> None:
    """Blocking ones and streams, those that run and those that wait."""
    server = running.server
    async with leaves_nothing(server), AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(wire(server.port)) for _ in range(50)]
        for number, client in enumerate(clients):
            mode = (STREAM,) if number % 2 else ()
            await ask(client, "Go on.", *mode, name=f"p{number}", **ENDLESS)
        await until(lambda: server.in_flight == 50)
        await wait_busy(running.engine, 4)
        for client in clients:
            leave(client)
        await idle_after_s(running.engine)
    assert server._predictions.counts == {"canceled": 50}


# --- clients that cancel ---


@each_mode
async def test_cancel_in_the_queue_is_remembered(mode: Mode) -> None:
    """It never reaches llama-server, also when the slot is free; `completed` is its only event."""
    async with one_slot() as (engine, server), leaves_nothing(server):
        async with wire(server.port) as client:
            async with slot_taken(server):
                await ask(client, HELD, *mode)
                await in_phase(server, Phase.QUEUED)
                assert await cancel(server) == 200
                received = await client.read_to_end()
            if mode != (ASYNC,):
                assert status_told(received, mode) == "canceled"
        await idle_after_s(engine)
        found = await ended(server)
        assert (found.snapshot()["status"], found.log.last_number) == ("canceled", 1)
        assert await generations(engine) == 1


def status_told(received: bytes, mode: Mode) -> str:
    """Return how a client was told that its prediction ended."""
    told = whole_stream(received)[-1].data if mode == (STREAM,) else answered(received)
    return str(told["status"])


@each_mode
async def test_cancel_in_decode_frees_the_slot(running: Running, mode: Mode) -> None:
    """Within 250 ms; whoever waits is told that it is canceled, and what it has made is kept."""
    server = running.server
    async with leaves_nothing(server), wire(server.port) as client:
        await ask(client, "Go on.", *mode, **ENDLESS)
        await in_phase(server, Phase.DECODE)
        assert await cancel(server) == 200
        assert await idle_after_s(running.engine) < FREE_WITHIN_S
        received = await client.read_to_end()
    if mode != (ASYNC,):
        assert status_told(received, mode) == "canceled"
    assert (await snapshot(server))["output"]


@each_mode
async def test_cancel_in_prefill_frees_the_slot(slow: Running, mode: Mode) -> None:
    """Within 250 ms, beside a prediction that decodes; there is no output."""
    server = slow.server
    async with wire(server.port) as other:
        await ask(other, "Go on.", STREAM, name="other", **ENDLESS)
        await other.read_until(b"event: output")
        async with leaves_nothing(server), wire(server.port) as client:
            await ask(client, WORDS, *mode, **ENDLESS)
            await wait_busy(slow.engine, 2)
            await in_phase(server, Phase.PREFILL)
            assert await cancel(server) == 200
            assert await idle_after_s(slow.engine, busy=1) < FREE_WITHIN_S
        found = await snapshot(server)
        assert (found["status"], "output" in found) == ("canceled", False)


async def test_cancel_of_what_has_ended_changes_nothing(running: Running) -> None:
    """404, and the stored result stays."""
    server = running.server
    async with wire(server.port) as client:
        await ask(client, "Go on.", max_tokens=3)
        first = answered(await client.read_to_end())
    assert await cancel(server) == 404
    assert await snapshot(server) == first


async def test_cancels_and_leavings_at_once_end_it_once(running: Running) -> None:
    """Whichever comes first is the cause; everybody else is told the same one end."""
    server = running.server
    async with leaves_nothing(server), AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(wire(server.port)) for _ in range(8)]
        await ask(clients[0], "Go on.", STREAM, **ENDLESS)
        await clients[0].read_until(b"event: output")
        for client in clients[1:]:
            await follow(client)
        await until(lambda: followers(server) == 8)
        statuses: list[int] = []

        async def cancel_it() -> None:
            statuses.append(await cancel(server))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(cancel_it)
            for client in clients[:4]:
                client.fin()
        assert set(statuses) == {200, 404}
        ends = [whole_stream(await client.read_to_end())[-1] for client in clients[4:]]
        assert {end.data["status"] for end in ends} == {"canceled"}
        assert len({end.number for end in ends}) == 1


# --- what is shown, and what is held ---


@each_mode
async def test_prediction_is_in_the_task_tree_by_its_id(mode: Mode) -> None:
    """`/proxy/tasks` has it while it runs, also queued, and not afterwards."""
    async with one_slot() as (engine, server), wire(server.port) as client:
        async with slot_taken(server):
            await ask(client, HELD, *mode)
            await in_phase(server, Phase.QUEUED)
            assert await tasks(server) == ["prediction mine", "prediction other"]
        await in_phase(server, Phase.DECODE)
        assert await tasks(server) == ["prediction mine"]
        await end_reply(engine, "clean")
        await ended(server)
        assert await tasks(server) == []


async def tasks(server: ProxyServer) -> list[str]:
    """Return the names of the predictions' tasks, as `/proxy/tasks` shows them."""
    async with wire(server.port) as client:
        await client.get("/proxy/tasks", "Accept: text/plain", LAST)
        lines = (await client.read_to_end()).decode().splitlines()
    return sorted(line.strip() for line in lines if line.strip().startswith("prediction "))


async def test_finished_predictions_hold_their_result_and_nothing_else(running: Running) -> None:
    """A hundred that are kept, of every mode, cost no exchange, permit, task or descriptor."""
    server = running.server
    async with leaves_nothing(server):
        for number in range(100):
            async with wire(server.port) as client:
                mode = ((), (STREAM,), (ASYNC,))[number % 3]
                await ask(client, "Go on.", *mode, name=f"p{number}", max_tokens=2)
                await client.read_to_end()
        await until(lambda: server.in_flight == 0)
    assert server._predictions.counts == {"succeeded": 100}


@pytest.mark.parametrize("receive_buffer", [None, 4096], ids=["reads", "stalled"])
@each_mode
async def test_cancelled_proxy_leaves_no_prediction(mode: Mode, receive_buffer: int | None) -> None:
    """A hard stop ends those that run and those that wait, also of a client that does not read."""
    with nothing_left():
        async with fake_running(fake_engine("--fake-slots", "1")) as engine:
            before = task_tree().as_lines()
            with trio.move_on_after(20) as scope:
                async with (
                    proxy.open_proxy(engine, port=0) as server,
                    wire(server.port, receive_buffer=receive_buffer) as client,
                    wire(server.port) as queued,
                ):
                    await ask(client, "?events=100000&padding=20000", *mode)
                    await in_phase(server, Phase.DECODE)
                    await ask(queued, HELD, *mode, name="queued")
                    await in_phase(server, Phase.QUEUED, "queued")
                    scope.cancel()
                    await trio.sleep_forever()
            assert await idle_after_s(engine) < FREE_WITHIN_S
            assert task_tree().as_lines() == before
