"""A stream under way by either pump: every way in which it can end, as its client sees it.

The first event is relayed by the exchange's own task and what follows by the pump; each test lets
some events pass before the end comes.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
import trio.testing

from proxy.core import whole_events
from proxy.core.causes import EndCause
from proxy.core.errors import RefusalReason, TokenRefused
from proxy.relay.relayed_request import RelayedRequest
from proxy.relay.settings import RelaySettings
from proxy.runtime import backend as backend_module
from proxy.runtime.pump import Pump
from proxy.runtime.stream_tokens import Lease
from tests.core.chunked_streams import LAST_CHUNK, ReadByH11, chunk, read_by_h11
from tests.fakes.played_upstream import PlayedUpstream
from tests.fakes.scripted_server import answering, read_head
from tests.fakes.staged_engine import StagedEngine
from tests.left_behind import Leftovers
from tests.promises.wire import Wire, wire
from tests.relay.relayed import Relayed, before, ended, ends
from tests.runtime.pump_stage import PUMPS
from tests.web.wire import Sent, ask_port

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_EVENT = b'data: {"index":0,"content":"","stop":true}\n\n'
STREAMED = {"prompt": "a", "stream": True}
BOTH = pytest.mark.parametrize("pump", PUMPS.values(), ids=PUMPS.keys())


@pytest.fixture(autouse=True)
def leaves_nothing(leftovers: Leftovers) -> None:
    """Assert after each test that no descriptor is left."""


@pytest.fixture(autouse=True)
def no_crash_is_reported_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here a broken connection is never the first sign of a crash."""
    monkeypatch.setattr(backend_module, "_EXIT_REPORT_S", 0.0)


def event(number: int) -> bytes:
    """Return one event."""
    return b'data: {"content":"%d"}\n\n' % number


class Streaming:
    """A stream under way: its client, its upstream, and the relay between them."""

    def __init__(
        self, server: Relayed, engine: StagedEngine, upstream: PlayedUpstream, client: Wire
    ) -> None:
        self.server = server
        self.engine = engine
        self.upstream = upstream
        self.client = client
        self.count = 0

    async def pass_events(self, count: int = 3) -> None:
        """Let events pass one by one."""
        for _ in range(count):
            self.count += 1
            await self.upstream.send(chunk(event(self.count)))
            await self.client.read_until(event(self.count))

    @property
    def passed(self) -> bytes:
        """The events that have passed."""
        return b"".join(event(number + 1) for number in range(self.count))

    async def told(self) -> ReadByH11:
        """Return what the client was told from its first byte to the connection's end."""
        return body_of(await self.client.read_to_end())

    async def told_error(self) -> dict[str, Any]:
        """Return the error that follows the events in a body that is complete."""
        await self.client.read_until(LAST_CHUNK)
        found = body_of(self.client.received)
        assert (found.complete, found.rest) == (True, b"")
        assert found.payload.startswith(self.passed)
        last = found.payload.removeprefix(self.passed)
        assert last.startswith(b"data: ")
        assert last.endswith(b"\n\n")
        return json.loads(last[6:])["error"]

    async def ended_by(self, cause: str) -> None:
        """Wait until the exchange has ended; it has to be by that cause, its upstream closed."""
        await ended(self.server)
        assert ends(self.server) == [cause]
        with trio.fail_after(5):
            await self.upstream.closed.wait()


def body_of(received: bytes) -> ReadByH11:
    """Return the body of a response in chunks."""
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"\r\nTransfer-Encoding: chunked" in head
    return read_by_h11(body)


@asynccontextmanager
async def streaming(
    pump: type[Pump] = Pump,
    settings: RelaySettings | None = None,
    *,
    passed: int = 3,
    **options: Any,
) -> AsyncIterator[Streaming]:
    """Give a stream of which some events have passed."""
    upstream = PlayedUpstream()
    serving = before(upstream, settings, pump=pump, **options)
    async with serving as (server, engine), wire(server.port) as client:
        await client.post("/completion", STREAMED, "X-Request-Id: r1")
        stream = Streaming(server, engine, upstream, client)
        await upstream.send(HEAD)
        await stream.pass_events(passed)
        yield stream


# -- the proper end --------------------------------------------------------------------------------


