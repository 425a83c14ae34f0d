"""Our own questions to llama-server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from proxy.core.errors import UpstreamFailed
from proxy.runtime import outbound
from proxy.runtime.address import Address
from proxy.runtime.outbound import NOT_OURS, ControlClient
from tests.fakes.scripted_server import answering, read_head, scripted_server
from tests.left_behind import Leftovers

PATIENCE_S = 10.0
KEY = "very-secret"


@pytest.fixture(autouse=True)
def leaves_nothing(leftovers: Leftovers) -> None:
    """Assert after each test that no descriptor is left."""


def answer(value: object, status: str = "200 OK") -> bytes:
    """Return an answer with a JSON body; bytes are sent as they are."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@asynccontextmanager
async def asked(reply: bytes) -> AsyncIterator[ControlClient]:
    """Give a client of a server that answers `reply` to everything."""
    with trio.fail_after(PATIENCE_S):
        async with scripted_server(answering(reply)) as address:
            yield ControlClient(address, None)


Ask = Callable[[ControlClient], Awaitable[object]]


async def test_health_returns_the_status_whatever_it_is() -> None:
    """503 is an answer: loading."""
    async with asked(answer({"error": {}}, "503 Service Unavailable")) as client:
        assert await client.health() == 503


@pytest.mark.parametrize(
    ("ask", "value"),
    [
        (ControlClient.props, {"total_slots": 3}),
        (ControlClient.slots, [{"id": 0}]),
        (lambda client: client.get_json("/x"), "anything"),
    ],
    ids=["props", "slots", "get_json"],
)
async def test_question_returns_its_json(ask: Ask, value: object) -> None:
    """Parsed, of the kind that the route has."""
    async with asked(answer(value)) as client:
        assert await ask(client) == value


@pytest.mark.parametrize(
    ("ask", "value"),
    [
        (ControlClient.props, [1]),
        (ControlClient.slots, {"a": 1}),
        (ControlClient.props, b"<html>"),
        (ControlClient.slots, b""),
        (ControlClient.props, b"\xff{}"),
    ],
    ids=["props list", "slots object", "html", "empty", "no text"],
)
async def test_answer_of_another_kind_is_refused(ask: Ask, value: object) -> None:
    """Somebody else answers there; what they said is not repeated."""
    async with asked(answer(value)) as client:
        with pytest.raises(UpstreamFailed, match=NOT_OURS):
            await ask(client)


@pytest.mark.parametrize(
    ("fields", "head", "body"),
    [({"a": 1}, "POST /x HTTP/1.1", b'{"a": 1}'), (None, "GET /x HTTP/1.1", b"")],
    ids=["post", "get"],
)
async def test_ask_posts_the_fields_if_there_are_any(
    fields: dict[str, object] | None, head: str, body: bytes
) -> None:
    """As JSON, whose length is said; the answer has to be an object."""
    arrived = list[bytes]()

    async def keep(stream: trio.abc.Stream) -> None:
        received = await read_head(stream)
        while not received.endswith(body):
            received += await stream.receive_some()
        arrived.append(received)
        await stream.send_all(answer({"b": 2} if len(arrived) == 1 else []))

    with trio.fail_after(PATIENCE_S):
        async with scripted_server(keep) as address:
            client = ControlClient(address, None)
            assert await client.ask("/x", fields) == {"b": 2}
            with pytest.raises(UpstreamFailed, match=NOT_OURS):
                await client.ask("/x", fields)
    lines = arrived[0].decode().split("\r\n")
    assert lines[0] == head
    assert ("Content-Length: 8" in lines) == (fields is not None)


async def test_answer_with_another_status_is_refused_with_it() -> None:
    """`/slots` may be turned off."""
    async with asked(answer({"error": {}}, "501 Not Implemented")) as client:
        with pytest.raises(UpstreamFailed, match=r"llama-server answered 501 to /slots\."):
            await client.slots()


async def test_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever answers there cannot fill our memory."""
    monkeypatch.setattr(outbound, "MAX_ANSWER_BYTES", 1000)
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"1" * 1001
    async with asked(endless) as client:
        with pytest.raises(UpstreamFailed, match=NOT_OURS):
            await client.props()


async def test_answer_that_is_cut_fails() -> None:
    """Half an object is none."""
    async with asked(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}") as client:
        with pytest.raises(UpstreamFailed):
            await client.props()


async def test_nobody_there_fails() -> None:
    """As for every request to llama-server."""
    with pytest.raises(UpstreamFailed):
        await ControlClient(Address(port=1), None).health()


@pytest.mark.parametrize("key", [KEY, None], ids=["key", "no key"])
async def test_request_names_the_host_the_base_path_and_the_key(key: str | None) -> None:
    """On a connection of its own, which it says it will close."""
    arrived = list[bytes]()

    async def keep(stream: trio.abc.Stream) -> None:
        arrived.append(await read_head(stream))
        await stream.send_all(answer({}))

    with trio.fail_after(PATIENCE_S):
        async with scripted_server(keep) as address:
            based = replace(address, base_path="/base", authority="llama:1")
            assert await ControlClient(based, key).delete("/v1/stream?conv_id=a") == 200
    line, *fields = arrived[0].decode().removesuffix("\r\n\r\n").split("\r\n")
    assert line == "DELETE /base/v1/stream?conv_id=a HTTP/1.1"
    expected = ["Host: llama:1", "Accept: application/json", "Connection: close"]
    assert fields == [*expected, *([f"Authorization: Bearer {KEY}"] if key else [])]


def test_repr_does_not_show_the_key() -> None:
    """It may end in a log line."""
    assert KEY not in repr(ControlClient(Address(), KEY))


async def test_cancelled_question_leaves_nothing_open() -> None:
    """A llama-server that hangs is asked again and again; `leftovers` looks."""
    async with scripted_server(answering(stay=True)) as address:
        with trio.move_on_after(0.05) as patience:
            await ControlClient(address, None).health()
        assert patience.cancelled_caught
