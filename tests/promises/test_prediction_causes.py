"""P3 for predictions: how each came to end is named to everybody, and told once.

A prediction that did not finish is `failed` with the reason, or `canceled` where somebody wanted
its end; every stream of it ends with exactly one `completed`; log, metrics and `/proxy/exchanges`
name the cause.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

import proxy
from proxy import EndCause, LlamaServer, ProxyServer
from proxy.core.predictions.prediction import Prediction
from proxy.predictions.book import ROUTE
from proxy.predictions.generation import generate
from tests.fakes.engines import fake_engine, nothing_left
from tests.fakes.engines import running as fake_running
from tests.promises.observe import held, leaves_nothing, until
from tests.promises.predicting import (
    ASYNC,
    LAST,
    NAME,
    STREAM,
    answered,
    ask,
    cancel,
    ended,
    follow,
    put_head,
    status_of,
    whole_stream,
)
from tests.promises.test_causes import counted, delete, is_ending, logged, shown
from tests.promises.wire import PATIENCE_S, Wire, wire

ENDLESS = "?events=100000&pace_s=0.01"
MODES = {"blocking": (), "stream": (STREAM,), "async": (ASYNC,)}


# --- how a prediction comes to end ---


@dataclass(slots=True)
class Scene:
    """One engine with one slot, a proxy, and clients of it.

    Attributes:
        engine: The fake llama-server.
        server: The proxy.
        mode: Header lines of the request that makes the prediction.
        client: Makes it.
        joined: Follows it, by a stream.
    """

    engine: LlamaServer
    server: ProxyServer
    mode: tuple[str, ...]
    client: Wire
    joined: Wire

    async def run(self, prompt: str) -> None:
        """Make the prediction, and let the other client follow it."""
        await ask(self.client, prompt, *self.mode)
        book = self.server._predictions
        await until(lambda: (book.live(PLACE) or book.finished(PLACE)) is not None)
        await follow(self.joined)

    async def decode(self, prompt: str = ENDLESS) -> None:
        """Bring it to where it has made some output, which is being followed."""
        await self.run(prompt)
        await self.joined.read_until(b"event: output")


PLACE = (None, NAME)


async def finish(scene: Scene) -> None:
    """Let llama-server answer."""
    await scene.run("?events=3")


async def leave(scene: Scene) -> None:
    """Let all go away whom it is for; who joined a blocking one stays, and is told."""
    await scene.decode()
    scene.client.fin()
    if scene.mode:
        scene.joined.fin()


async def crash(scene: Scene) -> None:
    """Kill llama-server."""
    await scene.decode()
    os.kill(scene.engine.pid or 0, signal.SIGKILL)


async def go_on(scene: Scene) -> None:
    """Take longer than any may."""
    await scene.decode()


async def wait_in_queue(scene: Scene) -> None:
    """Wait for a slot that stays taken."""
    async with wire(scene.server.port) as other:
        await ask(other, ENDLESS, STREAM, name="other")
        await other.read_until(b"event: output")
        await scene.run("?events=1")
        await ended(scene.server)


async def cancel_as_admin(scene: Scene) -> None:
    """Delete its exchange."""
    await scene.decode()
    await delete(scene.server)


async def cancel_as_client(scene: Scene) -> None:
    """Cancel it by its own route."""
    await scene.decode()
    assert await cancel(scene.server) == 200


async def shut_down(scene: Scene) -> None:
    """Drain for less time than it takes."""
    await scene.decode()
    await scene.server.drain()


async def restart(scene: Scene) -> None:
    """Have llama-server restarted, without time for what runs."""
    await scene.decode()
    async with wire(scene.server.port) as admin:
        await admin.post("/proxy/restart", {}, LAST)
        assert status_of(await admin.read_to_end()) == 202
    with trio.fail_after(PATIENCE_S):
        await scene.engine.wait_exited(1)
        await scene.engine.wait_ready()


def break_off(how: str) -> Callable[[Scene], Awaitable[None]]:
    """Return a story in which llama-server ends its answer so."""

    async def play(scene: Scene) -> None:
        await scene.run(f"?events=3&end={how}")

    return play


@dataclass(frozen=True, slots=True)
class Story:
    """How a prediction comes to end, and what is told of it.

    Attributes:
        play: Does it.
        cause: What log and metrics call it.
        status: The prediction's.
        words: A part of its error; empty where it has none.
        settings: Of the proxy.
    """

    play: Callable[[Scene], Awaitable[None]]
    cause: EndCause
    status: str = "failed"
    words: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


STORIES = {
    "finished": Story(finish, EndCause.FINISHED, "succeeded"),
    "llama-server refuses": Story(break_off("clean&status=400"), EndCause.FINISHED, words="asked"),
    "client gone": Story(leave, EndCause.CLIENT_DISCONNECTED, "canceled"),
    "cut": Story(break_off("cut"), EndCause.UPSTREAM_ERROR, words="closed"),
    "cut in a chunk": Story(break_off("mid_chunk"), EndCause.UPSTREAM_ERROR, words="closed"),
    "reset": Story(break_off("reset"), EndCause.UPSTREAM_ERROR, words="closed"),
    "crash": Story(crash, EndCause.UPSTREAM_CRASHED, words="signal 9 (SIGKILL)"),
    "exit": Story(break_off("crash"), EndCause.UPSTREAM_CRASHED, words="139"),
    "restart": Story(
        restart, EndCause.UPSTREAM_ERROR, words="restarted", settings={"drain_s": 0.05}
    ),
    "deadline": Story(
        go_on, EndCause.DEADLINE_EXCEEDED, words="longer than", settings={"request_timeout_s": 0.3}
    ),
    "queue timeout": Story(
        wait_in_queue, EndCause.QUEUE_TIMEOUT, words="No slot", settings={"queue_timeout_s": 0.1}
    ),
    "admin": Story(cancel_as_admin, EndCause.CANCELLED_BY_ADMIN, "canceled"),
    "cancel": Story(cancel_as_client, EndCause.CANCELLED_BY_CLIENT, "canceled"),
    "shutdown": Story(
        shut_down, EndCause.SHUTTING_DOWN, words="shutting down", settings={"drain_s": 0.05}
    ),
}


@asynccontextmanager
async def scene_of(story: Story, mode: tuple[str, ...]) -> AsyncIterator[Scene]:
    """Set the scene."""
    with nothing_left():
        async with (
            fake_running(fake_engine("--fake-slots", "1")) as engine,
            proxy.open_proxy(engine, port=0, **story.settings) as server,
            leaves_nothing(server),
            wire(server.port) as client,
            wire(server.port) as joined,
        ):
            yield Scene(engine, server, mode, client, joined)


# But one: nobody's leaving ends a prediction that is nobody's.
CASES = [
    pytest.param(story, mode, id=f"{name}-{mode_name}")
    for name, story in STORIES.items()
    for mode_name, mode in MODES.items()
    if (story.play, mode_name) != (leave, "async")
]


@pytest.mark.parametrize(("story", "mode"), CASES)
async def test_end_is_told_as_what_it_was(
    story: Story, mode: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """To who waits and who follows, in the log and in the metrics; and nothing is left."""
    caplog.set_level(logging.INFO, "proxy.exchange")
    async with scene_of(story, mode) as scene:
        await story.play(scene)
        found = (await ended(scene.server)).snapshot()
        assert found["status"] == story.status
        assert story.words in str(found.get("error", "")), found
        assert ("error" in found) == bool(story.words)
        await check_told(scene, story, found)
        assert logged(caplog) == [story.cause]
        assert await counted(scene.server, ROUTE, story.cause) == 1
        assert (scene.server.in_flight, held(scene.server)["permit"]) == (0, 0)


async def check_told(scene: Scene, story: Story, found: dict[str, Any]) -> None:
    """Each client that stayed was told the one end, by its own kind of answer."""
    stayed = story.play is not leave
    if stayed or not scene.mode:
        assert whole_stream(await scene.joined.read_to_end())[-1].data == found
    if stayed and scene.mode == (STREAM,):
        assert whole_stream(await scene.client.read_to_end())[-1].data == found
    elif stayed and not scene.mode:
        told = answered(await scene.client.read_to_end())
        assert (told["status"], told.get("error")) == (found["status"], found.get("error"))


def test_stories_are_of_every_cause_that_predictions_have() -> None:
    """Not: tokens and conversations, which they have none of; a slow client, which ends none."""
    never = {
        EndCause.CLIENT_TOO_SLOW,
        EndCause.TOKEN_EXPIRED,
        EndCause.TOKEN_REVOKED,
        EndCause.SUPERSEDED,
    }
    told = {story.cause for story in STORIES.values()}
    assert told == set(EndCause) - never - {EndCause.INTERNAL_ERROR}


@pytest.mark.parametrize("mode", [(), (STREAM,)], ids=["blocking", "stream"])
async def test_chat_without_done_has_failed(mode: tuple[str, ...]) -> None:
    """All tokens are there, and nobody knows whether they are all."""
    story = STORIES["cut"]
    async with scene_of(story, mode) as scene:
        body = b'{"input": {"messages": [{"role": "user", "content": "?events=3&end=no_done"}]}}'
        await scene.client.send(put_head(NAME, body, LAST, *mode))
        found = (await ended(scene.server)).snapshot()
        assert (found["status"], found["output"]) == ("failed", ["t0 ", "t1 ", "t2 "])
        assert "before the answer was complete" in str(found["error"])


# --- the cause, while it ends ---


async def test_cancel_is_shown_as_the_cause_and_stays(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`/proxy/exchanges` has it while the prediction ends; an administrator comes too late."""
    caplog.set_level(logging.INFO, "proxy.exchange")
    let_go = hold_the_end(monkeypatch)
    async with scene_of(STORIES["cancel"], (STREAM,)) as scene:
        await scene.decode()
        assert (await shown(scene.server))[NAME]["cause"] is None
        assert await cancel(scene.server) == 200
        assert is_ending(scene.server)
        assert (await shown(scene.server))[NAME]["cause"] == EndCause.CANCELLED_BY_CLIENT
        await delete(scene.server)
        assert await cancel(scene.server) == 404
        scene.client.fin()
        scene.joined.fin()
        assert (await shown(scene.server))[NAME]["cause"] == EndCause.CANCELLED_BY_CLIENT
        let_go.set()
        await ended(scene.server)
        assert logged(caplog) == [EndCause.CANCELLED_BY_CLIENT]


