"""Ends that are the operator's: deadlines, cancelling, shutting down."""

from __future__ import annotations

import json
import logging

import pytest
import trio

import proxy
from tests.conftest import Running
from tests.fakes.engines import fake_engine, nothing_left
from tests.fakes.engines import running as fake_running
from tests.promises.listeners import Listener
from tests.promises.observe import (
    FREE_WITHIN_S,
    held,
    idle_after_s,
    leaves_nothing,
    until,
    wait_busy,
)
from tests.promises.replies import last_error
from tests.promises.wire import wire

WHOLE = {"messages": [{"role": "user", "content": "Hello."}], "max_tokens": 30000}
STREAM = {**WHOLE, "stream": True, "ignore_eos": True}


async def test_request_over_its_deadline_gets_504(listener: Listener) -> None:
    """`--request-timeout-s` ends the exchange before its first byte with a status."""
    async with (
        fake_running(fake_engine()) as engine,
        proxy.open_proxy(engine, port=0, request_timeout_s=0.1) as server,
        listener.wire(server) as client,
    ):
        await client.post(f"{listener.chat}?first_s=600", WHOLE)
        received = await client.read_until(b"}}")
        assert received.startswith(b"HTTP/1.1 504 Gateway Timeout")
        await idle_after_s(engine)


async def test_stream_over_its_deadline_gets_an_error_event(listener: Listener) -> None:
    """And after its first byte with an event."""
    async with (
        fake_running(fake_engine()) as engine,
        proxy.open_proxy(engine, port=0, request_timeout_s=0.3) as server,
        listener.wire(server) as client,
    ):
        await client.post(f"{listener.chat}?events=10000&pace_s=0.02", STREAM, "Connection: close")
        error = last_error(await client.read_to_end())
        assert (error["code"], error["type"]) == (504, "timeout_error")
        await idle_after_s(engine)


async def test_exchange_that_an_admin_cancels_ends_and_frees_its_slot(
    running: Running, listener: Listener
) -> None:
    """`DELETE /proxy/exchanges/{id}` ends it; its client is told."""
    server = running.server
    async with (
        leaves_nothing(server),
        listener.wire(server) as client,
        wire(server.port) as admin,
    ):
        await client.post(listener.chat, STREAM, "X-Request-Id: mine", "Connection: close")
        await client.read_until(b'"content":"')
        await admin.get("/proxy/exchanges")
        listed = (await admin.read_until(b"]}")).split(b"\r\n\r\n", 1)[1]
        (exchange,) = json.loads(listed)["exchanges"]
        assert (exchange["request_id"], exchange["phase"]) == ("mine", "decode")
        await admin.send(b"DELETE /proxy/exchanges/mine HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await admin.read_until(b"HTTP/1.1 204")
        assert await idle_after_s(running.engine) < FREE_WITHIN_S
        assert "administrator" in str(last_error(await client.read_to_end())["message"])


async def test_drain_lets_a_stream_finish(listener: Listener) -> None:
    """What is in flight when the proxy is asked to stop comes to its own end."""
    with nothing_left():
        async with (
            fake_running(fake_engine()) as engine,
            proxy.open_proxy(engine, port=0) as server,
            listener.wire(server) as client,
        ):
            await client.post(f"{listener.chat}?events=20&pace_s=0.01", STREAM)
            await client.read_until(b'"content"')
            await server.drain()
            assert b"[DONE]" in await client.read_to_end()


async def test_drain_ends_what_outlasts_it_with_a_typed_error(listener: Listener) -> None:
    """After the drain time each client left is told that the server shuts down."""
    async with fake_running(fake_engine()) as engine:
        async with (
            proxy.open_proxy(engine, port=0, drain_s=0.1) as server,
            listener.wire(server) as client,
        ):
            await client.post(f"{listener.chat}?events=10000&pace_s=0.02", STREAM)
            await client.read_until(b'"content"')
            await server.drain()
            error = last_error(await client.read_to_end())
            assert (error["code"], error["type"]) == (503, "unavailable_error")
        await idle_after_s(engine)


async def test_drain_refuses_who_waits_in_the_queue(listener: Listener) -> None:
    """They have not begun: they are told to go elsewhere, at once."""
    async with (
        fake_running(fake_engine("--fake-slots", "1")) as engine,
        proxy.open_proxy(engine, port=0, drain_s=0.1) as server,
        listener.wire(server) as served,
        listener.wire(server) as queued,
    ):
        await served.post(f"{listener.chat}?first_s=600", WHOLE)
        await wait_busy(engine, 1)
        await queued.post(listener.chat, WHOLE)
        await until(lambda: server.in_flight == 2)
        await server.drain()
        assert (await queued.read_to_end()).startswith(b"HTTP/1.1 503")


@pytest.mark.parametrize("receive_buffer", [None, 4096], ids=["reads", "stalled"])
async def test_cancelled_proxy_leaves_nothing(
    listener: Listener, receive_buffer: int | None
) -> None:
    """A hard stop ends every exchange at once, also of a client that does not read."""
    with nothing_left():
        async with fake_running(fake_engine()) as engine:
            with trio.move_on_after(20) as scope:
                async with (
                    proxy.open_proxy(engine, port=0) as server,
                    listener.wire(server, receive_buffer=receive_buffer) as client,
                ):
                    await client.post(f"{listener.chat}?events=100000&padding=20000", STREAM)
                    await wait_busy(engine, 1)
                    scope.cancel()
                    await trio.sleep_forever()
            assert await idle_after_s(engine) < FREE_WITHIN_S


async def test_whole_answer_that_is_not_taken_in_time_is_not_called_finished(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """Its slot is somebody else's as soon as the answer is there; its deadline is still its own."""
    caplog.set_level(logging.INFO, "proxy.exchange")
    async with (
        fake_running(fake_engine()) as engine,
        proxy.open_proxy(engine, port=0, request_timeout_s=2) as server,
        listener.wire(server, receive_buffer=4096) as client,
    ):
        await client.post(f"{listener.chat}?events=400&padding=20000", WHOLE)
        await wait_busy(engine, 1)
        await until(lambda: (held(server)["exchange"], held(server)["permit"]) == (1, 0))
        await until(lambda: held(server)["exchange"] == 0)
    causes = [record.__dict__["cause"] for record in caplog.records if "cause" in record.__dict__]
    assert causes == ["deadline_exceeded"]
