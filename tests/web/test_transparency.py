"""P8: what llama-server answers, the client gets. Each request is sent to both, and compared.

The answers are equal in status, reason, header fields (order, spelling, duplicates) and bytes. What
may differ is named here once: `FREE` (framing of this hop, date, request id), llama-server's CORS
fields (the proxy decides on origins), and in bodies what is new in every answer (`VOLATILE`).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from tests.cli.command import ROOT, environment
from tests.web.wire import PATIENCE_S, Answer, Sent, Wire, ask_port, ask_socket, without

OWNER = ROOT / "tests" / "fakes" / "pair_owner.py"
FREE = ("connection", "keep-alive", "transfer-encoding", "content-length", "date", "x-request-id")

# Ids, times, and what follows from them. Everything else has to be equal byte by byte.
VOLATILE = re.compile(
    rb'"(?:id|item_id|tool_call_id|call_id|created|created_at|completed_at|t_last'
    rb"|prompt_ms|prompt_per_token_ms|prompt_per_second"
    rb'|predicted_ms|predicted_per_token_ms|predicted_per_second)":'
    rb'(?:"[^"]*"|[-+0-9.e]+|null)'
)
# A gauge or a counter of /metrics: name, blank, number.
SAMPLE = re.compile(rb"^(llamacpp:[^ ]+) .*$", re.MULTILINE)

FIXED = {"temperature": 0, "seed": 1}
CHAT = {"messages": [{"role": "user", "content": "What does the proxy do?"}], "max_tokens": 12}
GENERATING: dict[str, dict[str, Any]] = {
    "/completion": {"prompt": "The proxy", "n_predict": 12},
    "/completions": {"prompt": "The proxy", "n_predict": 12},
    "/v1/completions": {"prompt": "The proxy", "max_tokens": 12},
    "/chat/completions": CHAT,
    "/v1/chat/completions": CHAT,
    "/infill": {"input_prefix": "The ", "input_suffix": " proxy", "n_predict": 12},
    "/responses": {"input": "What does the proxy do?", "max_output_tokens": 12},
    "/v1/responses": {"input": "What does the proxy do?", "max_output_tokens": 12},
    "/v1/messages": CHAT,
}
COMPUTING: dict[str, dict[str, Any]] = {
    "/embedding": {"content": "a"},
    "/embeddings": {"input": "a"},
    "/v1/embeddings": {"input": "a"},
    "/rerank": {"query": "a", "documents": ["b"]},
    "/reranking": {"query": "a", "documents": ["b"]},
    "/v1/rerank": {"query": "a", "documents": ["b"]},
    "/v1/reranking": {"query": "a", "documents": ["b"]},
    "/audio/transcriptions": {},
    "/v1/audio/transcriptions": {},
    "/v1/systemone": {},
    "/predict": {},
}
BESIDE_SLOTS: dict[str, dict[str, Any]] = {
    "/tokenize": {"content": "The proxy", "with_pieces": True},
    "/detokenize": {"tokens": [10, 11, 12]},
    "/apply-template": CHAT,
    "/chat/completions/input_tokens": CHAT,
    "/v1/chat/completions/input_tokens": CHAT,
    "/v1/chat/completions/control": {},
    "/responses/input_tokens": {"input": "a"},
    "/v1/responses/input_tokens": {"input": "a"},
    "/v1/messages/count_tokens": CHAT,
    "/props": {},
    "/metrics": {},
    "/models": {},
    "/v1/models": {},
    "/models/load": {"model": "a"},
    "/models/unload": {"model": "a"},
    "/models/sse": {},
    "/lora-adapters": {},
    "/slots": {},
    "/slots/0": {},
    "/slots/0?action=erase": {},
    "/slots/99?action=erase": {},
    "/v1/stream": {},
    "/v1/stream/1": {},
    "/v1/streams": {},
    "/v1/streams/lookup": {},
    "/cors-proxy": {},
    "/tools": {},
    "/": {},
}
ELSEWHERE = ("/no/such/route", "/v1/completions/", "/index.html", "/favicon.ico")
ROUTES = (*GENERATING, *COMPUTING, *BESIDE_SLOTS, *ELSEWHERE)
BODIES = {**GENERATING, **COMPUTING, **BESIDE_SLOTS}


@dataclass(frozen=True, slots=True)
class Pair:
    """A proxy and the llama-server behind it."""

    port: int
    socket: str
    api_key: str

    async def ask_both(self, sent: Sent) -> tuple[Answer, Answer]:
        """Send one request to either; return llama-server's answer and the proxy's."""
        key = f"Authorization: Bearer {self.api_key}"
        return await ask_socket(self.socket, sent, key), await ask_port(self.port, sent)


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """A real llama-server that answers every route it has, with a proxy before it."""
    with subprocess.Popen(
        # Without its cache of prompts, so that no answer depends on the one before.
        [sys.executable, str(OWNER), "--metrics", "--props", "--slots", "--no-cache-prompt"],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        told = json.loads(process.stdout.readline())
        yield Pair(told["port"], told["socket"], told["api_key"])
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 0


def fields_of(answer: Answer) -> list[tuple[str, str]]:
    """Return the header fields that have to be equal."""
    kept = without(answer.fields, *FREE)
    return [each for each in kept if not each[0].lower().startswith("access-control-")]


def bytes_of(answer: Answer) -> bytes:
    """Return the body without what is new in every answer."""
    name_only = re.compile(rb':(?:"[^"]*"|[-+0-9.e]+|null)$')
    steady = VOLATILE.sub(lambda found: name_only.sub(b":~", found[0]), answer.body)
    return SAMPLE.sub(rb"\1 ~", steady)


def assert_equal(direct: Answer, proxied: Answer) -> None:
    """Compare all that has to be equal, and what the proxy adds."""
    assert (proxied.status, proxied.reason) == (direct.status, direct.reason)
    assert fields_of(proxied) == fields_of(direct)
    assert bytes_of(proxied) == bytes_of(direct)
    # Chunked or with a length, as llama-server has chosen, and then it is the right one.
    assert len(proxied.all("Content-Length")) == len(direct.all("Content-Length"))
    for name in ("Date", "Server", "X-Request-Id"):
        assert len(proxied.all(name)) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("route", GENERATING)
async def test_generated_answer_is_llama_servers(pair: Pair, route: str, stream: bool) -> None:
    """Text, token by token where streamed, is what llama-server sent."""
    body = {**GENERATING[route], **FIXED, "stream": stream}
    direct, proxied = await pair.ask_both(Sent.json(route, body))
    assert_equal(direct, proxied)
    if direct.status == 200:
        kind = "text/event-stream" if stream else "application/json; charset=utf-8"
        assert proxied.one("Content-Type") == kind
        assert len(bytes_of(proxied)) > 100


async def test_most_generating_routes_do_generate(pair: Pair) -> None:
    """The comparison above is not one of refusals: only infill needs another model."""
    refused = []
    for route, body in GENERATING.items():
        found = await ask_port(pair.port, Sent.json(route, {**body, **FIXED}))
        if found.status != 200:
            refused.append(route)
    assert refused in ([], ["/infill"])


@pytest.mark.parametrize("route", [*COMPUTING, *BESIDE_SLOTS, *ELSEWHERE])
async def test_posted_answer_is_llama_servers(pair: Pair, route: str) -> None:
    """An answer to a typical body is llama-server's, a refusal too."""
    assert_equal(*await pair.ask_both(Sent.json(route, BODIES.get(route, {}))))


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("route", ROUTES)
async def test_answer_without_a_body_sent_is_llama_servers(
    pair: Pair, route: str, method: str
) -> None:
    """Any method passes to any route, also where llama-server has no such thing."""
    assert_equal(*await pair.ask_both(Sent(method, route)))


