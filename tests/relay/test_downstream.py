"""The reply to one client: whole events, and an end that tells the truth."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import cast

import pytest

from proxy.core import whole_events
from proxy.core.errors import QueueFull, UpstreamFailed
from proxy.core.routes import Dialect
from proxy.http1.asgi import Message
from proxy.http1.connection import ClientConnection
from proxy.relay.downstream import Downstream

EVENTS = [(b"Content-Type", b"text/event-stream")]
BROKEN = UpstreamFailed("It broke.")


@dataclass(slots=True)
class Client:
    """What a client gets: the messages of its reply, or a reset."""

    messages: list[Message] = field(default_factory=list)
    was_reset: bool = False

    def abort(self) -> None:
        """Reset its connection."""
        self.was_reset = True

    async def send(self, message: Message) -> None:
        """Take a message."""
        self.messages.append(message)

    @property
    def pieces(self) -> list[bytes]:
        """The pieces of the body."""
        return [message["body"] for message in self.messages if "body" in message]

    @property
    def body(self) -> bytes:
        """The body so far."""
        return b"".join(self.pieces)

    @property
    def is_complete(self) -> bool:
        """Whether the body had its proper end, which is then the last word."""
        ends = [not message.get("more_body", True) for message in self.messages]
        assert True not in ends[:-1]
        return ends[-1]


@pytest.fixture
def client() -> Client:
    """Give a client."""
    return Client()


def reply(
    client: Client, dialect: Dialect = Dialect.OPENAI, http_version: str = "1.1"
) -> Downstream:
    """Return the reply to `client`."""
    return Downstream(
        client.send,
        cast(ClientConnection, client),
        dialect=dialect,
        request_id="r1",
        http_version=http_version,
    )


async def test_reply_passes_status_headers_reason_and_bytes(client: Client) -> None:
    """Unchanged, and counts what it sent."""
    found = reply(client)
    assert not found.started
    await found.start(299, [(b"X-A", b"1")], b"So So")
    await found.write(b"ab")
    await found.write(b"")
    await found.write(b"c")
    await found.finish()
    assert client.messages[0] == {
        "type": "http.response.start",
        "status": 299,
        "headers": [(b"X-A", b"1")],
        "reason": b"So So",
    }
    assert client.pieces == [b"ab", b"c", b""]
    assert client.is_complete
    assert (found.started, found.status, found.sent.bytes) == (True, 299, 3)


# -- event streams ---------------------------------------------------------------------------------


async def test_stream_sends_whole_events_alone(client: Client) -> None:
    """What is cut in two waits for its other half."""
    found = reply(client)
    await found.start(200, EVENTS)
    for data in (b"data: 1\n\nda", b"ta: 2", b"\n", b"\ndata: 3\n\ndata: 4\n\ndata"):
        await found.write(data)
    assert client.pieces == [b"data: 1\n\n", b"data: 2\n\ndata: 3\n\ndata: 4\n\n"]
    await found.finish()
    assert client.pieces[-1] == b"data"
    assert found.sent.bytes == len(client.body)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"Content-Type", b"application/json")],
        [*EVENTS, (b"Content-Encoding", b"gzip")],
        [*EVENTS, (b"content-length", b"4")],
        [],
    ],
    ids=["json", "encoded stream", "stream of known length", "no type"],
)
async def test_anything_else_is_sent_as_it_comes(
    client: Client, headers: list[tuple[bytes, bytes]]
) -> None:
    """Nothing is held back where nothing could be added; a failure breaks it off."""
    found = reply(client)
    await found.start(200, headers)
    await found.write(b"half")
    assert client.pieces == [b"half"]
    await found.fail(BROKEN)
    assert client.pieces == [b"half"]
    assert not client.is_complete
    assert not client.was_reset


async def test_event_that_is_too_long_to_hold_is_sent_in_pieces(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client costs a bounded amount of memory."""
    monkeypatch.setattr(whole_events, "MAX_HELD", 10)
    found = reply(client)
    await found.start(200, EVENTS)
    await found.write(b"0123456789")
    assert client.pieces == []
    await found.write(b"a")
    assert client.pieces == [b"0123456789a"]