def hold_the_end(monkeypatch: pytest.MonkeyPatch) -> trio.Event:
    """Let no prediction come to its end until the event that is returned is set."""
    let_go = trio.Event()

    async def generate_slowly(*args: Any, **named: Any) -> None:
        try:
            await generate(*args, **named)
        finally:
            with trio.CancelScope(shield=True):
                await let_go.wait()

    monkeypatch.setattr("proxy.predictions.live.generate", generate_slowly)
    return let_go


@pytest.mark.parametrize("mode", [(), (STREAM,)], ids=["blocking", "stream"])
async def test_defect_ends_its_prediction_alone(
    mode: tuple[str, ...], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is failed, with a traceback in the log and none for the client; the next one runs."""
    caplog.set_level(logging.INFO)
    add_output = Prediction.add_output

    def mistaken(self: Prediction, chunk: str, now: float) -> bool:
        if self.id == NAME:
            raise RuntimeError("a mistake")
        return add_output(self, chunk, now)

    monkeypatch.setattr(Prediction, "add_output", mistaken)
    async with scene_of(STORIES["finished"], mode) as scene:
        await ask(scene.client, ENDLESS, *mode)
        found = (await ended(scene.server)).snapshot()
        assert (found["status"], found["error"]) == ("failed", "The proxy made a mistake.")
        assert logged(caplog) == [EndCause.INTERNAL_ERROR]
        assert sum(record.exc_info is not None for record in caplog.records) == 1
        await ask(scene.joined, "?events=1", name="next")
        assert answered(await scene.joined.read_to_end())["status"] == "succeeded"