@BOTH
async def test_stream_ends_properly_and_its_connection_stays(pump: type[Pump]) -> None:
    """The head, the chunks and the end are of three writers: one body, and a next one."""
    async with streaming(pump) as stream:
        last = b'data: {"stop":true,"timings":{"prompt_n":3,"cache_n":1,"predicted_n":2}}\n\n'
        await stream.upstream.send(chunk(last) + LAST_CHUNK)
        await stream.client.read_until(LAST_CHUNK)
        found = body_of(stream.client.received)
        assert (found.payload, found.complete, found.rest) == (stream.passed + last, True, b"")
        await ended(stream.server)
        measures = stream.server.backend.exchanges.measures
        assert ends(stream.server) == ["finished"]
        assert measures.bytes_sent == len(found.payload)
        assert measures.tokens == {"prompt": 4, "completion": 2}
        stream.client.received = b""
        await stream.client.post("/completion", b"{")
        assert (await stream.client.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 400")


@BOTH
async def test_stream_that_is_cut_in_a_read_anywhere_is_whole(pump: type[Pump]) -> None:
    """The exchange's own task stops in the midst of a chunk, and the pump reads on."""
    events = [*map(event, range(4)), LAST_EVENT]
    body = b"".join(map(chunk, events)) + LAST_CHUNK
    for cut in range(0, len(body), 3):
        serving = before(answering(HEAD, body[:cut], body[cut:], stay=True), pump=pump)
        async with serving as (server, _), wire(server.port) as client:
            await client.post("/completion", STREAMED)
            await client.read_until(LAST_CHUNK)
            found = body_of(client.received)
            assert (found.complete, found.rest) == (True, b"")
            assert found.payload == b"".join(events)


@pytest.mark.parametrize("together", [1, 2, 3], ids=["apart", "with the events", "all"])
async def test_stream_that_has_come_already_needs_no_pump(together: int) -> None:
    """Nothing would wake it."""
    pieces = [HEAD, chunk(LAST_EVENT), LAST_CHUNK]
    pieces[3 - together :] = [b"".join(pieces[3 - together :])]
    serving = before(answering(*pieces, stay=True))
    async with serving as (server, _), wire(server.port) as client:
        await client.post("/completion", STREAMED)
        await client.read_until(LAST_CHUNK)
        assert body_of(client.received).payload == LAST_EVENT
        await ended(server)
        assert ends(server) == ["finished"]


@BOTH
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_stream_that_ends_with_its_connection_is_whole(
    pump: type[Pump], version: bytes
) -> None:
    """To an upstream in front of llama-server, and from a client of HTTP/1.0, that is an end."""
    head = b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    serving = before(answering(head, event(1), LAST_EVENT, b": rest"), pump=pump)
    async with serving as (server, _), wire(server.port) as client:
        body = json.dumps(STREAMED).encode()
        fields = b"Host: localhost\r\nContent-Length: %d\r\n" % len(body)
        line = b"POST /completion HTTP/%b\r\n" % version
        await client.send(line + fields + b"Connection: close\r\n\r\n" + body)
        received = await client.read_to_end()
        whole = event(1) + LAST_EVENT + b": rest"
        if version == b"1.1":
            assert body_of(received) == ReadByH11(whole, complete=True, refused=False, rest=b"")
        else:
            assert received.endswith(b"\r\n\r\n" + whole)


@BOTH
async def test_upload_goes_on_beside_the_stream(pump: type[Pump]) -> None:
    """An answer may begin before its request has ended."""
    upstream = PlayedUpstream()
    async with before(upstream, pump=pump) as (server, _), wire(server.port) as client:
        head = b"POST /other HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        await client.send(head)
        await upstream.send(HEAD)
        for number in range(4):
            await upstream.send(chunk(event(number)))
            await client.read_until(event(number))
            await client.send(chunk(b"upload %d" % number))
        await client.send(LAST_CHUNK)
        with trio.fail_after(5):
            while not upstream.received.endswith(LAST_CHUNK):
                await trio.sleep(0.002)
        await upstream.send(LAST_CHUNK)
        await client.read_until(LAST_CHUNK)
    assert b"8\r\nupload 3\r\n" in upstream.received


@BOTH
async def test_stream_that_ends_before_its_answer_does_is_no_proper_end(pump: type[Pump]) -> None:
    """However well its framing ends: the last event is missing (promise P3)."""
    async with streaming(pump) as stream:
        await stream.upstream.send(LAST_CHUNK)
        error = await stream.told_error()
        assert (error["code"], error["type"]) == (502, "upstream_error")
        assert "before the answer was complete" in error["message"]
        await stream.ended_by("upstream_error")


# -- ends that llama-server makes ------------------------------------------------------------------

CUT = {
    "between chunks": b"",
    "in a size": b"1",
    "in a chunk": b'ff\r\ndata: {"con',
    "behind a chunk": b'd\r\ndata: {"con',
    "in an event": chunk(b'data: {"con'),
    "in the last chunk": b"0\r\n",
}


@BOTH
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "reset"])
@pytest.mark.parametrize("rest", CUT.values(), ids=CUT.keys())
async def test_stream_that_is_cut_ends_with_an_error_event(
    pump: type[Pump], reset: bool, rest: bytes
) -> None:
    """After the last whole event, in a body that is well formed to its end."""
    async with streaming(pump) as stream:
        await stream.upstream.send(rest)
        stream.upstream.end(reset=reset)
        error = await stream.told_error()
        assert (error["code"], error["type"], error["request_id"]) == (502, "upstream_error", "r1")
        assert "closed the connection" in error["message"]
        await ended(stream.server)
        assert ends(stream.server) == ["upstream_error"]


