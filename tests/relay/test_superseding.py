"""A newer request of a conversation ends the older one, where conversations are llama-server's.

With `forward_conversation_id`; llama-server keeps one stream for each `X-Conversation-Id`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import proxy
from proxy import ApiKey, LlamaServer, ProxyServer
from proxy.runtime.outbound import ControlClient
from tests.fakes.engines import fake_engine, nothing_left
from tests.fakes.engines import running as fake_running
from tests.promises.listeners import fast_port
from tests.promises.observe import (
    FREE_WITHIN_S,
    busy_slots,
    exchange_of,
    idle_after_s,
    leaves_nothing,
    until,
    wait_busy,
)
from tests.promises.replies import error_told
from tests.promises.wire import Wire, wire

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "Hello."}]}
ENDLESS = "?events=100000&pace_s=0.01"
MINE, OTHERS = "X-Conversation-Id: mine", "X-Conversation-Id: other"
ALICE = ApiKey.from_text("sk-alice", name="alice")
BOB = ApiKey.from_text("sk-bob", name="bob")

each_form = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


@asynccontextmanager
async def conversing(
    *fake_options: str, forward: bool = True, **options: Any
) -> AsyncIterator[tuple[LlamaServer, ProxyServer]]:
    """Run a proxy before the fake; afterwards nothing may be left."""
    with nothing_left():
        async with (
            fake_running(fake_engine(*fake_options)) as engine,
            proxy.open_proxy(engine, port=0, forward_conversation_id=forward, **options) as server,
            leaves_nothing(server),
        ):
            yield engine, server


async def ask(
    client: Wire, name: str, *fields: str, query: str = ENDLESS, stream: bool = True
) -> None:
    """Send a request, whose exchange gets this name."""
    names = (f"X-Request-Id: {name}", "Connection: close")
    await client.post(f"{CHAT}{query}", {**HELLO, "stream": stream}, *names, *fields)


async def asked_of(engine: LlamaServer) -> list[str]:
    """Return what llama-server was asked besides by clients, in order."""
    state = await ControlClient(engine.address, engine.api_key).get_json("/fake/state")
    assert isinstance(state, dict)
    return [f"{method} {target}" for method, target in state["requests"] if "stream" in target]


def check_superseded(received: bytes) -> None:
    """The older one's client is told what happened, as an error of its own."""
    error = error_told(received)
    assert (error["code"], error["type"]) == (503, "unavailable_error")
    assert error["message"] == "A newer request took this one's place."
    assert error["request_id"] == "older"


def causes(caplog: pytest.LogCaptureFixture) -> dict[str, str]:
    """Return why each exchange ended, by its name."""
    lines = [line for line in caplog.records if line.name == "proxy.exchange"]
    return {line.request_id: line.cause for line in lines}  # type: ignore[attr-defined]


# -- what ends -------------------------------------------------------------------------------------


