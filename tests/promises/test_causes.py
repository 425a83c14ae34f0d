"""Every end cause is named to everybody: in the log, the metrics, `/proxy/exchanges` and the reply.

And the first one stays, whatever comes while its client is still being told.
"""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

import proxy
from proxy import EndCause, LlamaServer, ProxyServer
from proxy.core.errors import HttpError
from proxy.relay.downstream import Downstream
from proxy.web.metrics import make_exporter
from proxy.web.operator import ExchangeView
from tests.fakes.engines import fake_engine, nothing_left
from tests.fakes.engines import running as fake_running
from tests.promises.listeners import FAST, LISTENERS, Listener, no_credentials
from tests.promises.observe import exchange_of, leaves_nothing, until, wait_busy
from tests.promises.replies import CHUNKED_END, error_told
from tests.promises.wire import Wire, wire

WHOLE = {"messages": [{"role": "user", "content": "Hello."}]}
STREAM = {**WHOLE, "stream": True}
ENDLESS = "events=100000&pace_s=0.01"
NAME = "mine"


# --- how an exchange comes to end ---


@dataclass(slots=True)
class Scene:
    """One engine with one slot, a proxy with little patience, and two clients of a listener.

    Attributes:
        chat: The listener's route for a chat.
        client: Its exchange is the one that ends.
        other: May ask for something beside it.
    """

    engine: LlamaServer
    server: ProxyServer
    chat: str
    client: Wire
    other: Wire

    async def ask(self, query: str, body: object = STREAM, *fields: str) -> None:
        """Send the request whose exchange is to end."""
        names = (f"X-Request-Id: {NAME}", "Connection: close")
        await self.client.post(f"{self.chat}?{query}", body, *names, *fields)


async def finish(scene: Scene) -> None:
    """Answer whole."""
    await scene.ask("", WHOLE)


async def disconnect(scene: Scene) -> None:
    """Leave in decode."""
    await scene.ask(ENDLESS)
    await scene.client.read_until(b'"content"')
    scene.client.fin()


async def be_slow(scene: Scene) -> None:
    """Stop reading."""
    await scene.ask("events=100000&padding=20000")
    await wait_busy(scene.engine, 1)
    await until(lambda: scene.server.in_flight == 0)


async def break_upstream(scene: Scene) -> None:
    """Let llama-server break the stream."""
    await scene.ask("events=2&end=reset")


async def crash(scene: Scene) -> None:
    """Kill llama-server."""
    await scene.ask("first_s=600", WHOLE)
    await wait_busy(scene.engine, 1)
    os.kill(scene.engine.pid or 0, signal.SIGKILL)


async def exceed_deadline(scene: Scene) -> None:
    """Take longer than any request may."""
    await scene.ask(ENDLESS)


async def wait_in_queue(scene: Scene) -> None:
    """Wait for a slot longer than any request may."""
    await scene.other.post(f"{scene.chat}?{ENDLESS}", STREAM)
    await wait_busy(scene.engine, 1)
    await scene.ask("", WHOLE)


async def cancel_as_admin(scene: Scene) -> None:
    """Let an administrator end it."""
    await scene.ask(ENDLESS)
    await scene.client.read_until(b'"content"')
    await delete(scene.server)


async def supersede(scene: Scene) -> None:
    """Ask again in the same conversation."""
    await scene.ask(ENDLESS, STREAM, "X-Conversation-Id: one")
    await scene.client.read_until(b'"content"')
    await scene.other.post(f"{scene.chat}?events=1", WHOLE, "X-Conversation-Id: one")


async def outlive_lease(scene: Scene) -> None:
    """Open an endless stream with a token whose lease is short."""
    token = scene.server.stream_tokens.issue(lease_s=0.3)
    await scene.ask(ENDLESS, STREAM, f"X-Stream-Token: {token.token}")


async def revoke_token(scene: Scene) -> None:
    """Take back the token that opened the stream."""
    token = scene.server.stream_tokens.issue()
    await scene.ask(ENDLESS, STREAM, f"X-Stream-Token: {token.token}")
    await scene.client.read_until(b'"content"')
    await delete(scene.server, f"/v1/stream-tokens/{token.id}")


async def shut_down(scene: Scene) -> None:
    """Drain for less time than the stream takes."""
    await scene.ask(ENDLESS)
    await scene.client.read_until(b'"content"')
    await scene.server.drain()


