"""The data of the status page, as it is asked for: forms, ends, keys, and what is never shown."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
import trio.testing

import proxy
from proxy import ApiKey
from proxy.core.causes import EndCause, Phase
from proxy.core.errors import NotFound
from proxy.http1.asgi import Message
from proxy.web.status.routes import StatusRoutes
from tests.fakes.engines import fake_engine, nothing_left
from tests.fakes.engines import running as fake_running
from tests.fakes.recording_upstream import recording_upstream
from tests.http1.asgi_client import Reply, ask, scope_of
from tests.promises.listeners import FAST, MAIN
from tests.promises.observe import leaves_nothing, until
from tests.promises.wire import Wire, wire
from tests.web.status.staged_hub import Stage, chunk, event, is_watched, staged
from tests.web.wire import Answer, Sent, ask_port

JSON, EVENTS = "/status/json", "/status/events"
each_path = pytest.mark.parametrize("path", [JSON, EVENTS])


@dataclass
class Client:
    """A connection that watches, as far as the routes need it.

    Attributes:
        reply: What it got.
        came: When which bytes came.
        stalled: Whether it takes nothing.
        ended: Set when the application has ended.
    """

    reply: Reply = field(default_factory=Reply)
    came: list[tuple[float, bytes]] = field(default_factory=list)
    stalled: bool = False
    ended: trio.Event = field(default_factory=trio.Event)
    _gone: list[Callable[[EndCause], None]] = field(default_factory=list)

    def on_gone(self, listener: Callable[[EndCause], None]) -> Callable[[], None]:
        """Take whom to tell."""
        self._gone.append(listener)
        return lambda: self._gone.remove(listener)

    def leave(self) -> None:
        """Be gone."""
        for listener in self._gone:
            listener(EndCause.CLIENT_DISCONNECTED)

    async def send(self, message: Message) -> None:
        """Take a message."""
        if self.stalled and message["type"] == "http.response.body":
            await trio.sleep_forever()
        await self.reply.take(message)
        self.came.append((trio.current_time(), message.get("body", b"")))

    async def watch(self, stage: Stage) -> None:
        """Ask for the events."""
        scope = scope_of("GET", EVENTS, connection=self)
        await StatusRoutes(stage.hub)(scope, self._receive, self.send)
        self.ended.set()

    async def _receive(self) -> Message:
        raise AssertionError("nothing is read of a request without a body")


@asynccontextmanager
async def watching(stage: Stage, *, stalled: bool = False) -> AsyncIterator[Client]:
    """Have a client that watches."""
    client = Client(stalled=stalled)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.watch, stage)
        yield client
        nursery.cancel_scope.cancel()


# -- forms -----------------------------------------------------------------------------------------


async def test_json_is_the_snapshot(autojump_clock: object) -> None:
    """With its length, and never stored."""
    async with staged() as stage:
        with stage.exchange() as exchange:
            exchange.passing.note(event("Hëllo"))
            reply = await ask(StatusRoutes(stage.hub), scope_of(path=JSON))
    assert json.loads(reply.body)["exchanges"][0]["text"] == "Hëllo"
    assert reply.one(b"Content-Type") == b"application/json; charset=utf-8"
    assert reply.one(b"Content-Length") == b"%d" % len(reply.body)
    assert reply.one(b"Cache-Control") == b"no-store"
    assert reply.complete


async def test_json_with_half_a_character_in_a_name_is_valid(autojump_clock: object) -> None:
    """It is U+FFFD."""
    async with staged() as stage:
        with stage.exchange("r\ud83d"):
            reply = await ask(StatusRoutes(stage.hub), scope_of(path=JSON))
    assert json.loads(reply.body)["exchanges"][0]["request_id"] == "r\ufffd"


@each_path
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_status_answers_get_only(autojump_clock: object, path: str, method: str) -> None:
    """Nothing else has a meaning here."""
    async with staged() as stage:
        with pytest.raises(NotFound, match="GET only"):
            await ask(StatusRoutes(stage.hub), scope_of(method, path))


async def test_head_of_the_events_ends_at_once(autojump_clock: object) -> None:
    """It has the head of a stream, and nobody watches."""
    async with staged() as stage:
        reply = await ask(StatusRoutes(stage.hub), scope_of("HEAD", EVENTS))
        assert stage.hub._number == 0
    assert (reply.status, reply.body, reply.complete) == (200, b"", True)
    assert reply.one(b"Content-Type") == b"text/event-stream"


async def test_events_begin_with_a_status(autojump_clock: object) -> None:
    """At once, in an event stream that nobody stores or holds back."""
    async with staged() as stage, watching(stage) as client:
        await trio.testing.wait_all_tasks_blocked()
        assert client.reply.body.startswith(b"id: 1\nevent: status\ndata: {")
        assert client.reply.one(b"Content-Type") == b"text/event-stream"
        assert client.reply.one(b"Cache-Control") == b"no-store"
        assert client.reply.one(b"X-Accel-Buffering") == b"no"


async def test_silence_is_broken_after_fifteen_seconds(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a comment, each time."""
    monkeypatch.setattr("proxy.web.status.hub._IDLE_PERIOD_S", 1e9)
    monkeypatch.setattr("proxy.web.status.hub._STATUS_PERIOD_S", 1e9)
    async with staged() as stage, watching(stage) as client:
        await trio.sleep(46)
        beats = [at for at, body in client.came if body == b": heartbeat\n\n"]
        assert beats == pytest.approx([15, 30, 45], abs=0.2)