@pytest.mark.parametrize("route", ROUTES)
async def test_put_with_a_body_is_llama_servers_to_answer(pair: Pair, route: str) -> None:
    """A method that no route has passes with its body."""
    assert_equal(*await pair.ask_both(Sent.json(route, {"a": 1}, method="PUT")))


BROKEN = {"cut": b'{"content":', "list": b"[]", "empty": b"", "binary": b"\x00\xff\xfe"}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("route", BESIDE_SLOTS)
async def test_broken_body_is_llama_servers_to_refuse(pair: Pair, route: str, body: bytes) -> None:
    """Where the proxy need not know what a body says, llama-server judges it."""
    assert_equal(*await pair.ask_both(Sent.json(route, body)))


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("route", [*GENERATING, *COMPUTING])
async def test_broken_body_for_a_slot_is_refused_by_us(pair: Pair, route: str, body: bytes) -> None:
    """Where a slot is asked for, no slot is taken for what is no JSON object: 400 and why."""
    found = await ask_port(pair.port, Sent.json(route, body))
    assert (found.status, found.error["type"]) == (400, "invalid_request_error")
    assert str(found.error["message"]).startswith(("The body is not valid JSON", "The body has to"))


@pytest.mark.parametrize("body", [{}, {"prompt": None}, {"messages": 1}, {"input": {}}])
@pytest.mark.parametrize("route", GENERATING)
async def test_unusable_parameters_are_llama_servers_to_refuse(
    pair: Pair, route: str, body: dict[str, Any]
) -> None:
    """What is JSON but makes no sense gets llama-server's own words, or its own sense."""
    short = {"max_tokens": 4, "n_predict": 4, "max_output_tokens": 4}
    assert_equal(*await pair.ask_both(Sent.json(route, {**FIXED, **short, **body})))