async def delete(server: ProxyServer, path: str = f"/proxy/exchanges/{NAME}") -> None:
    """Send a DELETE to the main listener, which has to have what is deleted."""
    async with wire(server.port) as admin:
        await admin.send(f"DELETE {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert b"HTTP/1.1 204" in await admin.read_until(b"\r\n\r\n")


@dataclass(frozen=True, slots=True)
class Told:
    """What a client is told: status, type, and a part of the message."""

    code: int
    type: str
    words: str


@dataclass(frozen=True, slots=True)
class Story:
    """How an exchange comes to end.

    Attributes:
        play: Does it.
        told: The error that its client gets; None where it gets none.
        settings: Of the proxy.
        only: The listeners on which it can happen.
    """

    play: Callable[[Scene], Awaitable[None]]
    told: Told | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    only: tuple[Listener, ...] = tuple(LISTENERS)


# Their stories bring tokens of their own.
BARE_FAST = replace(FAST, credentials=no_credentials)

STORIES: dict[EndCause, Story] = {
    EndCause.FINISHED: Story(finish),
    EndCause.CLIENT_DISCONNECTED: Story(disconnect),
    EndCause.CLIENT_TOO_SLOW: Story(be_slow, settings={"send_timeout_s": 0.2}),
    EndCause.UPSTREAM_ERROR: Story(break_upstream, Told(502, "upstream_error", "closed")),
    EndCause.UPSTREAM_CRASHED: Story(crash, Told(502, "upstream_error", "signal 9 (SIGKILL)")),
    EndCause.DEADLINE_EXCEEDED: Story(
        exceed_deadline,
        Told(504, "timeout_error", "longer than this server allows"),
        {"request_timeout_s": 0.3},
    ),
    EndCause.QUEUE_TIMEOUT: Story(
        wait_in_queue,
        Told(503, "unavailable_error", "No slot became free"),
        {"queue_timeout_s": 0.1},
    ),
    EndCause.CANCELLED_BY_ADMIN: Story(
        cancel_as_admin, Told(503, "unavailable_error", "by an administrator")
    ),
    EndCause.SUPERSEDED: Story(
        supersede,
        Told(503, "unavailable_error", "A newer request"),
        {"forward_conversation_id": True},
    ),
    EndCause.TOKEN_EXPIRED: Story(
        outlive_lease, Told(401, "authentication_error", "lease"), only=(BARE_FAST,)
    ),
    EndCause.TOKEN_REVOKED: Story(
        revoke_token, Told(401, "authentication_error", "revoked"), only=(BARE_FAST,)
    ),
    EndCause.SHUTTING_DOWN: Story(
        shut_down, Told(503, "unavailable_error", "shutting down"), {"drain_s": 0.05}
    ),
}


def each_story(chosen: Callable[[Story], bool] = lambda _: True) -> pytest.MarkDecorator:
    """Run a test for each cause whose story is `chosen`, on each listener that can have it."""
    cases = [
        pytest.param(listener, cause, id=f"{listener.name}-{cause}")
        for cause, story in STORIES.items()
        for listener in story.only
        if chosen(story)
    ]
    return pytest.mark.parametrize(("listener", "cause"), cases)


def test_every_cause_has_a_story() -> None:
    """But a defect of ours (`test_defects`), and the one that predictions alone have."""
    others = {EndCause.INTERNAL_ERROR, EndCause.CANCELLED_BY_CLIENT}
    assert set(EndCause) - set(STORIES) == others


@asynccontextmanager
async def scene_of(cause: EndCause, listener: Listener) -> AsyncIterator[Scene]:
    """Set the scene for `cause`."""
    with nothing_left():
        async with (
            fake_running(fake_engine("--fake-slots", "1")) as engine,
            proxy.open_proxy(engine, port=0, **STORIES[cause].settings) as server,
            leaves_nothing(server),
            listener.wire(server) as other,
            listener.wire(server, receive_buffer=4096) as client,
        ):
            yield Scene(engine, server, listener.chat, client, other)


# --- log, metrics and reply ---


@each_story()
async def test_cause_is_in_the_log_the_metrics_and_the_reply(
    listener: Listener, cause: EndCause, caplog: pytest.LogCaptureFixture
) -> None:
    """The exchange's log line names it, the counter of its route counts it, its client is told."""
    caplog.set_level(logging.INFO, "proxy.exchange")
    story = STORIES[cause]
    async with scene_of(cause, listener) as scene:
        await story.play(scene)
        if cause is not EndCause.CLIENT_DISCONNECTED:
            check_told(story.told, await scene.client.read_to_end(), cause)
        await until(lambda: logged(caplog) == [cause])
        assert await counted(scene.server, listener.chat, cause) == 1


def check_told(told: Told | None, received: bytes, cause: EndCause) -> None:
    """The reply tells the error, is complete, or has no end: as the cause has it."""
    if told is not None:
        error = error_told(received)
        assert (error["code"], error["type"], error["request_id"]) == (told.code, told.type, NAME)
        assert told.words in str(error["message"])
    elif cause is EndCause.FINISHED:
        assert b'"finish_reason":"stop"' in received
    else:
        assert b"[DONE]" not in received
        assert not received.endswith(CHUNKED_END)


def logged(caplog: pytest.LogCaptureFixture, request_id: str = NAME) -> list[str]:
    """Return the causes in the log lines of an exchange."""
    exchanges = [found for found in caplog.records if found.name == "proxy.exchange"]
    return [found.cause for found in exchanges if found.request_id == request_id]  # type: ignore[attr-defined]


async def counted(server: ProxyServer, route: str, cause: EndCause) -> float:
    """Return what the metrics count for the route and `cause`."""
    wanted = {"route": route, "cause": cause.value}
    return sum(
        sample.value
        for family in text_string_to_metric_families(await metrics(server, cause))
        for sample in family.samples
        if sample.name == "llama_proxy_exchanges_total" and sample.labels == wanted
    )


async def metrics(server: ProxyServer, cause: EndCause) -> str:
    """Return the text of `/proxy/metrics`, which nobody answers any more after a shutdown."""
    if cause is EndCause.SHUTTING_DOWN:
        return make_exporter(server._backend)().decode()
    return await get(server, "/proxy/metrics")


async def get(server: ProxyServer, path: str) -> str:
    """Return the body of a route of the main listener."""
    async with wire(server.port) as client:
        await client.get(path, "Connection: close")
        return (await client.read_to_end()).decode().split("\r\n\r\n", 1)[1]


# --- /proxy/exchanges, and what comes too late ---


async def shown(server: ProxyServer) -> dict[str, Any]:
    """Return what `/proxy/exchanges` shows, by request id."""
    found = json.loads(await get(server, "/proxy/exchanges"))["exchanges"]
    return {view["request_id"]: view for view in found}


@each_story(lambda story: story.told is not None and story.play is not shut_down)
async def test_cause_is_shown_while_its_client_is_told_and_stays(
    listener: Listener,
    cause: EndCause,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An administrator and the client itself come too late to be the cause."""
    caplog.set_level(logging.INFO, "proxy.exchange")
    go_on = hold_telling(monkeypatch)
    async with scene_of(cause, listener) as scene:
        server = scene.server
        await STORIES[cause].play(scene)
        await until(lambda: is_ending(server))
        assert (await shown(server))[NAME]["cause"] == cause
        await delete(server)
        scene.client.fin()
        assert (await shown(server))[NAME]["cause"] == cause
        go_on.set()
        await until(lambda: logged(caplog) == [cause])


def hold_telling(monkeypatch: pytest.MonkeyPatch) -> trio.Event:
    """Let nobody be told how their exchange ended until the event that is returned is set."""
    go_on = trio.Event()
    fail = Downstream.fail

    async def fail_later(self: Downstream, error: HttpError) -> None:
        await go_on.wait()
        await fail(self, error)

    monkeypatch.setattr(Downstream, "fail", fail_later)
    return go_on


def is_ending(server: ProxyServer) -> bool:
    """Return whether the exchange has a cause already."""
    found = exchange_of(server, NAME)
    return found is not None and found.cause is not None


async def test_exchange_that_runs_has_no_cause(listener: Listener) -> None:
    """It is null until it ends."""
    async with scene_of(EndCause.FINISHED, listener) as scene:
        await scene.ask(ENDLESS)
        await scene.client.read_until(b'"content"')
        assert (await shown(scene.server))[NAME]["cause"] is None


async def test_shutdown_is_the_cause_while_its_client_is_told(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then nobody is let in to look at `/proxy/exchanges`; it would show this."""
    go_on = hold_telling(monkeypatch)
    async with scene_of(EndCause.SHUTTING_DOWN, listener) as scene, trio.open_nursery() as nursery:
        nursery.start_soon(shut_down, scene)
        await until(lambda: is_ending(scene.server))
        found = exchange_of(scene.server, NAME)
        assert found is not None
        assert ExchangeView.of(found, trio.current_time()).cause == EndCause.SHUTTING_DOWN
        go_on.set()


async def test_client_that_does_not_take_its_error_keeps_its_cause(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    """With nothing but sockets: the error waits for room, and the cause is not what happens then.

    Its earlier answers, which it does not read either, fill all that the kernel takes for it.
    """
    caplog.set_level(logging.INFO, "proxy.exchange")
    # A token each would be more than one key may have.
    listener = replace(listener, credentials=no_credentials)
    async with (
        fake_running(fake_engine()) as engine,
        proxy.open_proxy(engine, port=0, request_timeout_s=0.005) as server,
        leaves_nothing(server),
        listener.wire(server, receive_buffer=4096) as client,
    ):
        for number in range(400):
            # The longer the id is, the sooner it is full.
            name = f"X-Request-Id: {number:0128}"
            await client.post(f"{listener.chat}?first_s=600", WHOLE, name)
        stuck = await same_for_a_while(server)
        assert (await shown(server))[stuck]["cause"] == EndCause.DEADLINE_EXCEEDED
        await delete(server, f"/proxy/exchanges/{stuck}")
        client.fin()
        await until(lambda: logged(caplog, stuck) == [EndCause.DEADLINE_EXCEEDED])


async def same_for_a_while(server: ProxyServer) -> str:
    """Wait until one exchange is there for longer than any that is not stuck."""
    seen: list[str] = []
    while len(seen) < 10:
        found = list(await shown(server))
        seen = [*seen, *found] if found == seen[:1] else found
    return seen[0]