async def test_events_are_written_whole(autojump_clock: object) -> None:
    """Each write ends where an event ends."""
    async with staged() as stage, watching(stage) as client:
        with stage.exchange() as exchange:
            for number in range(200):
                exchange.passing.note(event(f"{number} " * 50))
                await trio.sleep(0.01)
        bodies = [body for _, body in client.came if body]
        assert len(bodies) > 30
        assert all(body.endswith(b"\n\n") for body in bodies)


# -- ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stalled", [False, True])
async def test_viewer_that_leaves_is_forgotten(autojump_clock: object, stalled: bool) -> None:
    """Whatever it was doing."""
    async with staged() as stage, watching(stage, stalled=stalled) as client:
        with stage.exchange() as exchange:
            await trio.sleep(1)
            assert is_watched(exchange)
            client.leave()
            with trio.fail_after(0.01):
                await client.ended.wait()
            assert not is_watched(exchange)
            assert stage.snapshot()["proxy"]["viewers"] == 0
            assert client._gone == []


async def test_cancelled_viewer_is_forgotten(autojump_clock: object) -> None:
    """As the guard does with a connection at its end."""
    async with staged() as stage:
        async with watching(stage):
            await trio.sleep(1)
        assert stage.snapshot()["proxy"]["viewers"] == 0


async def test_viewer_that_reads_is_ended_in_order_at_a_shutdown(autojump_clock: object) -> None:
    """At once, with the proper end of its stream."""
    async with staged() as stage, watching(stage) as client:
        await trio.sleep(1)
        stage.backend.shut_down()
        with trio.fail_after(0.01):
            await client.ended.wait()
        assert client.reply.complete


async def test_viewer_that_does_not_read_is_cut_off_at_a_shutdown(autojump_clock: object) -> None:
    """After half a second: nobody waits for who only watches."""
    async with staged() as stage, watching(stage, stalled=True) as client:
        await trio.sleep(1)
        stage.backend.shut_down()
        with trio.fail_after(0.51):
            await client.ended.wait()
        assert not client.reply.complete