TARGETS = [
    "/%74okenize",
    "/tokenize%2F",
    "/tokenize?a=%20b&c=d%26e&&=",
    "/props?x=%E2%82%AC",
    "/a/../tokenize",
    "//tokenize",
    "/tokenize?" + "q" * 4000,
]


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target[:24])
async def test_odd_target_is_llama_servers_to_answer(pair: Pair, target: str) -> None:
    """Neither percent-encoding nor dots nor queries are touched on the way."""
    assert_equal(*await pair.ask_both(Sent.json(target, {"content": "a b"})))
    assert_equal(*await pair.ask_both(Sent("GET", target)))


@pytest.mark.parametrize("route", ["/health", "/v1/health"])
async def test_health_has_llama_servers_body(pair: Pair, route: str) -> None:
    """`/health` is ours to answer, in llama-server's shape."""
    direct, proxied = await pair.ask_both(Sent("GET", route))
    assert (proxied.status, proxied.reason, proxied.body) == (200, "OK", direct.body)
    assert proxied.one("Content-Type") == direct.one("Content-Type")


async def test_web_page_passes_encoded(pair: Pair) -> None:
    """llama-server's page comes in the encoding that it has, untouched."""
    direct, proxied = await pair.ask_both(Sent("GET", "/", ("Accept-Encoding: gzip",)))
    assert_equal(direct, proxied)
    # A build without the page answers 404, and so do we.
    assert (direct.status, direct.body[:2]) in ((200, b"\x1f\x8b"), (404, b'{"'))


async def test_context_overflow_passes_with_both_numbers(pair: Pair) -> None:
    """llama-server's own error has what was sent and what fits."""
    prompt = {"prompt": [10] * 40_000, "n_predict": 1}
    direct, proxied = await pair.ask_both(Sent.json("/completion", prompt))
    assert_equal(direct, proxied)
    assert proxied.status == 400
    assert proxied.error["type"] == "exceed_context_size_error"
    for number in (proxied.error["n_prompt_tokens"], proxied.error["n_ctx"]):
        assert str(number) in str(proxied.error["message"])


