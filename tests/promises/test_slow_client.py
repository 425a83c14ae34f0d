"""P4: a client that stops reading slows itself alone, costs little, and is cut off."""

from __future__ import annotations

import logging

import pytest

import proxy
from tests.conftest import Running
from tests.fakes.engines import fake_engine
from tests.fakes.engines import running as fake_running
from tests.promises.listeners import Listener
from tests.promises.observe import idle_after_s, leaves_nothing, until, wait_busy

ENDLESS = {
    "messages": [{"role": "user", "content": "Go on."}],
    "stream": True,
    "ignore_eos": True,
    "max_tokens": 30000,
}
# Each event is this much longer, so that a few hundred fill every buffer between.
PADDING = 20_000


async def test_client_that_stops_reading_is_cut_off_after_the_send_timeout(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """Its slot is idle, its connection reset, and the log names the cause."""
    caplog.set_level(logging.INFO, "proxy.exchange")
    async with (
        fake_running(fake_engine()) as engine,
        proxy.open_proxy(engine, port=0, send_timeout_s=0.2) as server,
        leaves_nothing(server),
        listener.wire(server, receive_buffer=4096) as client,
    ):
        await client.post(f"{listener.chat}?events=100000&padding={PADDING}", ENDLESS)
        await wait_busy(engine, 1)
        await until(lambda: server.in_flight == 0)
        await idle_after_s(engine)
    assert "client_too_slow" in caplog.text


async def test_client_that_stops_reading_does_not_slow_another(
    running: Running, listener: Listener
) -> None:
    """The other's answer arrives whole while the first is blocked."""
    server = running.server
    async with (
        listener.wire(server, receive_buffer=4096) as stuck,
        listener.wire(server) as other,
    ):
        await stuck.post(listener.chat, {**ENDLESS, "logprobs": True, "top_logprobs": 20})
        await wait_busy(running.engine, 1)
        await other.post(listener.chat, {**ENDLESS, "max_tokens": 200})
        await other.read_until(b"[DONE]")
        await until(lambda: server.in_flight == 1)


async def test_what_is_taken_for_a_client_that_does_not_read_is_bounded(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither we nor the kernel takes more than 256 KiB from llama-server until it is cut off."""
    caplog.set_level(logging.INFO, "proxy.exchange")
    async with (
        fake_running(fake_engine()) as engine,
        proxy.open_proxy(engine, port=0, send_timeout_s=0.3) as server,
        listener.wire(server, receive_buffer=4096) as client,
    ):
        await client.post(f"{listener.chat}?events=100000&padding={PADDING}", ENDLESS)
        await wait_busy(engine, 1)
        await until(lambda: server.in_flight == 0)
    (record,) = [found for found in caplog.records if found.name == "proxy.exchange"]
    assert record.cause == "client_too_slow"  # type: ignore[attr-defined]
    assert record.bytes < 256 * 1024  # type: ignore[attr-defined]


async def test_stalled_readers_cost_the_proxy_little(listener: Listener) -> None:
    """Memory per client that takes nothing stays under 256 KiB, however much llama-server has."""
    clients = 20
    async with (
        fake_running(fake_engine("--fake-slots", str(clients))) as engine,
        proxy.open_proxy(engine, port=0) as server,
    ):
        async with listener.wire(server) as client:
            await client.post(f"{listener.chat}?events=10&padding={PADDING}", ENDLESS)
            await client.read_until(b"[DONE]")
        before = resident_bytes()
        wires = [listener.wire(server, receive_buffer=4096) for _ in range(clients)]
        for opened in wires:
            stuck = await opened.__aenter__()
            await stuck.post(f"{listener.chat}?events=100000&padding={PADDING}", ENDLESS)
        await wait_busy(engine, clients)
        await until(lambda: server.in_flight == clients)
        assert (resident_bytes() - before) / clients < 256 * 1024
        for opened in wires:
            await opened.__aexit__(None, None, None)
        await until(lambda: server.in_flight == 0)


def resident_bytes() -> int:
    """Return this process's resident memory."""
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123
        return int(statm.read().split()[1]) * 4096
