"""What arrives at llama-server of a request, and what the client sees of an odd answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio

import proxy
from tests.fakes.recording_upstream import Arrived, RecordingUpstream, recording_upstream
from tests.left_behind import Leftovers
from tests.web.wire import PATIENCE_S, Answer, Sent, Wire, ask_port, without

UPSTREAM_KEY = "upstream-key"
CLIENT_KEY = "client-key"
CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}
WITH_KEY = f"Authorization: Bearer {CLIENT_KEY}"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A proxy before a server that keeps what arrives."""

    upstream: RecordingUpstream
    port: int

    async def ask(self, sent: Sent) -> tuple[Arrived, Answer]:
        """Send one request; return what arrived and what was answered."""
        answer = await ask_port(self.port, sent)
        return self.upstream.only, answer


@asynccontextmanager
async def recorded(**options: Any) -> AsyncIterator[Recorded]:
    """Run both; `options` are those of `open_proxy`."""
    async with (
        recording_upstream() as upstream,
        proxy.open_upstream(upstream.url, api_key=UPSTREAM_KEY) as engine,
        proxy.open_proxy(engine, port=0, drain_s=1, **options) as server,
    ):
        yield Recorded(upstream, server.port)


CREDENTIALS = (
    WITH_KEY,
    f"x-api-key: {CLIENT_KEY}",
    "Cookie: session=secret",
    "X-Stream-Token: secret",
    "Proxy-Authorization: Basic c2VjcmV0",
)
HOP_BY_HOP = (
    "Connection: X-Named-Hop, Keep-Alive",
    "X-Named-Hop: 1",
    "Keep-Alive: timeout=5",
    "TE: trailers",
    "Upgrade: websocket",
    "Proxy-Connection: keep-alive",
)


async def test_post_arrives_with_exactly_this_head(leftovers: Leftovers) -> None:
    """Our host, our key, our request id; the client's other fields in their order and spelling.

    But for what it accepts: a stream that the proxy reads has to come as it is.
    """
    async with recorded(api_keys=[proxy.ApiKey.from_text(CLIENT_KEY)]) as pair:
        sent = Sent.json(
            f"{CHAT}?a=%20b",
            HELLO,
            *CREDENTIALS,
            *HOP_BY_HOP,
            "X-Request-Id: mine",
            "x-MIXED-case: 1",
            "Accept-Encoding: gzip",
            "X-Conversation-Id: conversation",
            "x-mixed-CASE: 2",
            host="proxy.example",
        )
        arrived, answer = await pair.ask(sent)
    assert answer.status == 200
    assert arrived.line == f"POST {CHAT}?a=%20b HTTP/1.1"
    assert arrived.fields == [
        f"Host: 127.0.0.1:{pair.upstream.port}",
        "Content-Type: application/json",
        "x-MIXED-case: 1",
        "x-mixed-CASE: 2",
        f"Authorization: Bearer {UPSTREAM_KEY}",
        "X-Request-Id: mine",
        f"Content-Length: {len(arrived.body)}",
        "Connection: close",
    ]
    assert sent.body is not None
    assert arrived.body.startswith(sent.body[:-1])


@pytest.mark.parametrize("target", ["/slots?a=b", "/no/such", "/v1/models"])
async def test_get_arrives_without_a_body_or_credentials(target: str, leftovers: Leftovers) -> None:
    """Routes without a slot are cleaned alike."""
    async with recorded(api_keys=[proxy.ApiKey.from_text(CLIENT_KEY)]) as pair:
        arrived, _ = await pair.ask(Sent("GET", target, (*CREDENTIALS, "X-Request-Id: mine")))
    assert arrived.line == f"GET {target} HTTP/1.1"
    assert arrived.fields == [
        f"Host: 127.0.0.1:{pair.upstream.port}",
        f"Authorization: Bearer {UPSTREAM_KEY}",
        "X-Request-Id: mine",
        "Connection: close",
    ]