async def test_viewer_is_ended_by_a_defect_of_ours(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stream ends in order; its page asks again."""
    async with staged() as stage, watching(stage) as client:
        await trio.sleep(1)
        monkeypatch.setattr(stage.facts, "snapshot", None)
        await trio.sleep(2)
        assert client.ended.is_set()
        assert client.reply.complete


# -- before a real proxy ---------------------------------------------------------------------------

USER = ApiKey.from_text("sk-user", name="user")
ADMIN = ApiKey.from_text("sk-admin", name="admin", admin=True)
PROMPT = "a prompt that nobody may see"
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": PROMPT}]}


@asynccontextmanager
async def fake_proxy(**options: Any) -> AsyncIterator[proxy.ProxyServer]:
    """Run a proxy before the fake llama-server."""
    with nothing_left():
        async with (
            fake_running(fake_engine()) as engine,
            proxy.open_proxy(engine, port=0, drain_s=30, **options) as server,
        ):
            yield server


async def get(server: proxy.ProxyServer, path: str, *fields: str, method: str = "GET") -> Answer:
    """Ask the proxy."""
    return await ask_port(server.port, Sent(method, path, fields))


async def snapshot(server: proxy.ProxyServer) -> dict[str, Any]:
    """Return what `/status/json` answers."""
    found: dict[str, Any] = json.loads((await get(server, JSON)).body)
    return found


async def watch(client: Wire) -> None:
    """Ask for the events, and wait for the first."""
    await client.get(EVENTS)
    await client.read_until(b"event: status")


def key(secret: str) -> str:
    """Return the header line with a key."""
    return f"Authorization: Bearer {secret}"


@each_path
async def test_data_needs_a_key_where_there_are_keys(path: str) -> None:
    """401 in our form, and with a key it is answered; a key in the URL is none."""
    async with fake_proxy(api_keys=[USER]) as server:
        for target in (path, f"{path}?api_key=sk-user"):
            refused = await get(server, target)
            assert (refused.status, refused.error["type"]) == (401, "authentication_error")
            assert refused.error["request_id"] == refused.one("X-Request-Id")
        assert (await get(server, path, key("sk-user"), method="HEAD")).status == 200


@each_path
async def test_data_needs_an_admin_key_where_there_is_one(path: str) -> None:
    """403 for any other."""
    async with fake_proxy(api_keys=[USER, ADMIN]) as server:
        refused = await get(server, path, key("sk-user"))
        assert (refused.status, refused.error["type"]) == (403, "permission_error")
        assert (await get(server, path)).status == 401
        assert (await get(server, path, key("sk-admin"), method="HEAD")).status == 200


@pytest.mark.parametrize("path", ["/status", "/status/static/main.js", "/status/static/status.css"])
async def test_page_needs_no_key(path: str) -> None:
    """A browser sends none with a link; there is nothing secret in it."""
    async with fake_proxy(api_keys=[USER, ADMIN]) as server:
        assert (await get(server, path)).status == 200


@pytest.mark.parametrize(
    ("options", "content"),
    [
        ({}, "full"),
        ({"api_keys": [USER]}, "none"),
        ({"api_keys": [USER], "status_content": "full"}, "full"),
        ({"status_content": "none"}, "none"),
    ],
    ids=["loopback", "keys", "keys-full", "none"],
)
async def test_texts_are_shown_only_where_they_may_be(
    options: dict[str, Any], content: str
) -> None:
    """Neither prompt nor answer nor token otherwise; by default on loopback without keys only."""
    async with fake_proxy(**options) as server, wire(server.port) as viewer:
        await viewer.get(EVENTS, key("sk-user"))
        await viewer.read_until(b"event: status")
        async with wire(server.port) as client:
            await client.post(
                "/v1/chat/completions?events=30&pace_s=0.02&thought=hm&name=said",
                {**BODY, "stream": True},
                key("sk-user"),
                "Connection: close",
            )
            await client.read_to_end()
        asked = (await get(server, JSON, key("sk-user"))).body
        told = await viewer.read_until(b'"cause":"finished"')
        assert b'"content":"%b"' % content.encode() in told
        for secret in (PROMPT.encode(), b"said", b"event: token"):
            assert (secret in told) == (content == "full"), secret
            assert content == "full" or secret not in asked


async def test_prompt_is_told_once_to_who_watches() -> None:
    """In the first status that has its exchange."""
    async with fake_proxy() as server, wire(server.port) as client, wire(server.port) as viewer:
        await watch(viewer)
        await client.post("/v1/chat/completions?events=9999&pace_s=0.01", {**BODY, "stream": True})
        for _ in range(5):
            await viewer.read_until(b"event: token")
            viewer.received = viewer.received.replace(b"event: token", b"", 1)
        assert viewer.received.count(PROMPT.encode()) == 2


async def test_prompt_is_shown_to_who_comes_meanwhile() -> None:
    """With full content, in the first status; it is one text and not in each."""
    async with fake_proxy() as server, wire(server.port) as client, wire(server.port) as viewer:
        await client.post("/v1/chat/completions?events=9999&pace_s=0.01", {**BODY, "stream": True})
        await client.read_until(b"data: ")
        await watch(viewer)
        told = await viewer.read_until(b"id: 4\n")
        assert told.count(PROMPT.encode()) == 2


WAYS = {"whole": set(), "fast": {"stream", "fast_path"}, "prediction": {"prediction"}}


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_to_ask_is_shown(way: str) -> None:
    """Tokens, text and tag, also of an answer in one piece, of the fast path, of a prediction."""
    async with fake_proxy() as server:
        listener = FAST if way == "fast" else MAIN
        async with listener.wire(server) as client:
            orders = "?events=9999&pace_s=0.01&name=said"
            if way == "prediction":
                prompt = {"input": {"prompt": orders}}
                await client.post("/predictions", prompt, "Prefer: respond-async")
                await client.read_until(b"HTTP/1.1 202")
            else:
                stream = {"stream": way == "fast"}
                await client.post(f"{listener.chat}{orders}", {**BODY, **stream})
            async with wire(server.port) as viewer:
                await watch(viewer)
                await viewer.read_until(b"event: token")
                await until(lambda: _tokens_of_all(server) > 20)
                (found,) = (await snapshot(server))["exchanges"]
                assert found["completion_tokens"] > 20
                assert "said" in found["text"]
                assert set(found["tags"]) == WAYS[way]
                assert found["phase"] == "decode"
        server._backend.exchanges.end_all(EndCause.CANCELLED_BY_ADMIN)
        await until(lambda: server.in_flight == 0)


def _tokens_of_all(server: proxy.ProxyServer) -> int:
    return sum(each.sent.events for each in server._backend.exchanges)


async def test_exchange_in_prefill_is_shown_with_its_progress() -> None:
    """As llama-server told, and whether its client asked for it or not."""
    async with fake_proxy() as server, wire(server.port) as client:
        await client.post(
            "/v1/chat/completions?progress=1000&pace_s=0.02", {**BODY, "stream": True}
        )
        await until(lambda: any(each.progress is not None for each in server._backend.exchanges))
        found = await snapshot(server)
        assert (found["phase"], found["current"]["phase"]) == (Phase.PREFILL, Phase.PREFILL)
        assert found["current"]["progress"]["total"] > 0
        assert b'"progress"' not in client.received


async def test_shutdown_does_not_wait_for_viewers() -> None:
    """Neither for one that reads nor for one that does not; nothing of them is left."""
    async with fake_proxy() as server, AsyncExitStack() as stack:
        before = trio.current_time()
        for receive_buffer in (None, None, 4096):
            viewer = await stack.enter_async_context(
                wire(server.port, receive_buffer=receive_buffer)
            )
            await watch(viewer)
        async with leaves_nothing(server), wire(server.port) as client:
            await client.post("/v1/chat/completions", BODY)
            await client.read_until(b"}")
        await server.drain()
        assert trio.current_time() - before < 10


async def test_invalid_bytes_of_llama_server_break_nothing() -> None:
    """The client gets them as they are, a viewer U+FFFD."""
    said = b'data: {"choices":[{"index":0,"delta":{"content":"a\xff\xf0\x9fb"}}]}\n\n'
    strange = [said, b"data: \xff\xfe\n\n", b"\xc3\n\n", b"data: [DONE]\n\n"]
    async with recording_upstream() as upstream:
        upstream.answer = STREAM_HEAD + b"".join(map(chunk, strange)) + b"0\r\n\r\n"
        async with (
            proxy.open_upstream(upstream.url) as engine,
            proxy.open_proxy(engine, port=0) as server,
            wire(server.port) as viewer,
            wire(server.port) as client,
        ):
            await watch(viewer)
            await client.post("/v1/chat/completions", {**BODY, "stream": True}, "Connection: close")
            received = await client.read_to_end()
            assert all(part in received for part in strange)
            told = await viewer.read_until(b'"cause":"finished"')
            assert b'"text":"a\xef\xbf\xbd\xef\xbf\xbdb"' in told