async def test_comment_begins_a_stream_once(client: Client) -> None:
    """While a client waits in the queue, nothing between gives its connection up."""
    found = reply(client)
    await found.write_comment("queued, position 2")
    await found.write_comment("queued, position 1")
    starts = [message for message in client.messages if "status" in message]
    assert [(start["status"], dict(start["headers"])) for start in starts] == [
        (200, {b"Content-Type": b"text/event-stream", b"Cache-Control": b"no-cache"})
    ]
    assert client.pieces == [b": queued, position 2\n\n", b": queued, position 1\n\n"]


# -- failures --------------------------------------------------------------------------------------


async def test_failure_before_the_start_is_a_status(client: Client) -> None:
    """With the error's own headers and body, complete."""
    found = reply(client)
    await found.fail(QueueFull("Full.", retry_after_s=3))
    headers = dict(client.messages[0]["headers"])
    assert (client.messages[0]["status"], headers[b"Retry-After"]) == (429, b"3")
    assert headers[b"Content-Length"] == b"%d" % len(client.body)
    assert json.loads(client.body)["error"]["request_id"] == "r1"
    assert client.is_complete
    assert (found.status, found.sent.bytes) == (429, len(client.body))


async def test_failure_while_the_head_waits_for_the_body_is_a_status(client: Client) -> None:
    """Nothing was sent yet, so it can be said properly."""
    found = reply(client)
    await found.start(200, EVENTS)
    await found.fail(BROKEN)
    assert [message["status"] for message in client.messages if "status" in message] == [200, 502]
    assert found.status == 502
    assert client.is_complete


@pytest.mark.parametrize(
    ("dialect", "begins"),
    [
        (Dialect.OPENAI, b'data: {"error"'),
        (Dialect.ANTHROPIC, b"event: error\n"),
        (Dialect.RESPONSES, b"event: error\n"),
    ],
)
async def test_failure_in_a_stream_is_an_event_after_the_last_whole_one(
    client: Client, dialect: Dialect, begins: bytes
) -> None:
    """Half an event is no event; the stream then has its proper end."""
    found = reply(client, dialect)
    await found.start(200, EVENTS)
    await found.write(b"data: 1\n\ndata: hal")
    await found.fail(BROKEN)
    assert client.body.startswith(b"data: 1\n\n" + begins)
    assert b"It broke." in client.body
    assert b"hal" not in client.body
    assert b"[DONE]" not in client.body
    assert client.is_complete
    assert found.sent.bytes == len(client.body)


async def test_failure_after_comments_is_an_event(client: Client) -> None:
    """Their status said 200."""
    found = reply(client)
    await found.write_comment("queued, position 1")
    await found.fail(BROKEN)
    assert b'data: {"error"' in client.body
    assert client.is_complete


async def test_failure_inside_an_event_that_was_sent_in_pieces_breaks_it_off(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error event would become a part of that event's text."""
    monkeypatch.setattr(whole_events, "MAX_HELD", 10)
    found = reply(client)
    await found.start(200, EVENTS)
    await found.write(b"data: 0123456789")
    await found.fail(BROKEN)
    assert client.body == b"data: 0123456789"
    assert not client.is_complete


async def test_failure_after_a_long_event_has_ended_is_an_event_again(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end was sent, so the next may begin."""
    monkeypatch.setattr(whole_events, "MAX_HELD", 10)
    found = reply(client)
    await found.start(200, EVENTS)
    await found.write(b"data: 0123456789")
    await found.write(b"ab\n\n")
    await found.fail(BROKEN)
    assert client.body.startswith(b'data: 0123456789ab\n\ndata: {"error"')
    assert client.is_complete


async def test_failure_in_a_body_of_http_1_0_resets_the_connection(client: Client) -> None:
    """Its end is the connection's end: FIN would make the half a whole."""
    found = reply(client, http_version="1.0")
    await found.start(200, [])
    await found.write(b"half")
    await found.fail(BROKEN)
    assert client.was_reset


async def test_failure_in_a_stream_of_http_1_0_is_an_event(client: Client) -> None:
    """It says by itself that it failed."""
    found = reply(client, http_version="1.0")
    await found.start(200, EVENTS)
    await found.send_head()
    await found.fail(BROKEN)
    assert b'data: {"error"' in client.body
    assert client.is_complete
    assert not client.was_reset