async def test_options_add_via_forwarded_and_conversation(leftovers: Leftovers) -> None:
    """What is off by default is sent when the operator asks for it, behind what came with it."""
    async with recorded(via=True, forwarded=True, forward_conversation_id=True) as pair:
        fields = ("X-Conversation-Id: conversation", "Via: 1.0 before", "Forwarded: for=192.0.2.1")
        arrived, answer = await pair.ask(Sent.json(CHAT, HELLO, *fields))
    assert arrived.value("X-Conversation-Id") == "conversation"
    for added in ("Via: 1.1 llama-proxy", "Forwarded: for=127.0.0.1"):
        assert arrived.fields.index(added) > arrived.fields.index(fields[2])
    assert answer.all("Via") == ["1.1 llama-proxy"]


ODD_TARGETS = [
    "/%74okenize",
    "/a%2Fb/../c;d=e?f=%zz&g",
    "//double//slash",
    "/?" + "q" * 8000,
]


@pytest.mark.parametrize("target", ODD_TARGETS, ids=lambda target: target[:20])
async def test_target_arrives_untouched(target: str, leftovers: Leftovers) -> None:
    """Every byte of path and query is the client's."""
    async with recorded() as pair:
        arrived, answer = await pair.ask(Sent("GET", target))
    assert answer.status == 200
    assert arrived.line == f"GET {target} HTTP/1.1"


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_upload_is_streamed_not_gathered(chunked: bool, leftovers: Leftovers) -> None:
    """The first half arrives before the client sends the second."""
    half = b"x" * 300_000
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {2 * len(half)}"
    piece = b"%x\r\n%s\r\n" % (len(half), half) if chunked else half
    async with recorded() as pair:
        async with await trio.open_tcp_stream("127.0.0.1", pair.port) as stream:
            wire = Wire(stream)
            with trio.fail_after(PATIENCE_S):
                await wire.send(Sent("POST", "/tokenize").head(framing) + piece)
                await pair.upstream.wait_received(len(half))
                await wire.send(piece + (b"0\r\n\r\n" if chunked else b""))
                assert (await wire.read_answer("POST")).status == 200
        arrived = pair.upstream.only
    assert framing in arrived.fields
    assert arrived.body.count(b"x") == 2 * len(half)


