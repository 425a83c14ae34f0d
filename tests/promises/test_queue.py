"""The gate, over real sockets: order, bounds, patience, and what those who wait are told."""

from __future__ import annotations

import json
from functools import partial

import pytest
import trio

import proxy
from proxy.relay import connecting
from tests.fakes.engines import fake_engine
from tests.fakes.engines import running as fake_running
from tests.promises.listeners import Listener
from tests.promises.observe import until, wait_busy

WHOLE = {"messages": [{"role": "user", "content": "Hello."}]}
STREAM = {**WHOLE, "stream": True}
ONE_SLOT = ("--fake-slots", "1")


async def test_full_queue_is_refused_with_retry_after(listener: Listener) -> None:
    """429 in our shape, at once."""
    async with (
        fake_running(fake_engine(*ONE_SLOT)) as engine,
        proxy.open_proxy(engine, port=0, max_queue=1) as server,
        listener.wire(server) as served,
        listener.wire(server) as queued,
        listener.wire(server) as refused,
    ):
        await served.post(f"{listener.chat}?first_s=600", WHOLE)
        await wait_busy(engine, 1)
        await queued.post(listener.chat, WHOLE)
        await until(lambda: server.in_flight == 2)
        await refused.post(listener.chat, WHOLE)
        received = (await refused.read_until(b"}}")).decode()
        assert received.startswith("HTTP/1.1 429 Too Many Requests")
        assert "retry-after: " in received.lower()
        assert json.loads(received.split("\r\n\r\n", 1)[1])["error"]["type"] == "rate_limit_error"


def in_flight(server: proxy.ProxyServer, count: int) -> bool:
    """Return whether so many exchanges are under way."""
    return server.in_flight == count


async def test_queue_is_first_come_first_served(listener: Listener) -> None:
    """Answers come in the order of the requests."""
    answered: list[int] = []
    async with (
        fake_running(fake_engine(*ONE_SLOT)) as engine,
        proxy.open_proxy(engine, port=0) as server,
        trio.open_nursery() as nursery,
    ):

        async def ask(number: int) -> None:
            async with listener.wire(server) as client:
                await client.post(f"{listener.chat}?events=1", WHOLE)
                await client.read_until(b'"choices"')
                answered.append(number)

        async with listener.wire(server) as first:
            await first.post(f"{listener.chat}?first_s=600", WHOLE)
            await wait_busy(engine, 1)
            for number in range(8):
                nursery.start_soon(ask, number)
                await until(partial(in_flight, server, number + 2))
            first.fin()
    assert answered == list(range(8))


async def test_queue_timeout_gives_503_with_retry_after(listener: Listener) -> None:
    """Who waited too long is told so, and the place is free again."""
    async with (
        fake_running(fake_engine(*ONE_SLOT)) as engine,
        proxy.open_proxy(engine, port=0, queue_timeout_s=0.1) as server,
        listener.wire(server) as served,
        listener.wire(server) as queued,
    ):
        await served.post(f"{listener.chat}?first_s=600", WHOLE)
        await wait_busy(engine, 1)
        await queued.post(listener.chat, WHOLE)
        received = (await queued.read_until(b"}}")).decode()
        assert received.startswith("HTTP/1.1 503 Service Unavailable")
        assert "retry-after: " in received.lower()
        await until(lambda: server.in_flight == 1)


async def test_streaming_client_that_waits_gets_comments(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its position comes as event-stream comments, then the stream itself."""
    monkeypatch.setattr(connecting, "QUEUE_COMMENT_S", 0.02)
    async with (
        fake_running(fake_engine(*ONE_SLOT)) as engine,
        proxy.open_proxy(engine, port=0) as server,
        listener.wire(server) as served,
        listener.wire(server) as queued,
    ):
        await served.post(f"{listener.chat}?first_s=600", WHOLE)
        await wait_busy(engine, 1)
        await queued.post(f"{listener.chat}?events=1", STREAM)
        waiting = await queued.read_until(b": queued, position 1")
        assert waiting.startswith(b"HTTP/1.1 200 OK")
        served.fin()
        received = await queued.read_until(b"[DONE]")
        assert b'"content"' in received


async def test_error_after_comments_comes_as_an_event(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status was sent with the first comment, so llama-server's error becomes an event."""
    monkeypatch.setattr(connecting, "QUEUE_COMMENT_S", 0.02)
    async with (
        fake_running(fake_engine(*ONE_SLOT)) as engine,
        proxy.open_proxy(engine, port=0) as server,
        listener.wire(server) as served,
        listener.wire(server) as queued,
    ):
        await served.post(f"{listener.chat}?first_s=600", WHOLE)
        await wait_busy(engine, 1)
        await queued.post(f"{listener.chat}?status=400", STREAM, "Connection: close")
        await queued.read_until(b": queued, position 1")
        served.fin()
        received = await queued.read_to_end()
        event = received.rsplit(b"data: ", 1)[1].split(b"\n\n")[0]
        assert json.loads(event)["error"]["code"] == 400
        assert b"[DONE]" not in received
