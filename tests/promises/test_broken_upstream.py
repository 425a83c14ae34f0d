"""P3: an answer that did not finish never ends as if it had."""

from __future__ import annotations

import os
import signal

import pytest
import trio

import proxy
from proxy.core.lifecycle import EngineState
from tests.conftest import Running
from tests.fakes.engines import fake_engine, nothing_left, wait_state
from tests.fakes.engines import running as fake_running
from tests.promises.listeners import Listener
from tests.promises.observe import leaves_nothing, until, wait_busy
from tests.promises.replies import CHUNKED_END, last_error
from tests.promises.wire import wire

STREAM = {"messages": [{"role": "user", "content": "Go on."}], "stream": True}
ENDLESS = {**STREAM, "ignore_eos": True, "max_tokens": 30000}
WHOLE = {**STREAM, "stream": False}


@pytest.mark.parametrize("end", ["cut", "mid_chunk", "reset", "no_done"])
async def test_stream_that_breaks_ends_with_an_error_event(listener: Listener, end: str) -> None:
    """The stream is well-formed to its end, its last event names the cause, `[DONE]` is missing."""
    with nothing_left():
        async with (
            fake_running(fake_engine()) as engine,
            proxy.open_proxy(engine, port=0) as server,
            leaves_nothing(server),
            listener.wire(server) as client,
        ):
            await client.post(f"{listener.chat}?events=3&end={end}", STREAM, "Connection: close")
            error = last_error(await client.read_to_end())
            assert (error["code"], error["type"]) == (502, "upstream_error")


@pytest.mark.parametrize(
    ("path", "begins"),
    [
        ("/v1/messages", "event: error"),
        ("/v1/responses", "event: error"),
        ("/completion", 'data: {"error"'),
        ("/v1/completions", 'data: {"error"'),
    ],
)
async def test_error_event_speaks_the_dialect_of_its_route(
    listener: Listener, path: str, begins: str
) -> None:
    """Each client library finds the error where it looks for it."""
    async with (
        fake_running(fake_engine()) as engine,
        proxy.open_proxy(engine, port=0) as server,
        listener.wire(server) as client,
    ):
        await client.post(f"{path}?events=3&end=cut", STREAM, "Connection: close")
        received = (await client.read_to_end()).decode()
        assert begins in received.rsplit("\n\n", 2)[-2]
        assert "[DONE]" not in received


async def test_whole_answer_that_breaks_in_its_body_is_no_answer() -> None:
    """Its head is sent already, so the connection ends inside the message."""
    async with (
        fake_running(fake_engine()) as engine,
        proxy.open_proxy(engine, port=0) as server,
        wire(server.port) as client,
    ):
        await client.get("/fake/bytes?n=1000000000&chunk=1000")
        await client.read_until(b"\r\n\r\n")
        os.kill(engine.pid or 0, signal.SIGKILL)
        received = await client.read_to_end()
        assert not received.endswith(CHUNKED_END)


async def test_upstream_that_closes_before_its_head_gives_502(listener: Listener) -> None:
    """The client gets an error status with our own sentence."""
    async with (
        fake_running(fake_engine()) as engine,
        proxy.open_proxy(engine, port=0) as server,
        listener.wire(server) as client,
    ):
        await client.post(f"{listener.chat}?events=0&first_s=600", WHOLE)
        await wait_busy(engine, 1)
        os.kill(engine.pid or 0, signal.SIGKILL)
        received = await client.read_until(b"}}")
        assert received.startswith(b"HTTP/1.1 502 Bad Gateway")
        assert b"signal 9 (SIGKILL)" in received


async def test_crash_in_decode_ends_the_stream_with_its_signal(
    running: Running, listener: Listener
) -> None:
    """The error event says that llama-server crashed and how; the next request is served."""
    engine = running.engine
    async with listener.wire(running.server) as client:
        await client.post(listener.chat, ENDLESS, "Connection: close")
        await client.read_until(b'"content":"')
        os.kill(engine.pid or 0, signal.SIGKILL)
        received = await client.read_to_end()
    error = last_error(received)
    assert error["type"] == "upstream_error"
    assert "signal 9 (SIGKILL)" in str(error["message"])
    async with listener.wire(running.server) as client:
        await client.post(listener.chat, {**WHOLE, "max_tokens": 5})
        assert (await client.read_until(b'"choices"')).startswith(b"HTTP/1.1 200 OK")
    assert engine.generation == 2


async def test_crash_leaves_who_is_queued_in_the_queue(
    running: Running, listener: Listener
) -> None:
    """They wait for the restart and are answered then."""
    engine = running.engine
    async with trio.open_nursery() as nursery:

        async def hold() -> None:
            async with listener.wire(running.server) as client:
                await client.post(listener.chat, ENDLESS, "Connection: close")
                await client.read_to_end()

        for _ in range(4):
            nursery.start_soon(hold)
        await wait_busy(engine, 4)
        async with listener.wire(running.server) as queued:
            await queued.post(listener.chat, {**WHOLE, "max_tokens": 5})
            await until(lambda: running.server.in_flight == 5)
            os.kill(engine.pid or 0, signal.SIGSEGV)
            received = await queued.read_until(b'"choices"')
            assert received.startswith(b"HTTP/1.1 200 OK")
    assert engine.restarts == 1


async def test_crash_loop_is_answered_with_its_reason_until_a_restart(listener: Listener) -> None:
    """503 names the crashes and the last log lines; `POST /proxy/restart` serves again."""
    async with (
        fake_running(fake_engine("--fake-say", "loading /secret/place/tiny.gguf")) as engine,
        proxy.open_proxy(engine, port=0) as server,
    ):
        for _ in range(6):
            await wait_state(engine, EngineState.READY)
            os.kill(engine.pid or 0, signal.SIGKILL)
            await wait_state(engine, EngineState.CRASHED, EngineState.FAILED)
        await wait_state(engine, EngineState.FAILED)
        async with listener.wire(server) as client:
            await client.post(listener.chat, WHOLE)
            received = (await client.read_until(b"]")).decode()
            assert received.startswith("HTTP/1.1 503 Service Unavailable")
            assert "llama-server has failed" in received
            assert "tiny.gguf" in received
            assert "/secret/place" not in received
        async with wire(server.port) as client:
            await client.post("/proxy/restart", {})
            assert b" 202 " in await client.read_until(b"}")
            await wait_state(engine, EngineState.READY)
            await client.get("/livez")
            await client.read_until(b"live\n")
        async with listener.wire(server) as client:
            await client.post(f"{listener.chat}?events=1", WHOLE)
            assert (await client.read_until(b"}")).startswith(b"HTTP/1.1 200 OK")


async def test_restart_by_an_admin_ends_what_outlasts_the_drain(listener: Listener) -> None:
    """What is in flight gets the drain time, and then `upstream_error`."""
    async with (
        fake_running(fake_engine()) as engine,
        proxy.open_proxy(engine, port=0, drain_s=0.05) as server,
        listener.wire(server) as client,
        wire(server.port) as admin,
    ):
        await client.post(f"{listener.chat}?events=2&end=hang", STREAM, "Connection: close")
        await client.read_until(b'"content"')
        await admin.post("/proxy/restart", {})
        error = last_error(await client.read_to_end())
        assert (error["code"], error["type"]) == (502, "upstream_error")
        assert "restarted" in str(error["message"])
        with trio.fail_after(20):
            await engine.wait_exited(1)
            await engine.wait_ready()
        assert engine.generation == 2