async def test_body_for_a_slot_arrives_with_its_length(leftovers: Leftovers) -> None:
    """A chunked body that was read before the gate goes on whole; what is added stands behind."""
    said = b'[{"role":"user","content":"\\u00e9 \xc3\xa9"}]'
    body = b'{ "messages" : [ ] , "messages":%s,"seed":1.50}' % said
    async with recorded() as pair:
        async with await trio.open_tcp_stream("127.0.0.1", pair.port) as stream:
            wire = Wire(stream)
            with trio.fail_after(PATIENCE_S):
                head = Sent("POST", CHAT).head("Transfer-Encoding: chunked")
                await wire.send(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
                assert (await wire.read_answer("POST")).status == 200
        arrived = pair.upstream.only
    assert arrived.value("Content-Length") == str(len(arrived.body))
    assert "transfer-encoding" not in arrived.names
    assert arrived.body.startswith(body[:-1])
    assert json.loads(bytes(arrived.body)) | json.loads(body) == json.loads(bytes(arrived.body))


ODD_ANSWER = (
    b"HTTP/1.1 299 Rather Odd\r\n"
    b"X-TWICE: 1\r\n"
    b"x-twice: 2\r\n"
    b"Set-Cookie: a=1\r\n"
    b"Set-Cookie: b=2\r\n"
    b"Connection: X-Named-Hop\r\n"
    b"X-Named-Hop: 1\r\n"
    b"Keep-Alive: timeout=5, max=100\r\n"
    b"Proxy-Authenticate: Basic\r\n"
    b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    b"Server: odd\r\n"
    b"X-Request-Id: theirs\r\n"
    b"Access-Control-Allow-Origin: *\r\n"
    b"X-Empty:\r\n"
    b"Content-Length: 2\r\n"
    b"\r\n"
    b"ok"
)


@pytest.mark.parametrize(
    ("cors_origins", "cors"),
    [((), []), (("upstream",), [("Access-Control-Allow-Origin", "*")])],
    ids=["ours", "upstream"],
)
async def test_odd_answer_passes_unchanged(
    cors_origins: tuple[str, ...], cors: list[tuple[str, str]], leftovers: Leftovers
) -> None:
    """Status, reason, order, spelling and duplicates stay; hop-by-hop fields end here."""
    async with recorded(cors_origins=cors_origins) as pair:
        pair.upstream.answer = ODD_ANSWER
        _, answer = await pair.ask(Sent("GET", "/odd", ("X-Request-Id: mine",)))
    assert (answer.status, answer.reason, answer.body) == (299, "Rather Odd", b"ok")
    assert without(answer.fields, "connection") == [
        ("X-TWICE", "1"),
        ("x-twice", "2"),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("Date", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("Server", "odd"),
        *cors,
        ("X-Empty", ""),
        ("Content-Length", "2"),
        ("X-Request-Id", "mine"),
    ]


@pytest.mark.parametrize("status", [204, 304])
async def test_answer_without_content_passes(status: int, leftovers: Leftovers) -> None:
    """No body and no framing is made up, and the connection stays usable."""
    async with recorded() as pair:
        pair.upstream.answer = b"HTTP/1.1 %d Nothing\r\nETag: a\r\n\r\n" % status
        async with await trio.open_tcp_stream("127.0.0.1", pair.port) as stream:
            wire = Wire(stream)
            with trio.fail_after(PATIENCE_S):
                for _ in range(2):
                    await wire.send(Sent("GET", "/empty").raw())
                    answer = await wire.read_answer()
                    assert (answer.status, answer.reason) == (status, "Nothing")
                    assert answer.all("Content-Length") == []
                    assert answer.all("Transfer-Encoding") == []


@pytest.mark.parametrize(
    "candidate", ["", "with blank", "x" * 129, "ümlaut"], ids=["empty", "blank", "long", "latin"]
)
async def test_odd_request_id_is_replaced(candidate: str, leftovers: Leftovers) -> None:
    """An id that would not fit a log line is not taken; both sides get the same new one."""
    async with recorded() as pair:
        arrived, answer = await pair.ask(Sent("GET", "/slots", (f"X-Request-Id: {candidate}",)))
    made = answer.one("X-Request-Id")
    assert made == arrived.value("X-Request-Id")
    assert len(made) == 32
    assert made != candidate


FOREIGN = ["http://internal/a.png", "https://example.org/a.png", "file:///etc/passwd", "a.png"]


def looks_at(url: str) -> dict[str, Any]:
    """Return a chat body with a picture."""
    part = {"type": "image_url", "image_url": {"url": url}}
    return {"messages": [{"role": "user", "content": [part]}]}


@pytest.mark.parametrize("url", FOREIGN)
@pytest.mark.parametrize("route", [CHAT, "/v1/messages", "/%76%31/chat/completions"])
async def test_foreign_picture_reaches_no_llama_server(
    route: str, url: str, leftovers: Leftovers
) -> None:
    """llama-server would fetch it: 400, and nothing arrives."""
    async with recorded() as pair:
        answer = await ask_port(pair.port, Sent.json(route, looks_at(url)))
        assert pair.upstream.arrived == []
    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert "must be a data: URL" in str(answer.error["message"])
    assert url not in str(answer.error["message"])


@pytest.mark.parametrize(
    ("allowed", "url"), [(True, FOREIGN[0]), (False, "data:image/png;base64,AAAA")]
)
async def test_allowed_picture_passes(allowed: bool, url: str, leftovers: Leftovers) -> None:
    """`data:` always does, another URL by option."""
    async with recorded(allow_remote_media=allowed) as pair:
        arrived, answer = await pair.ask(Sent.json(CHAT, looks_at(url)))
    assert answer.status == 200
    assert json.loads(bytes(arrived.body))["messages"] == looks_at(url)["messages"]
