"""One client's stream of events: what it is sent, when, and what its end means for the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
import trio
import trio.testing

from proxy.core.causes import EndCause
from proxy.core.predictions.event_log import EventLog
from proxy.core.predictions.prediction import Prediction
from proxy.http1.asgi import Message
from proxy.http1.connection import ClientConnection
from proxy.predictions.book import PredictionSettings
from proxy.predictions.event_stream import KEEP_ALIVE_S, EventStream
from proxy.predictions.live import LivePrediction, MadeFor
from proxy.runtime.exchange import Exchange
from tests.predictions.predicted import (
    HEAD,
    Frame,
    Played,
    before,
    follow,
    frames,
    piece,
    saying,
    until,
)
from tests.promises.wire import LEAVING, Leave, wire

POST = (
    b"POST /predictions HTTP/%b\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Accept: text/event-stream\r\nConnection: close\r\nContent-Length: 24\r\n\r\n"
    b'{"input":{"prompt":"a"}}'
)
Listener = Callable[[EndCause], None]


class Client:
    """A client without a socket: what it was sent, and whether it takes more.

    Attributes:
        messages: What it was sent.
        takes: Set while it takes what it is sent.
        chunk_socket: None: all that it gets, it gets by `send`, as under TLS.
    """

    chunk_socket = None

    def __init__(self, gone: EndCause | None = None) -> None:
        self.messages: list[Message] = []
        self.takes = trio.Event()
        self.takes.set()
        self.listeners: list[Listener] = []
        self._gone = gone

    @property
    def connection(self) -> ClientConnection:
        """The part of a connection that a stream uses."""
        return cast(ClientConnection, self)

    @property
    def body(self) -> bytes:
        """What it has of the body."""
        return b"".join(message.get("body", b"") for message in self.messages)

    @property
    def complete(self) -> bool:
        """Whether the answer had its proper end."""
        return self.messages[-1].get("more_body") is False

    def on_gone(self, listener: Listener) -> Callable[[], None]:
        """Tell `listener` when it goes; at once, if it is gone."""
        if self._gone is not None:
            listener(self._gone)
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    def leave(self, cause: EndCause = EndCause.CLIENT_DISCONNECTED) -> None:
        """Be gone."""
        for listener in tuple(self.listeners):
            listener(cause)

    async def send(self, message: Message) -> None:
        """Take a message of the application's."""
        await trio.lowlevel.checkpoint()
        await self.takes.wait()
        self.messages.append(message)


class Followed:
    """A prediction that runs nowhere, and those who follow it."""

    def __init__(self, made_for: MadeFor = MadeFor.FOLLOWERS, *, max_events: int = 100) -> None:
        self.log = EventLog(max_events)
        exchange = Exchange("r", "/predictions", "POST", 0.0)
        self.live = LivePrediction(Prediction("p", 0.0, self.log), exchange, made_for)

    def stream(self, client: Client, *, ended: bool = False) -> EventStream:
        """Return a client's stream."""
        return EventStream(self.log.subscribe(), None if ended else self.live, client.send)

    async def follow(self, client: Client) -> None:
        """Follow it to the end."""
        await self.stream(client).run(client.connection)

    def say(self, text: str) -> None:
        """Make a piece of output."""
        self.live.said(text)
        self.live.flush()

    def finish(self) -> None:
        """End it."""
        self.live.prediction.succeed(trio.current_time())
        self.live.flush()

    @property
    def ends_by(self) -> EndCause | None:
        """What it is ended by; None while it is not."""
        return self.live.exchange.cause


# -- what is sent ----------------------------------------------------------------------------------


async def test_stream_has_its_head_before_there_is_an_event() -> None:
    """So that a client that waits for a slot sees that it was taken."""
    async with trio.open_nursery() as nursery:
        client, followed = Client(), Followed()
        nursery.start_soon(followed.follow, client)
        await trio.testing.wait_all_tasks_blocked()
        assert client.messages[0]["status"] == 200
        assert (b"X-Accel-Buffering", b"no") in client.messages[0]["headers"]
        assert client.messages[1] == {"type": "http.response.body", "body": b"", "more_body": True}
        followed.finish()
        nursery.cancel_scope.cancel()


