"""What the relay needs of a request, and its body read and parsed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from proxy.core.errors import BodyTooLarge, InvalidRequest
from proxy.http1.asgi import Message
from proxy.relay import relayed_request as module
from proxy.relay.relayed_request import RelayedRequest, parse_object, read_body
from tests.http1.asgi_client import Field, scope_of


def made(method: str = "POST", path: str = "/completion", **changes: Any) -> RelayedRequest:
    """Return a request."""
    return RelayedRequest.of({**scope_of(method, path, request_id="r1"), **changes})


def test_of_takes_the_target_as_it_was_written() -> None:
    """Percent-encoding is llama-server's to read, also in the query."""
    found = made(path="/a b", raw_path=b"/a%20b", query_string=b"c=%41&d")
    assert found.target == "/a%20b?c=%41&d"
    assert (found.method, found.request_id, found.client_host) == ("POST", "r1", "127.0.0.1")


def test_of_a_target_without_query_has_no_question_mark() -> None:
    """Nothing is added."""
    assert made(raw_path=b"/completion").target == "/completion"


def test_of_a_socket_without_addresses_has_no_client_host() -> None:
    """`Forwarded` then says unknown."""
    assert made(client=None).client_host is None


def test_of_classifies_the_route() -> None:
    """By method and path."""
    assert made().route.gated
    assert not made("GET").route.gated


def test_header_is_found_by_its_lower_case_name() -> None:
    """However it was spelled; the first, if there are several."""
    headers: tuple[Field, ...] = ((b"X-a", b"1"), (b"x-A", b"2"))
    assert made(headers=headers).header(b"x-a") == b"1"
    assert made(headers=headers).header(b"x-b") is None


@pytest.mark.parametrize(
    ("fields", "model"), [({"model": "m"}, "m"), ({"model": 1}, None), ({}, None)]
)
async def test_model_is_a_name_or_none(fields: dict[str, object], model: str | None) -> None:
    """Anything else is llama-server's to refuse; it outlives the body."""

    async def receive() -> Message:
        body = json.dumps(fields).encode()
        return {"type": "http.request", "body": body, "more_body": False}

    found = made()
    await found.read(receive, allow_remote_media=False)
    found.forget_body()
    assert (found.model, found.fields, found.body) == (model, {}, b"")


@pytest.mark.parametrize(
    ("value", "wants"), [(True, True), (False, False), (1, False), ("true", False), (None, False)]
)
def test_wants_stream_is_true_alone(value: object, wants: bool) -> None:
    """As llama-server reads it."""
    found = made()
    found.fields = {"stream": value}
    assert found.wants_stream == wants


@pytest.mark.parametrize(
    ("path", "kind", "has_json"),
    [
        ("/completion", b"text/plain", True),
        ("/completion", None, True),
        ("/v1/embeddings", b"Application/JSON; charset=utf-8", True),
        ("/v1/audio/transcriptions", b"multipart/form-data; boundary=x", False),
        ("/v1/embeddings", None, False),
    ],
)
def test_has_json_where_it_generates_or_says_so(
    path: str, kind: bytes | None, has_json: bool
) -> None:
    """A client may say that it is a form, as curl does, and llama-server parses it all the same."""
    headers = () if kind is None else ((b"Content-Type", kind),)
    assert made(path=path, headers=headers).has_json == has_json


# -- bodies ----------------------------------------------------------------------------------------


class Sender:
    """A client's body, in pieces; then it leaves or breaks."""

    def __init__(self, *pieces: bytes, end: Message | Exception | None = None) -> None:
        self._messages: list[Message | Exception] = [
            {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
        ]
        self._messages.append(end or {"type": "http.request", "body": b"", "more_body": False})

    async def receive(self) -> Message:
        """Return the next message."""
        message = self._messages.pop(0)
        if isinstance(message, Exception):
            raise message
        return message


async def test_read_body_joins_the_pieces() -> None:
    """To the last."""
    assert await read_body(Sender(b"ab", b"", b"c").receive) == b"abc"
    assert await read_body(Sender().receive) == b""


async def test_read_body_of_a_client_that_left_is_none() -> None:
    """Half a body is none."""
    assert await read_body(Sender(b"ab", end={"type": "http.disconnect"}).receive) is None


async def test_read_body_that_was_refused_raises_the_refusal() -> None:
    """The guard's word."""
    with pytest.raises(BodyTooLarge):
        await read_body(Sender(b"ab", end=BodyTooLarge("x")).receive)


GOOD = {
    "plain": b'{"a": [1, null]}',
    "with a byte order mark": b'\xef\xbb\xbf{"a": [1, null]}',
    "with blanks": b'\r\n {"a": [1, null]} \n',
}


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD.keys())
async def test_parse_object_returns_it(body: bytes) -> None:
    """As RFC 8259 has it."""
    assert await parse_object(body) == {"a": [1, None]}


BAD = {
    "empty": b"",
    "cut": b'{"a": ',
    "two": b"{}{}",
    "no text": b"\xff\xfe{}",
    "too deep": b"[" * 200_000,
    "a number of too many digits": b'{"a": ' + b"1" * 5000 + b"}",
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
async def test_parse_object_refuses_what_is_no_json(body: bytes) -> None:
    """In one sentence, without a word of the parser's."""
    with pytest.raises(InvalidRequest, match=r"^The body is not valid JSON\.$"):
        await parse_object(body)


@pytest.mark.parametrize("body", [b"[]", b'"a"', b"1", b"null"])
async def test_parse_object_refuses_other_values(body: bytes) -> None:
    """Every route of llama-server's takes an object."""
    with pytest.raises(InvalidRequest, match="has to be a JSON object"):
        await parse_object(body)


@pytest.mark.parametrize("good", [True, False])
async def test_parse_object_of_a_large_body_lets_others_run(
    good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is parsed in a thread, with the same results."""
    monkeypatch.setattr(module, "_PARSE_IN_THREAD_BYTES", 10)
    threads = list[int]()
    limiter = trio.to_thread.current_default_thread_limiter()
    body = json.dumps({"a": "b" * 100}).encode() + (b"" if good else b"}")

    async def count() -> None:
        while True:
            threads.append(limiter.borrowed_tokens)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        if good:
            assert await parse_object(body) == {"a": "b" * 100}
        else:
            with pytest.raises(InvalidRequest):
                await parse_object(body)
        nursery.cancel_scope.cancel()
    assert max(threads) == 1