@each_form
@pytest.mark.parametrize("moment", ["first_s=600", "events=100000&pace_s=0.01"])
async def test_newer_request_ends_the_older_one(
    moment: str, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Before its first byte and in decode; its slot is free at once, the newer one is served."""
    caplog.set_level(logging.INFO, "proxy.exchange")
    async with conversing() as (engine, server), wire(server.port) as old, wire(server.port) as new:
        await ask(old, "older", MINE, query=f"?{moment}", stream=stream)
        await wait_busy(engine, 1)
        await ask(new, "newer", MINE, query="?events=3", stream=False)
        assert await idle_after_s(engine) < FREE_WITHIN_S
        check_superseded(await old.read_to_end())
        assert b'"finish_reason":"stop"' in await new.read_to_end()
        assert await asked_of(engine) == ["DELETE /v1/stream?conv_id=mine"]
    assert causes(caplog) == {"older": "superseded", "newer": "finished"}


async def test_newest_of_several_ends_all_older_ones() -> None:
    """Each in its turn; one is left."""
    async with conversing() as (engine, server), trio.open_nursery() as nursery:
        clients = []
        for number in range(4):
            client = await nursery.start(connected, server)
            await ask(client, f"number {number}".replace(" ", "-"), MINE)
            await client.read_until(b'"content"')
            clients.append(client)
        for client in clients[:-1]:
            assert b"took this one's place" in await client.read_to_end()
        await wait_busy(engine, 1)
        assert server.in_flight == 1
        nursery.cancel_scope.cancel()


async def connected(server: ProxyServer, task_status: trio.TaskStatus[Wire]) -> None:
    """Stay connected to the main listener."""
    async with wire(server.port) as client:
        task_status.started(client)
        await trio.sleep_forever()


async def test_older_one_in_the_queue_leaves_it() -> None:
    """It holds no slot, so the newer one takes its place among those who wait."""
    async with (
        conversing("--fake-slots", "1") as (engine, server),
        wire(server.port) as busy,
        wire(server.port) as old,
        wire(server.port) as new,
    ):
        await ask(busy, "busy", query="?first_s=600")
        await wait_busy(engine, 1)
        await ask(old, "older", MINE)
        await until(lambda: server.in_flight == 2)
        await ask(new, "newer", MINE, query="?events=1")
        check_superseded(await old.read_to_end())
        await until(lambda: server.in_flight == 2)
        busy.fin()
        assert b"[DONE]" in await new.read_to_end()


async def test_older_one_gives_its_slot_to_the_newer_one() -> None:
    """Also where there is no other: the one that ends is not waited for by the one that waits."""
    async with (
        conversing("--fake-slots", "1") as (_, server),
        wire(server.port) as old,
        wire(server.port) as new,
    ):
        await ask(old, "older", MINE)
        await old.read_until(b'"content"')
        await ask(new, "newer", MINE, query="?events=1")
        check_superseded(await old.read_to_end())
        assert b"[DONE]" in await new.read_to_end()


# -- what does not ---------------------------------------------------------------------------------


@pytest.mark.parametrize("field", [OTHERS, "X-Conversation-Id: MINE", "X-Other: mine"])
async def test_request_of_another_conversation_ends_nothing(field: str) -> None:
    """Nor one of none."""
    async with conversing() as (engine, server), wire(server.port) as old, wire(server.port) as new:
        await ask(old, "older", MINE)
        await old.read_until(b'"content"')
        await ask(new, "newer", field, query="?events=1")
        assert b"[DONE]" in await new.read_to_end()
        found = exchange_of(server, "older")
        assert found is not None
        assert found.cause is None
        assert await asked_of(engine) == []
        old.fin()


async def test_without_the_option_nothing_happens() -> None:
    """llama-server is told of no conversation then, so it keeps none."""
    async with (
        conversing(forward=False) as (engine, server),
        wire(server.port) as old,
        wire(server.port) as new,
    ):
        await ask(old, "older", MINE)
        await old.read_until(b'"content"')
        await ask(new, "newer", MINE, query="?events=1")
        assert b"[DONE]" in await new.read_to_end()
        assert await busy_slots(engine) == 1
        assert await asked_of(engine) == []
        old.fin()


async def test_answer_that_was_whole_is_not_superseded(caplog: pytest.LogCaptureFixture) -> None:
    """There is nothing to end, and llama-server is not asked to."""
    caplog.set_level(logging.INFO, "proxy.exchange")
    async with conversing() as (engine, server):
        for name in ("older", "newer"):
            async with wire(server.port) as client:
                await ask(client, name, MINE, query="?events=1")
                assert b"[DONE]" in await client.read_to_end()
        assert await asked_of(engine) == []
    assert causes(caplog) == {"older": "finished", "newer": "finished"}


# -- whose -----------------------------------------------------------------------------------------


async def test_conversation_of_another_key_is_another_one() -> None:
    """Nobody ends the streams of others by guessing what they are called."""
    async with (
        conversing(api_keys=[ALICE, BOB]) as (_, server),
        wire(server.port) as old,
        wire(server.port) as new,
    ):
        await ask(old, "older", MINE, "x-api-key: sk-alice")
        await old.read_until(b'"content"')
        await ask(new, "newer", MINE, "x-api-key: sk-bob", query="?events=1")
        assert b"[DONE]" in await new.read_to_end()
        assert exchange_of(server, "older") is not None
        old.fin()


@pytest.mark.parametrize("key", ["alice", "bob"])
async def test_token_comes_in_its_keys_name(key: str) -> None:
    """By the fast path one's own conversation goes on, and nobody else's is ended."""
    async with (
        conversing(api_keys=[ALICE, BOB]) as (_, server),
        wire(server.port) as old,
        wire(fast_port(server)) as new,
    ):
        await ask(old, "older", MINE, "x-api-key: sk-alice")
        await old.read_until(b'"content"')
        token = server.stream_tokens.issue(key_name=key)
        await ask(new, "newer", MINE, f"X-Stream-Token: {token.token}", query="?events=1")
        assert b"[DONE]" in await new.read_to_end()
        if key == "alice":
            check_superseded(await old.read_to_end())
        else:
            assert exchange_of(server, "older") is not None
            old.fin()


# -- a real llama-server ---------------------------------------------------------------------------


@each_form
async def test_real_llama_server_goes_on_with_the_newer_one_alone(stream: bool) -> None:
    """It would go on with the older one, whose connection is closed; so it is told."""
    long = {**HELLO, "max_tokens": 30000, "ignore_eos": True}
    async with (
        proxy.open_llama_server() as engine,
        proxy.open_proxy(engine, port=0, forward_conversation_id=True) as server,
        leaves_nothing(server),
        wire(server.port) as old,
        wire(server.port) as new,
        trio.open_nursery() as nursery,
    ):
        fields = ("X-Request-Id: older", MINE, "Connection: close")
        await old.post(CHAT, {**long, "stream": stream}, *fields)
        await wait_busy(engine, 1)
        nursery.start_soon(old.read_to_end)
        await until(lambda: engine_is_decoding(server))
        body = {**HELLO, "max_tokens": 8, "ignore_eos": True, "stream": stream}
        await new.post(CHAT, body, MINE, "Connection: close")
        assert b'"finish_reason":"length"' in await new.read_to_end()
        assert await idle_after_s(engine) < FREE_WITHIN_S
    check_superseded(old.received)


def engine_is_decoding(server: ProxyServer) -> bool:
    """Return whether the older one has come so far that llama-server keeps it."""
    found = exchange_of(server, "older")
    return found is not None and found.first_byte_at is not None
