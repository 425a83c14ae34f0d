"""Every end cause that can be reached is named in the log line and in the metrics, once."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from prometheus_client.parser import text_string_to_metric_families

import proxy
from proxy import EndCause, LlamaServer, ProxyServer
from tests.fakes.engines import fake_engine, nothing_left
from tests.fakes.engines import running as fake_running
from tests.promises.observe import until, wait_busy
from tests.promises.wire import Wire, wire

CHAT = "/v1/chat/completions"
WHOLE = {"messages": [{"role": "user", "content": "Hello."}]}
STREAM = {**WHOLE, "stream": True}


@dataclass(slots=True)
class Scene:
    """One engine with one slot, a proxy with little patience, and a client."""

    engine: LlamaServer
    server: ProxyServer
    client: Wire


async def finish(scene: Scene) -> None:
    """Answer whole."""
    await scene.client.post(CHAT, WHOLE)
    await scene.client.read_until(b'"choices"')


async def disconnect(scene: Scene) -> None:
    """Leave in decode."""
    await scene.client.post(f"{CHAT}?events=10000&pace_s=0.01", STREAM)
    await scene.client.read_until(b'"content"')
    scene.client.fin()


async def be_slow(scene: Scene) -> None:
    """Stop reading."""
    await scene.client.post(f"{CHAT}?events=100000&padding=20000", STREAM)
    await wait_busy(scene.engine, 1)


async def break_upstream(scene: Scene) -> None:
    """Let llama-server break the stream."""
    await scene.client.post(f"{CHAT}?events=2&end=reset", STREAM)


async def crash(scene: Scene) -> None:
    """Kill llama-server."""
    await scene.client.post(f"{CHAT}?first_s=600", WHOLE)
    await wait_busy(scene.engine, 1)
    os.kill(scene.engine.pid or 0, signal.SIGKILL)


async def exceed_deadline(scene: Scene) -> None:
    """Take longer than any request may."""
    await scene.client.post(f"{CHAT}?events=10000&pace_s=0.01", STREAM)


async def wait_in_queue(scene: Scene) -> None:
    """Wait for a slot longer than any request may."""
    async with wire(scene.server.port) as served:
        await served.post(f"{CHAT}?events=10000&pace_s=0.01", STREAM)
        await wait_busy(scene.engine, 1)
        await scene.client.post(CHAT, WHOLE)
        assert (await scene.client.read_until(b"}}")).startswith(b"HTTP/1.1 503")


async def cancel_as_admin(scene: Scene) -> None:
    """Let an administrator end it."""
    await scene.client.post(f"{CHAT}?events=10000&pace_s=0.01", STREAM, "X-Request-Id: mine")
    await scene.client.read_until(b'"content"')
    async with wire(scene.server.port) as admin:
        await admin.send(b"DELETE /proxy/exchanges/mine HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await admin.read_until(b"HTTP/1.1 204")


SCENES: dict[EndCause, tuple[Callable[[Scene], Awaitable[None]], dict[str, float]]] = {
    EndCause.FINISHED: (finish, {}),
    EndCause.CLIENT_DISCONNECTED: (disconnect, {}),
    EndCause.CLIENT_TOO_SLOW: (be_slow, {"send_timeout_s": 0.2}),
    EndCause.UPSTREAM_ERROR: (break_upstream, {}),
    EndCause.UPSTREAM_CRASHED: (crash, {}),
    EndCause.DEADLINE_EXCEEDED: (exceed_deadline, {"request_timeout_s": 0.3}),
    EndCause.QUEUE_TIMEOUT: (wait_in_queue, {"queue_timeout_s": 0.1}),
    EndCause.CANCELLED_BY_ADMIN: (cancel_as_admin, {}),
}


@pytest.mark.parametrize("cause", SCENES, ids=str)
async def test_cause_is_in_the_log_and_in_the_metrics(
    cause: EndCause, caplog: pytest.LogCaptureFixture
) -> None:
    """The exchange's log line and the counter of its route name it, each once."""
    caplog.set_level(logging.INFO, "proxy.exchange")
    play, settings = SCENES[cause]
    with nothing_left():
        async with (
            fake_running(fake_engine("--fake-slots", "1")) as engine,
            proxy.open_proxy(engine, port=0, **settings) as server,  # type: ignore[arg-type]
            wire(server.port, receive_buffer=4096) as client,
        ):
            await play(Scene(engine, server, client))
            await until(lambda: logged(caplog, cause) == 1)
            assert await counted(server, cause) == 1


async def test_shutting_down_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """By then there is nobody left to ask for metrics."""
    caplog.set_level(logging.INFO, "proxy.exchange")
    async with (
        fake_running(fake_engine()) as engine,
        proxy.open_proxy(engine, port=0, drain_s=0.1) as server,
        wire(server.port) as client,
    ):
        await client.post(f"{CHAT}?events=10000&pace_s=0.01", STREAM)
        await client.read_until(b'"content"')
        await server.drain()
        assert logged(caplog, EndCause.SHUTTING_DOWN) == 1


def logged(caplog: pytest.LogCaptureFixture, cause: EndCause) -> int:
    """Return how many exchanges were logged to have ended by `cause`."""
    return sum(getattr(record, "cause", None) == cause for record in caplog.records)


async def counted(server: ProxyServer, cause: EndCause) -> float:
    """Return what `/proxy/metrics` counts for the route and `cause`."""
    async with wire(server.port) as client:
        await client.get("/proxy/metrics", "Connection: close")
        text = (await client.read_to_end()).decode().split("\r\n\r\n", 1)[1]
    wanted = {"route": CHAT, "cause": cause.value}
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "llama_proxy_exchanges_total" and sample.labels == wanted
    )
