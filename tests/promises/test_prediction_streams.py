"""P4 for predictions: who follows one slows itself alone, costs little, and may come back.

A follower that does not read is waited for by nobody: it is told what it has missed when it reads
again, or cut off after the send timeout; neither counts as leaving.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import trio

import proxy
from proxy import LlamaServer, Phase, ProxyServer
from tests.conftest import Running
from tests.fakes.engines import fake_engine, nothing_left
from tests.fakes.engines import running as fake_running
from tests.promises.churn.event_reader import StreamReader
from tests.promises.observe import leaves_nothing, until
from tests.promises.predicting import (
    ASYNC,
    NAME,
    STREAM,
    Frame,
    ask,
    end_reply,
    ended,
    follow,
    followers,
    in_phase,
    numbers,
    read_events,
    said,
    snapshot,
    status_of,
    whole_stream,
)
from tests.promises.test_slow_client import resident_bytes
from tests.promises.wire import Wire, wire

# What the kernel and we take for a follower that does not read is far less than these have, and the
# log of a prediction less than the rest.
FAT = "?events=400&padding=20000"
# The end comes when the test says so; with time between for a follower that reads.
FAT_AND_HELD = f"?name={NAME}&events=400&padding=20000&pace_s=0.001&end=stall"
MAY_COST_BYTES = 256 * 1024
CALM_S = 0.1


@asynccontextmanager
async def fake_proxy(**settings: Any) -> AsyncIterator[tuple[LlamaServer, ProxyServer]]:
    """Run a proxy before the fake llama-server."""
    with nothing_left():
        async with (
            fake_running(fake_engine()) as engine,
            proxy.open_proxy(engine, port=0, **settings) as server,
        ):
            yield engine, server


async def all_said(server: ProxyServer, count: int, name: str = NAME) -> None:
    """Wait until a prediction that runs has made so many pieces of output."""

    def has_said() -> bool:
        live = server._predictions.live((None, name))
        return live is not None and live.prediction.log.last_number == count + 1

    await until(has_said)


# --- followers that stop reading ---


async def test_follower_that_stops_reading_slows_nobody_and_is_told_what_it_missed() -> None:
    """A sibling gets every event while it is blocked; its own stream ends with `error`."""
    async with fake_proxy() as (engine, server), leaves_nothing(server), AsyncExitStack() as stack:
        stuck = await stack.enter_async_context(wire(server.port, receive_buffer=4096))
        reader = await stack.enter_async_context(wire(server.port))
        await ask(stuck, FAT_AND_HELD, STREAM)
        await in_phase(server, Phase.DECODE)
        await follow(reader)
        stream = StreamReader(reader)
        await stream.begin()
        got: list[Frame] = []
        while (frame := await stream.next()) is not None:
            got.append(frame)
            if frame.number == 401:
                await end_reply(engine, "clean")
        assert numbers(got) == list(range(1, 403))
        found = whole_stream(await stuck.read_to_end())
        taken = numbers(found)
        assert taken == list(range(1, len(taken) + 1))
        assert found[-1].data["error"] == "SSE stream lagged; events were dropped"
        # What is told to be missing is what had gone by then, and more may be there to come.
        assert 0 < found[-1].data["skipped"] <= 402 - len(taken)


async def test_lagged_end_is_no_leaving() -> None:
    """The only follower of a stream lags, and the prediction goes on to its proper end."""
    async with fake_proxy() as (engine, server), leaves_nothing(server):
        async with wire(server.port, receive_buffer=4096) as stuck:
            await ask(stuck, FAT_AND_HELD, STREAM)
            await all_said(server, 400)
            assert whole_stream(await stuck.read_to_end())[-1].name == "error"
        await until(lambda: server.connections == 0)
        assert (await snapshot(server))["status"] == "processing"
        await end_reply(engine, "clean")
        assert (await ended(server)).snapshot()["status"] == "succeeded"


async def test_follower_that_takes_nothing_is_cut_off_after_the_send_timeout() -> None:
    """Its connection is reset; that is no leaving, and a sibling reads on to the end."""
    async with (
        fake_proxy(send_timeout_s=0.2) as (engine, server),
        leaves_nothing(server),
        wire(server.port, receive_buffer=4096) as stuck,
        wire(server.port) as reader,
    ):
        await ask(stuck, FAT_AND_HELD, STREAM)
        await all_said(server, 400)
        await until(lambda: followers(server) == 0)
        assert (await snapshot(server))["status"] == "processing"
        # From where the log begins by now: its start was too long ago.
        live = server._predictions.live((None, NAME))
        assert live is not None
        await follow(reader, live.prediction.log.first_number)
        await reader.read_until(b'"index":399}\n\n')
        await end_reply(engine, "clean")
        assert whole_stream(await reader.read_to_end())[-1].data["status"] == "succeeded"
        assert b"event: error" not in await stuck.read_to_end()
        assert not stuck.received.endswith(b"0\r\n\r\n")


async def test_last_reader_that_leaves_beside_a_stuck_one_does_not_end_it() -> None:
    """Who is slow still follows: it may read again, and is told the end."""
    async with (
        fake_proxy() as (engine, server),
        leaves_nothing(server),
        wire(server.port, receive_buffer=4096) as stuck,
        wire(server.port) as reader,
    ):
        await ask(stuck, FAT_AND_HELD, STREAM)
        await in_phase(server, Phase.DECODE)
        await follow(reader)
        await all_said(server, 400)
        reader.fin()
        await until(lambda: followers(server) == 1)
        assert (await snapshot(server))["status"] == "processing"
        await end_reply(engine, "clean")
        await ended(server)
        assert whole_stream(await stuck.read_to_end())[-1].name == "error"


async def test_stuck_followers_cost_the_proxy_little() -> None:
    """Each takes under 256 KiB, however many events it is behind."""
    count = 30
    async with fake_proxy() as (engine, server), AsyncExitStack() as stack:
        await run_once(server)
        stuck = [
            await stack.enter_async_context(wire(server.port, receive_buffer=4096))
            for _ in range(count)
        ]
        async with wire(server.port) as caller:
            await ask(caller, FAT_AND_HELD, ASYNC)
            await caller.read_to_end()
        for client in stuck:
            await follow(client)
        await until(lambda: followers(server) == count)
        await all_said(server, 400)
        # The log of the prediction is one for all, and counts as a whole.
        before = resident_bytes()
        more = [
            await stack.enter_async_context(wire(server.port, receive_buffer=4096))
            for _ in range(count)
        ]
        for client in more:
            await follow(client, 300)
        await until(lambda: followers(server) == 2 * count)
        await same_for_a_while(server)
        assert (resident_bytes() - before) / count < MAY_COST_BYTES
        await end_reply(engine, "clean")
        await ended(server)


async def test_stuck_followers_of_a_huge_event_cost_the_proxy_little() -> None:
    """`completed` has the whole output, 8 MB here: it is held once, and not for each of them."""
    count = 20
    async with fake_proxy() as (_, server), AsyncExitStack() as stack:
        last_number = await run_once(server)
        before = resident_bytes()
        for _ in range(count):
            client = await stack.enter_async_context(wire(server.port, receive_buffer=4096))
            await follow(client, last_number - 1, name="before")
        await until(lambda: server.connections == count)
        await same_for_a_while(server)
        assert (resident_bytes() - before) / count < MAY_COST_BYTES


async def run_once(server: ProxyServer) -> int:
    """Have a large prediction made and read, so that every buffer is there; return its events."""
    async with wire(server.port) as client:
        await ask(client, FAT, STREAM, name="before")
        await client.read_to_end()
    return (await ended(server, "before")).log.last_number


async def same_for_a_while(server: ProxyServer) -> None:
    """Wait until nothing moves: all that is to be written has been written, or waits."""
    with trio.fail_after(20):
        while await moved(server):
            pass


async def moved(server: ProxyServer) -> bool:
    """Return whether anything was sent to any client in a tenth of a second."""
    before = resident_bytes()
    with trio.move_on_after(CALM_S):
        await until(lambda: resident_bytes() != before)
        return True
    return False


# --- followers that come late, and come back ---


async def test_follower_that_comes_back_loses_and_doubles_nothing(running: Running) -> None:
    """Cut off anywhere, again and again, by FIN and RST: its events are 1 to the last one."""
    server = running.server
    got: list[Frame] = []
    async with leaves_nothing(server):
        async with wire(server.port) as caller:
            await ask(caller, "Go on.", ASYNC, max_tokens=900, ignore_eos=True)
            await caller.read_to_end()
        for attempt in range(1000):
            got += await read_a_little(server, got[-1].number if got else None, attempt)
            if got[-1].name == "completed":
                break
    assert numbers(got) == list(range(1, len(got) + 1))
    result = (await ended(server)).snapshot()
    assert got[-1].data == result
    assert said(got) == result["output"]
    assert attempt > 5


async def read_a_little(server: ProxyServer, after: int | None, attempt: int) -> list[Frame]:
    """Follow from behind an event for some whole events, and leave where others have begun."""
    async with wire(server.port) as client:
        await follow(client, after)
        found = await read_events(client, 1 + attempt * 37 % 150)
        if attempt % 2:
            client.reset()
        return found


async def test_late_followers_get_all_and_the_same(running: Running) -> None:
    """Whenever they come, during and after, each has the events from 1 to the last."""
    server = running.server
    streams: list[list[Frame]] = []
    async with leaves_nothing(server), trio.open_nursery() as nursery:

        async def follow_to_the_end() -> None:
            async with wire(server.port) as client:
                await follow(client)
                streams.append(whole_stream(await client.read_to_end()))

        async with wire(server.port) as caller:
            await ask(caller, "Go on.", STREAM, max_tokens=900, ignore_eos=True)
            for number in range(1, 801, 50):
                await caller.read_until(f"id: {number}\n".encode())
                nursery.start_soon(follow_to_the_end)
            first = whole_stream(await caller.read_to_end())
        await follow_to_the_end()
    assert numbers(first) == list(range(1, len(first) + 1))
    assert streams == [first] * 17


async def test_follower_that_is_too_late_is_told_so_alone() -> None:
    """What it should get first is gone: `error` and nothing else, which is no leaving."""
    async with (
        fake_proxy(prediction_history=10) as (engine, server),
        leaves_nothing(server),
        wire(server.port) as reader,
        wire(server.port) as late,
    ):
        await ask(reader, f"?name={NAME}&events=50&pace_s=0.002&end=stall", STREAM)
        await reader.read_until(b'"index":49}\n\n')
        await follow(late)
        (only,) = whole_stream(await late.read_to_end())
        assert (only.name, only.number, only.data["skipped"]) == ("error", None, 41)
        assert (await snapshot(server))["status"] == "processing"
        await end_reply(engine, "clean")
        assert whole_stream(await reader.read_to_end())[-1].data["status"] == "succeeded"


async def test_resumed_behind_the_log_is_told_how_many_are_gone() -> None:
    """A resume never leaves a hole out: what cannot be had is counted."""
    async with (
        fake_proxy(prediction_history=10) as (engine, server),
        leaves_nothing(server),
        wire(server.port) as caller,
        wire(server.port) as late,
    ):
        await ask(caller, f"?name={NAME}&events=50&end=stall", ASYNC)
        await all_said(server, 50)
        await follow(late, 20)
        (only,) = whole_stream(await late.read_to_end())
        assert only.data["skipped"] == 21
        await end_reply(engine, "clean")
        await ended(server)


async def test_prediction_without_followers_holds_a_bounded_log() -> None:
    """Its events are more than 8 MB, and what is held of them is what may be."""
    async with fake_proxy() as (engine, server), wire(server.port) as caller:
        await ask(caller, FAT_AND_HELD, ASYNC)
        await all_said(server, 400)
        live = server._predictions.live((None, NAME))
        assert live is not None
        assert live.prediction.log.held_bytes < 4 * 1024 * 1024 + 2 * 21_000
        await end_reply(engine, "clean")
        await ended(server)


async def test_followers_are_bounded() -> None:
    """One more than 1024 gets 429, and the others and the prediction go on."""
    async with fake_proxy() as (engine, server), AsyncExitStack() as stack:
        caller = await stack.enter_async_context(wire(server.port))
        await ask(caller, f"?name={NAME}&events=2&end=stall", ASYNC)
        await in_phase(server, Phase.DECODE)
        clients: list[Wire] = []
        for _ in range(1024):
            client = await stack.enter_async_context(wire(server.port))
            await follow(client)
            clients.append(client)
        await until(lambda: followers(server) == 1024)
        refused = await stack.enter_async_context(wire(server.port))
        await follow(refused)
        assert status_of(await refused.read_to_end()) == 429
        await end_reply(engine, "clean")
        for client in clients:
            assert b"event: completed" in await client.read_to_end()