LARGE = json.dumps({"content": "word " * 400_000}).encode()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
async def test_large_upload_is_answered_as_by_llama_server(pair: Pair, chunked: bool) -> None:
    """Two megabytes pass in either framing."""
    sent = Sent("POST", "/tokenize", ("Content-Type: application/json",), LARGE)
    direct = await ask_socket(pair.socket, sent, f"Authorization: Bearer {pair.api_key}")
    async with await trio.open_tcp_stream("127.0.0.1", pair.port) as stream:
        wire = Wire(stream)
        with trio.fail_after(PATIENCE_S):
            await wire.send(in_chunks(sent) if chunked else sent.raw())
            assert_equal(direct, await wire.read_answer("POST"))


def in_chunks(sent: Sent, size: int = 60_000) -> bytes:
    """Return the request with its body in chunks."""
    assert sent.body is not None
    pieces = [sent.body[at : at + size] for at in range(0, len(sent.body), size)]
    chunks = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
    return sent.head("Transfer-Encoding: chunked") + b"".join(chunks) + b"0\r\n\r\n"


async def test_client_that_expects_100_gets_it_before_it_sends(pair: Pair) -> None:
    """The interim answer is ours, once; the final one is llama-server's."""
    sent = Sent.json("/tokenize", {"content": "a b"})
    direct = await ask_socket(pair.socket, sent, f"Authorization: Bearer {pair.api_key}")
    assert sent.body is not None
    async with await trio.open_tcp_stream("127.0.0.1", pair.port) as stream:
        wire = Wire(stream)
        with trio.fail_after(PATIENCE_S):
            await wire.send(sent.head("Expect: 100-continue", f"Content-Length: {len(sent.body)}"))
            assert (await wire.read_some()).startswith(b"HTTP/1.1 100 ")
            await wire.send(sent.body)
            proxied = await wire.read_answer("POST")
    assert proxied.interim == []
    assert_equal(direct, proxied)


async def test_connection_carries_one_request_after_another(pair: Pair) -> None:
    """Answers of every kind leave the connection usable: JSON, a stream, an error, none at all."""
    chat = {**CHAT, **FIXED}
    requests = [
        Sent("GET", "/props"),
        Sent.json("/v1/chat/completions", {**chat, "stream": True}),
        Sent("GET", "/no/such/route"),
        Sent("HEAD", "/props"),
        Sent.json("/v1/chat/completions", chat),
        Sent.json("/v1/chat/completions", b"{"),
        Sent("GET", "/health"),
        Sent.json("/tokenize", {"content": "a"}),
    ]
    async with await trio.open_tcp_stream("127.0.0.1", pair.port) as stream:
        wire = Wire(stream)
        statuses = []
        with trio.fail_after(PATIENCE_S):
            for sent in requests:
                await wire.send(sent.raw())
                statuses.append((await wire.read_answer(sent.method)).status)
    assert statuses == [200, 200, 404, 200, 200, 400, 200, 200]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_http_1_0_client_gets_the_same_bytes(pair: Pair, stream: bool) -> None:
    """Without chunks, to the end of the connection; a `Host` is not needed."""
    sent = Sent.json("/v1/chat/completions", {**CHAT, **FIXED, "stream": stream})
    direct = await ask_socket(pair.socket, sent, f"Authorization: Bearer {pair.api_key}")
    old = sent.raw().replace(b" HTTP/1.1\r\nHost: localhost\r\n", b" HTTP/1.0\r\n", 1)
    async with await trio.open_tcp_stream("127.0.0.1", pair.port) as connection:
        wire = Wire(connection)
        with trio.fail_after(PATIENCE_S):
            await wire.send(old)
            proxied = await wire.read_answer("POST")
            assert await wire.at_end()
    assert (proxied.status, proxied.reason) == (direct.status, direct.reason)
    assert fields_of(proxied) == fields_of(direct)
    assert bytes_of(proxied) == bytes_of(direct)
    assert proxied.all("Transfer-Encoding") == []
