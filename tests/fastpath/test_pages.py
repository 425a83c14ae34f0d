"""Web pages at the fast listener: what one does for a stream, and what another one is told."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio

from proxy import ApiKey
from tests.fastpath.served import HELLO, Served, assert_refused, served
from tests.left_behind import Leftovers
from tests.web.wire import PATIENCE_S, Answer, Sent, Wire, ask_port

ALICE = ApiKey.from_text("sk-alice", name="alice")
WITH_KEY = "Authorization: Bearer sk-alice"
PAGE = "https://page.example"
PREFLIGHT = (
    "Access-Control-Request-Method: POST",
    "Access-Control-Request-Headers: content-type,x-stream-token",
)


@pytest.fixture(autouse=True)
def leaves_nothing(leftovers: Leftovers) -> None:
    """Assert after each test that no descriptor is left."""


async def negotiate(pair: Served, *fields: str, host: str | None = None) -> dict[str, Any]:
    """Ask the main listener where the fast one is, as a page does."""
    sent = Sent("GET", "/api/inference/stream-url", fields, host=host or f"localhost:{pair.port}")
    answer = await ask_port(pair.port, sent)
    assert answer.status == 200
    found: dict[str, Any] = json.loads(answer.body)
    return found


def may_read(answer: Answer, origin: str) -> bool:
    """Return whether a browser lets a page of `origin` see this answer."""
    return answer.all("Access-Control-Allow-Origin") == [origin]


# -- the page that we served -----------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "ui.localhost"])
@pytest.mark.parametrize("keys", [(), (ALICE,)], ids=["open", "keyed"])
async def test_page_of_the_main_listener_streams(keys: tuple[ApiKey, ...], host: str) -> None:
    """It asks where to, its browser asks whether it may, and then it streams; no option is needed.

    For the browser another port is another origin.
    """
    async with served(api_keys=keys) as pair:
        page = f"http://{host}:{pair.port}"
        # To its own origin a browser sends no `Origin` with a GET.
        same = "Sec-Fetch-Site: same-origin"
        found = await negotiate(pair, same, WITH_KEY, host=f"{host}:{pair.port}")
        url = urlsplit(found["stream_url"])
        assert (url.hostname, url.port, found["port"]) == (host, pair.fast_port, pair.fast_port)
        asked = Sent("OPTIONS", url.path, (f"Origin: {page}", *PREFLIGHT), host=url.netloc)
        allowed = await pair.ask(asked)
        assert (allowed.status, may_read(allowed, page)) == (204, True)
        assert allowed.one("Access-Control-Allow-Headers") == "content-type, x-stream-token"
        assert "POST" in allowed.one("Access-Control-Allow-Methods")
        fields = (f"Origin: {page}", f"X-Stream-Token: {found['token']}")
        sent = Sent.json(url.path, HELLO, *fields, host=url.netloc)
        answer = await pair.ask(sent)
        assert (answer.status, may_read(answer, page)) == (200, True)
        assert_refused(again := await pair.ask(sent), 401, "authentication_error")
        assert may_read(again, page)


async def test_listed_page_streams_with_the_token_that_is_made_for_it() -> None:
    """Its browser says who asks, at both listeners."""
    async with served(api_keys=[ALICE], cors_origins=[PAGE]) as pair:
        found = await negotiate(pair, f"Origin: {PAGE}", WITH_KEY)
        token = f"X-Stream-Token: {found['token']}"
        assert_refused(
            await pair.ask(Sent.json("/stream", HELLO, token)), 401, "authentication_error"
        )
        answer = await pair.ask(Sent.json("/stream", HELLO, token, f"Origin: {PAGE}"))
        assert (answer.status, may_read(answer, PAGE)) == (200, True)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (Sent.json("/stream", HELLO), 401),
        (Sent.json("/stream", HELLO, "x-api-key: wrong"), 401),
        (Sent.json("/stream", HELLO, "X-Stream-Token: wrong"), 401),
        (Sent.json("/stream", b"{", WITH_KEY), 400),
        (Sent.json("/elsewhere", HELLO, WITH_KEY), 404),
        (Sent("GET", "/stream", (WITH_KEY,)), 404),
    ],
    ids=["no key", "key", "token", "body", "path", "method"],
)
async def test_page_can_read_why_it_is_refused(sent: Sent, status: int) -> None:
    """A 401 without CORS headers is a broken network to the page that gets it."""
    async with served(api_keys=[ALICE], cors_origins=[PAGE]) as pair:
        for origin in (PAGE, f"http://localhost:{pair.port}"):
            answer = await pair.ask(sent, f"Origin: {origin}")
            assert (answer.status, may_read(answer, origin)) == (status, True)
            assert "X-Request-Id" in answer.one("Access-Control-Expose-Headers")
            assert answer.all("Vary") == ["Origin"]


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("Transfer-Encoding: chunked", b"100001\r\n" + bytes(0x100001) + b"\r\n0\r\n\r\n"),
        ("Content-Length: 1048577", b""),
    ],
    ids=["as it comes", "by its length"],
)
async def test_page_can_read_that_its_body_is_too_large(field: str, body: bytes) -> None:
    """An image more than fits, say."""
    async with served(cors_origins=[PAGE], max_body_mib=1) as pair:
        sent = Sent("POST", "/stream", (f"Origin: {PAGE}", field))
        async with await trio.open_tcp_stream("127.0.0.1", pair.fast_port) as stream:
            wire = Wire(stream)
            with trio.fail_after(PATIENCE_S):
                await wire.send(sent.head() + body)
                answer = await wire.read_answer("POST")
    assert_refused(answer, 413, "invalid_request_error")
    assert may_read(answer, PAGE)


# -- other pages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field", ["Origin: https://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"]
)
async def test_foreign_page_is_refused_where_no_key_is_needed(field: str) -> None:
    """Neither with a token nor without; nothing arrives."""
    async with served() as pair:
        for credential in ((), (pair.token(),)):
            answer = await pair.ask(Sent.json("/stream", HELLO, field, *credential))
            assert_refused(answer, 403, "permission_error")
            assert answer.all("Access-Control-Allow-Origin") == []
        assert pair.upstream.arrived == []


@pytest.mark.parametrize("keys", [(), (ALICE,)], ids=["open", "keyed"])
async def test_foreign_pages_preflight_is_refused(keys: tuple[ApiKey, ...]) -> None:
    """Its browser never sends the token."""
    async with served(api_keys=keys) as pair:
        for origin in ("https://evil.example", f"http://localhost:{pair.port + 1}", "null"):
            sent = Sent("OPTIONS", "/stream", (f"Origin: {origin}", *PREFLIGHT))
            answer = await pair.ask(sent)
            assert_refused(answer, 403, "permission_error")
            assert answer.all("Access-Control-Allow-Origin") == []


async def test_foreign_page_with_a_token_for_any_origin_cannot_read_the_answer() -> None:
    """With keys, who has the credential is served; but no browser shows a page what is not its."""
    async with served(api_keys=[ALICE]) as pair:
        sent = Sent.json("/stream", HELLO, pair.token(), "Origin: https://evil.example")
        answer = await pair.ask(sent)
    assert (answer.status, answer.all("Access-Control-Allow-Origin")) == (200, [])


@pytest.mark.parametrize(("host", "status"), [("evil.example", 421), ("gpu.lan:1", 200)])
async def test_host_has_to_be_ours_where_no_key_is_needed(host: str, status: int) -> None:
    """A page on a name that was rebound to us gets nothing; the same names as at the main port."""
    async with served(allowed_hosts=["gpu.lan"]) as pair:
        answer = await pair.ask(Sent.json("/stream", HELLO, pair.token(), host=host))
        assert answer.status == status
        assert len(pair.upstream.arrived) == (status == 200)


# -- CORS left to llama-server ---------------------------------------------------------------------


@pytest.mark.parametrize("keys", [(), (ALICE,)], ids=["open", "keyed"])
@pytest.mark.parametrize("path", ["/stream", "/v1/chat/completions"])
async def test_preflight_is_llama_servers_where_cors_is(
    keys: tuple[ApiKey, ...], path: str
) -> None:
    """Else a page that llama-server would let in could use the main port alone."""
    async with served(api_keys=keys, cors_origins=["upstream"]) as pair:
        pair.upstream.answer = (
            b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://page.example\r\n"
            b"Content-Length: 0\r\n\r\n"
        )
        for port in (pair.port, pair.fast_port):
            sent = Sent("OPTIONS", path, (f"Origin: {PAGE}", *PREFLIGHT))
            arrived = await pair.arrives(sent, port=port)
            assert may_read(await ask_port(port, sent), PAGE)
            carried_as = path if port == pair.port else "/v1/chat/completions"
            assert arrived.line == f"OPTIONS {carried_as} HTTP/1.1"


async def test_options_that_is_no_preflight_is_nobodys_at_the_fast_path() -> None:
    """A wrong token in it opens no way to llama-server."""
    async with served(api_keys=[ALICE], cors_origins=["upstream"]) as pair:
        for sent in (
            Sent("OPTIONS", "/stream", ("X-Stream-Token: wrong",)),
            Sent("OPTIONS", "/elsewhere", (f"Origin: {PAGE}", *PREFLIGHT)),
        ):
            assert_refused(await pair.ask(sent), 404, "not_found_error")
        assert pair.upstream.arrived == []


@pytest.mark.parametrize("own", [True, False], ids=["ours", "llama-server's"])
async def test_answers_cors_headers_are_of_one_of_us(own: bool) -> None:
    """Never of both: a browser takes two for none."""
    async with served(api_keys=[ALICE], cors_origins=[PAGE if own else "upstream"]) as pair:
        pair.upstream.answer = (
            b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://page.example\r\n"
            b"Access-Control-Allow-Credentials: true\r\nContent-Length: 2\r\n\r\n{}"
        )
        sent = Sent.json("/stream", HELLO, pair.token(), f"Origin: {PAGE}")
        answer = await pair.ask(sent)
    assert may_read(answer, PAGE)
    assert (answer.all("Access-Control-Allow-Credentials") == []) == own