@BOTH
@pytest.mark.parametrize("garbage", [b"zz\r\n", b"\r\n", b"3\r\nabcd\r\n"])
async def test_stream_that_is_no_http_ends_with_an_error_event(
    pump: type[Pump], garbage: bytes
) -> None:
    """Which says so; llama-server's connection is closed."""
    async with streaming(pump) as stream:
        await stream.upstream.send(garbage)
        error = await stream.told_error()
        assert (error["code"], error["type"]) == (502, "upstream_error")
        assert "not valid HTTP" in error["message"]
        await stream.ended_by("upstream_error")


@BOTH
async def test_crash_ends_the_stream_with_its_signal(pump: type[Pump]) -> None:
    """The exchange is ended from outside while its task sleeps."""
    async with streaming(pump) as stream:
        stream.engine.crash(-9)
        assert "signal 9 (SIGKILL)" in (await stream.told_error())["message"]
        await stream.ended_by("upstream_crashed")


@BOTH
async def test_long_event_that_is_cut_breaks_the_stream_off(
    pump: type[Pump], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error event would be its second half: the body has no end instead."""
    monkeypatch.setattr(whole_events, "MAX_HELD", 100)
    async with streaming(pump) as stream:
        await stream.upstream.send(chunk(b"data: " + b"x" * 200))
        await stream.client.read_until(b"x" * 200)
        stream.upstream.end()
        found = await stream.told()
        assert found.payload == stream.passed + b"data: " + b"x" * 200
        assert not found.complete


# -- ends that the client makes --------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("leave", [Wire.fin, Wire.reset], ids=["fin", "reset"])
async def test_client_that_leaves_closes_the_upstream(pump: type[Pump], leave: Any) -> None:
    """While nothing is sent."""
    async with streaming(pump) as stream:
        leave(stream.client)
        await stream.ended_by("client_disconnected")


@BOTH
async def test_client_that_stops_reading_is_cut_off(pump: type[Pump]) -> None:
    """After the send timeout."""
    async with streaming(pump, send_timeout_s=0.05) as stream:
        closed = (trio.BrokenResourceError, trio.ClosedResourceError)
        with pytest.raises(closed), trio.fail_after(10):  # noqa: PT012
            while True:
                await stream.upstream.send(chunk(b"data: " + b"x" * 60_000 + b"\n\n"))
        await stream.ended_by("client_too_slow")
        found = await stream.told()
        assert not found.complete


def large_answer() -> bytes:
    """Return a stream whose sum fits no socket's buffer."""
    text = json.dumps({"index": 0, "content": "x" * 100_000, "stop": False}).encode()
    return chunk(b"data: %b\n\n" % text) * 100 + chunk(LAST_EVENT) + LAST_CHUNK


async def test_client_that_stops_reading_a_whole_answer_is_too_slow() -> None:
    """The engine is somebody else's by then; the answer was not delivered, and is not called so."""
    serving = before(answering(HEAD, large_answer(), stay=True), send_timeout_s=0.1)
    async with serving as (server, _), wire(server.port) as client:
        await client.post("/completion", {"prompt": "a"})
        await client.read_until(b"xxx")
        await ended(server)
        assert ends(server) == ["client_too_slow"]


async def test_whole_answer_that_is_taken_slowly_can_be_ended() -> None:
    """By whoever may end its exchange: it is not over before its client has it."""
    async with (
        before(answering(HEAD, large_answer(), stay=True)) as (server, _),
        wire(server.port) as client,
    ):
        await client.post("/completion", {"prompt": "a"})
        await client.read_until(b"xxx")
        server.backend.exchanges.end_all(EndCause.TOKEN_REVOKED)
        assert not (await client.read_to_end()).endswith(LAST_CHUNK)
        assert ends(server) == ["token_revoked"]


# -- ends that we make -----------------------------------------------------------------------------


@BOTH
async def test_stream_that_is_cancelled_says_so(pump: type[Pump]) -> None:
    """In an event, where no chunk is half sent."""
    async with streaming(pump) as stream:
        stream.server.backend.exchanges.end_all(EndCause.CANCELLED_BY_ADMIN)
        assert (await stream.told_error())["code"] == 503
        await stream.ended_by("cancelled_by_admin")


@BOTH
async def test_stream_that_is_cancelled_within_a_chunk_is_broken_off(pump: type[Pump]) -> None:
    """Whatever is added would be taken for the rest of that chunk."""
    large = chunk(b"data: " + b"x" * 60_000 + b"\n\n")

    async def send_without_end() -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                await stream.upstream.send(large)

    async with streaming(pump) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(send_without_end)
        await trio.testing.wait_all_tasks_blocked(0.02)
        stream.server.backend.exchanges.end_all(EndCause.CANCELLED_BY_ADMIN)
        await stream.ended_by("cancelled_by_admin")
        found = await stream.told()
        assert not found.complete
        assert b"error" not in found.payload


@BOTH
async def test_stream_over_its_time_says_so(
    pump: type[Pump], mock_clock: trio.testing.MockClock
) -> None:
    """The request's deadline goes on while its task sleeps."""
    async with streaming(pump, RelaySettings(request_timeout_s=3)) as stream:
        mock_clock.jump(2.9)
        await stream.pass_events()
        mock_clock.jump(0.1)
        error = await stream.told_error()
        assert (error["code"], error["type"]) == (504, "timeout_error")
        await stream.upstream.closed.wait()
    assert ends(stream.server) == ["deadline_exceeded"]


# -- leases ----------------------------------------------------------------------------------------


class Issuer:
    """Gives one lease to whoever asks, and keeps what it was asked and given back."""

    def __init__(self, *, lease_s: float | None = None, max_tokens: int | None = None) -> None:
        self.asked = list[RelayedRequest]()
        self.given_back = 0
        self._lease_s = lease_s
        self._max_tokens = max_tokens
        self.lease: Lease | None = None

    def authorize(self, request: RelayedRequest) -> Lease:
        """Give it."""
        self.asked.append(request)
        self.lease = Lease(
            "t1",
            ends_at=None if self._lease_s is None else trio.current_time() + self._lease_s,
            max_tokens=self._max_tokens,
            key_name=None,
            give_back=self._take_back,
        )
        return self.lease

    def _take_back(self) -> None:
        self.given_back += 1


@BOTH
async def test_lease_that_ends_ends_its_stream(
    pump: type[Pump], mock_clock: trio.testing.MockClock
) -> None:
    """With an event; it is given back once."""
    issuer = Issuer(lease_s=3)
    async with streaming(pump, authorize=issuer.authorize) as stream:
        mock_clock.jump(2.9)
        await stream.pass_events()
        mock_clock.jump(0.1)
        assert "lease" in (await stream.told_error())["message"]
        await stream.upstream.closed.wait()
    assert ends(stream.server) == ["token_expired"]
    assert issuer.given_back == 1


@BOTH
async def test_lease_that_is_revoked_ends_its_stream(pump: type[Pump]) -> None:
    """At once."""
    issuer = Issuer()
    async with streaming(pump, authorize=issuer.authorize) as stream:
        assert issuer.lease is not None
        issuer.lease.end(EndCause.TOKEN_REVOKED)
        assert "revoked" in (await stream.told_error())["message"]
        await stream.ended_by("token_revoked")
    assert issuer.given_back == 1


async def test_bound_of_a_lease_is_in_what_llama_server_is_asked() -> None:
    """Whatever the client asks for."""
    issuer = Issuer(max_tokens=5)
    async with streaming(authorize=issuer.authorize) as stream:
        body = json.loads(stream.upstream.received.partition(b"\r\n\r\n")[2])
        assert body["n_predict"] == 5
        assert body["prompt"] == "a"


async def test_body_that_is_not_in_order_burns_no_lease() -> None:
    """It is read and found in order first."""
    issuer = Issuer()
    async with before(answering(), authorize=issuer.authorize) as (server, _):
        answer = await ask_port(server.port, Sent.json("/completion", b"{"))
        assert (answer.status, issuer.asked) == (400, [])


async def test_client_without_a_lease_reaches_nobody() -> None:
    """It is refused before it queues or connects."""

    def refuse(_: RelayedRequest) -> Lease:
        raise TokenRefused(RefusalReason.UNKNOWN)

    upstream = PlayedUpstream()
    async with before(upstream, authorize=refuse) as (server, _):
        answer = await ask_port(server.port, Sent.json("/completion", STREAMED))
        assert answer.status == 401
        assert upstream.received == b""


# -- conversations ---------------------------------------------------------------------------------


class Conversing:
    """An upstream that streams one event and stays, and notes the request lines that it gets."""

    def __init__(self) -> None:
        self.asked = list[str]()

    async def __call__(self, stream: trio.abc.Stream) -> None:
        """Answer a `DELETE` at once."""
        line = (await read_head(stream)).split(b"\r\n")[0].decode()
        self.asked.append(line)
        if line.startswith("DELETE"):
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        else:
            await stream.send_all(HEAD + chunk(event(len(self.asked))))
            await trio.sleep_forever()


@BOTH
async def test_newer_request_of_a_conversation_takes_the_older_ones_place(
    pump: type[Pump],
) -> None:
    """Whose client is told so; llama-server is asked to end it before the newer one begins."""
    upstream = Conversing()
    settings = RelaySettings(forward_conversation_id=True)
    serving = before(upstream, settings, pump=pump)
    async with serving as (server, _), wire(server.port) as older, wire(server.port) as newer:
        await older.post("/completion", STREAMED, "X-Conversation-Id: a b")
        await older.read_until(event(1))
        await newer.post("/completion", STREAMED, "X-Conversation-Id: a b")
        await older.read_until(LAST_CHUNK)
        assert b"A newer request took this one's place." in older.received
        await newer.read_until(event(3))
        newer.fin()
        await ended(server)
    assert ends(server) == ["client_disconnected", "superseded"]
    assert [line.split(" ")[:2] for line in upstream.asked] == [
        ["POST", "/completion"],
        ["DELETE", "/v1/stream?conv_id=a+b"],
        ["POST", "/completion"],
    ]


async def test_conversation_is_nothing_to_us_unless_it_is_passed_on() -> None:
    """Two of them are two streams."""
    upstream = Conversing()
    serving = before(upstream)
    async with serving as (server, _), wire(server.port) as one, wire(server.port) as other:
        for client, number in ((one, 1), (other, 2)):
            await client.post("/completion", STREAMED, "X-Conversation-Id: a")
            await client.read_until(event(number))
        assert len(server.backend.exchanges) == 2
        one.fin()
        other.fin()
        await ended(server)
    assert len(upstream.asked) == 2


@pytest.mark.parametrize("cause", [EndCause.CANCELLED_BY_ADMIN, EndCause.TOKEN_EXPIRED])
async def test_conversation_that_we_end_is_ended_at_llama_server(cause: EndCause) -> None:
    """It goes on with it otherwise; when its client has just left, that may come again."""
    upstream = Conversing()
    settings = RelaySettings(forward_conversation_id=True)
    async with before(upstream, settings) as (server, _), wire(server.port) as client:
        await client.post("/completion", STREAMED, "X-Conversation-Id: a")
        await client.read_until(event(1))
        server.backend.exchanges.end_all(cause)
        await client.read_until(LAST_CHUNK)
        await ended(server)
    assert [line.split(" ")[0] for line in upstream.asked] == ["POST", "DELETE"]