async def test_stream_sends_what_is_there_and_then_what_comes() -> None:
    """Each once, in order, and ends after the last one."""
    client, followed = Client(), Followed()
    followed.live.began()
    followed.say("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(followed.follow, client)
        await trio.testing.wait_all_tasks_blocked()
        followed.say("b")
        await trio.testing.wait_all_tasks_blocked()
        followed.finish()
    assert [frame.number for frame in frames(client.body)] == [1, 2, 3, 4]
    assert client.complete


async def test_stream_of_one_that_has_ended_is_sent_at_once() -> None:
    """All of it, and nothing is waited for."""
    client, followed = Client(), Followed()
    followed.live.began()
    followed.finish()
    await followed.stream(client, ended=True).run(client.connection)
    assert [frame.name for frame in frames(client.body)] == ["start", "completed"]
    assert client.complete


async def test_stream_without_a_prediction_cannot_wait() -> None:
    """Nobody would ever wake it: a mistake is seen as one, and not as silence."""
    client, followed = Client(), Followed()
    with pytest.raises(RuntimeError, match="has its last event"):
        await followed.stream(client, ended=True).run(client.connection)
    assert followed.log.subscribers == 0


async def test_what_came_meanwhile_is_sent_in_one_piece() -> None:
    """A client that was slow gets all that is there at once."""
    client, followed = Client(), Followed()
    followed.live.began()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(followed.follow, client)
        await trio.testing.wait_all_tasks_blocked()
        for text in "abc":
            followed.say(text)
        await trio.testing.wait_all_tasks_blocked()
        assert client.messages[-1]["body"].count(b"event: output") == 3
        followed.finish()


async def test_large_event_is_sent_in_pieces() -> None:
    """What is framed is copied: a slow client costs no more than a piece, however large it is."""
    client, followed = Client(), Followed()
    followed.live.began()
    followed.say("x" * 1_000_000)
    followed.finish()
    await followed.follow(client)
    assert max(len(message.get("body", b"")) for message in client.messages) == 64 * 1024
    assert frames(client.body)[-1].data["output"] == ["x" * 1_000_000]


# -- keep-alives -----------------------------------------------------------------------------------


async def test_silence_is_broken_by_a_comment(autojump_clock: trio.testing.MockClock) -> None:
    """Every 15 seconds, also before the first event."""
    client, followed = Client(), Followed()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(followed.follow, client)
        await trio.sleep(2 * KEEP_ALIVE_S + 1)
        assert client.body == b": keep-alive\n\n" * 2
        nursery.cancel_scope.cancel()


async def test_events_put_the_comment_off(autojump_clock: trio.testing.MockClock) -> None:
    """It is for silence: 15 seconds after the last event, not after the last comment."""
    client, followed = Client(), Followed()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(followed.follow, client)
        await trio.sleep(KEEP_ALIVE_S - 1)
        followed.live.began()
        await trio.sleep(KEEP_ALIVE_S - 1)
        assert b"keep-alive" not in client.body
        await trio.sleep(2)
        assert client.body.endswith(b"\n\n: keep-alive\n\n")
        nursery.cancel_scope.cancel()


async def test_comments_are_no_events() -> None:
    """They have no number, so that a client that resumes after one has missed nothing."""
    assert frames(b": keep-alive\n\n") == [Frame(None, "", None)]


# -- clients that lag ------------------------------------------------------------------------------


async def test_client_that_lags_too_far_is_told_and_ended() -> None:
    """With the number of what it has missed, as the last event; its answer has its end."""
    client, followed = Client(), Followed(max_events=2)
    followed.live.began()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(followed.follow, client)
        await trio.testing.wait_all_tasks_blocked()
        client.takes = trio.Event()
        for text in "abcd":
            followed.say(text)
            await trio.testing.wait_all_tasks_blocked()
        client.takes.set()
    last = frames(client.body)[-1]
    assert (last.name, last.data["skipped"]) == ("error", 1)
    assert last.data["error"] == "SSE stream lagged; events were dropped"
    assert client.complete


async def test_client_that_lags_is_no_client_that_leaves() -> None:
    """It may come back for the rest: the prediction goes on, also without anybody else."""
    client, followed = Client(), Followed(max_events=1)
    followed.live.began()
    followed.say("a")
    followed.say("b")
    await followed.follow(client)
    assert frames(client.body)[-1].data["error"].startswith("SSE stream replay truncated")
    assert followed.ends_by is None


async def test_client_that_lags_does_not_slow_the_others() -> None:
    """They get each event when it comes."""
    slow, quick, followed = Client(), Client(), Followed(max_events=2)
    followed.live.began()
    async with trio.open_nursery() as nursery:
        for client in (slow, quick):
            nursery.start_soon(followed.follow, client)
        await trio.testing.wait_all_tasks_blocked()
        slow.takes = trio.Event()
        for count, text in enumerate("abcd", start=1):
            followed.say(text)
            await trio.testing.wait_all_tasks_blocked()
            assert quick.body.count(b"event: output") == count
        slow.takes.set()
        followed.finish()


@pytest.mark.parametrize("version", [b"1.1", b"1.0"], ids=["direct", "by its task"])
async def test_client_that_keeps_up_misses_nothing_of_a_burst(version: bytes) -> None:
    """Though more events come at once than the log holds: after the proxy was busy, say."""
    played = Played()
    settings = PredictionSettings(history=200)
    async with before(played, settings) as server, wire(server.port) as client:
        await client.send(POST % version)
        await played.say(HEAD)
        await client.read_until(b"event: start")
        await played.say(piece("x") * 1400)
        await played.finish()
        received = await client.read_to_end()
    assert b"event: error" not in received
    assert b"event: completed" in received


# -- clients that leave ----------------------------------------------------------------------------


async def test_last_client_that_leaves_ends_it() -> None:
    """Not the first of two."""
    first, second, followed = Client(), Client(), Followed()
    async with trio.open_nursery() as nursery:
        for client in (first, second):
            nursery.start_soon(followed.follow, client)
        await trio.testing.wait_all_tasks_blocked()
        first.leave()
        await trio.testing.wait_all_tasks_blocked()
        causes = [followed.ends_by]
        second.leave()
    assert [*causes, followed.ends_by] == [None, EndCause.CLIENT_DISCONNECTED]
    assert (first.listeners, followed.log.subscribers) == ([], 0)


async def test_client_that_was_gone_before_its_stream_has_left() -> None:
    """What it asked for is ended, and nothing is sent to it."""
    client, followed = Client(EndCause.CLIENT_DISCONNECTED), Followed()
    await followed.follow(client)
    assert followed.ends_by is EndCause.CLIENT_DISCONNECTED
    assert client.messages == []


async def test_client_that_was_too_slow_has_not_left() -> None:
    """As one that lags: it may come back."""
    client, followed = Client(), Followed()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(followed.follow, client)
        await trio.testing.wait_all_tasks_blocked()
        client.leave(EndCause.CLIENT_TOO_SLOW)
    assert followed.ends_by is None
    assert followed.log.subscribers == 0


async def test_client_that_leaves_after_the_last_event_ends_nothing() -> None:
    """It has read what it wanted: that it closes then is no cause."""
    client, followed = Client(), Followed()
    followed.live.began()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(followed.follow, client)
        await trio.testing.wait_all_tasks_blocked()
        client.takes = trio.Event()
        followed.finish()
        await trio.testing.wait_all_tasks_blocked()
        client.leave()
    assert followed.ends_by is None


async def test_client_of_one_that_runs_on_its_own_ends_nothing() -> None:
    """Whoever joins and leaves."""
    client, followed = Client(), Followed(MadeFor.ITSELF)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(followed.follow, client)
        await trio.testing.wait_all_tasks_blocked()
        client.leave()
    assert followed.ends_by is None


async def test_stream_that_is_cancelled_counts_as_left() -> None:
    """Nobody reads it any more."""
    client, followed = Client(), Followed()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(followed.follow, client)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert followed.ends_by is EndCause.CLIENT_DISCONNECTED


# -- over real sockets -----------------------------------------------------------------------------


@pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING.keys())
async def test_subscriber_that_leaves_ends_what_it_made(leave: Leave) -> None:
    """However it leaves: llama-server's connection is closed, and it is canceled."""
    played = Played()
    async with before(played) as server, wire(server.port) as client:
        await follow(client)
        await played.say(HEAD, piece("b"))
        await client.read_until(b"event: output")
        leave(client)
        await server.kept("p")
        assert server.book.counts == {"canceled": 1}
        with trio.fail_after(5):
            await played.requests[0].closed.wait()


async def test_subscriber_that_stops_reading_is_cut_off_and_the_prediction_goes_on() -> None:
    """By the send timeout, which is no leaving."""
    played = Played()
    async with (
        before(played, send_timeout_s=0.2) as server,
        wire(server.port, receive_buffer=4096) as client,
    ):
        await follow(client)
        await client.read_until(b"event: start")
        await played.say(HEAD, piece("x" * 200_000) * 20)
        await until(lambda: server.subscribers("p") == 0)
        await played.finish()
        await server.kept("p")
        assert server.book.counts == {"succeeded": 1}


async def test_http_1_0_client_gets_its_events_too() -> None:
    """Without chunks: its connection ends with the last event."""
    async with before(saying("b")) as server, wire(server.port) as client:
        await client.send(POST % b"1.0")
        _, _, body = (await client.read_to_end()).partition(b"\r\n\r\n")
    assert frames(body)[-1].name == "completed"
