"""What the main listener refuses before llama-server hears of it: keys, hosts, pages, sizes.

The decisions are tested with `core.access` and `core.framing`; here is what a client sees.
"""

from __future__ import annotations

import json

import pytest
import trio

from proxy import ApiKey
from tests.left_behind import Leftovers
from tests.web.test_upstream_request import CHAT, HELLO, Recorded, recorded
from tests.web.wire import PATIENCE_S, Answer, Sent, Wire, ask_port

USER = ApiKey.from_text("user-key", name="user")
ADMIN = ApiKey.from_text("admin-key", name="admin", admin=True)
PAGE = "https://page.example"


def assert_refused(answer: Answer, status: int, kind: str) -> None:
    """Check the one shape of our errors."""
    assert answer.status == status
    assert answer.error["code"] == status
    assert answer.error["type"] == kind
    assert answer.error["request_id"] == answer.one("X-Request-Id")
    assert answer.one("Content-Type") == "application/json; charset=utf-8"
    assert str(answer.error["message"]).endswith(".")


async def assert_passes(pair: Recorded, sent: Sent) -> None:
    """Check that a request reaches llama-server."""
    before = len(pair.upstream.arrived)
    assert (await ask_port(pair.port, sent)).status == 200
    assert len(pair.upstream.arrived) == before + 1


# -- keys ------------------------------------------------------------------------------------------

WRONG_KEYS = [
    (),
    ("Authorization: Bearer other",),
    ("x-api-key: other",),
    ("Authorization: Bearer user-ke",),
    ("Authorization: Bearer user-keyy",),
    ("Authorization: Basic user-key",),
    ("Authorization: user-key",),
    ("x-api-key:",),
    ("Cookie: user-key",),
]


@pytest.mark.parametrize("fields", WRONG_KEYS, ids=lambda fields: "".join(fields) or "none")
async def test_request_without_a_known_key_is_refused(
    fields: tuple[str, ...], leftovers: Leftovers
) -> None:
    """401 with the challenge, on every kind of route; nothing arrives, nothing is given away."""
    async with recorded(api_keys=[USER]) as pair:
        for sent in (
            Sent.json(CHAT, HELLO, *fields),
            Sent("GET", "/v1/models", fields),
            Sent("GET", "/no/such", fields),
            Sent("GET", "/proxy/exchanges", fields),
            Sent("OPTIONS", "/v1/models", fields),
        ):
            answer = await ask_port(pair.port, sent)
            assert_refused(answer, 401, "authentication_error")
            assert answer.one("WWW-Authenticate") == "Bearer"
            assert b"user-key" not in answer.body
        assert pair.upstream.arrived == []


@pytest.mark.parametrize(
    "field",
    [
        "Authorization: Bearer user-key",
        "authorization: bearer user-key",
        "x-api-key: user-key",
        "X-API-KEY: user-key",
    ],
)
async def test_either_header_carries_the_key(field: str, leftovers: Leftovers) -> None:
    """OpenAI's form and Anthropic's, in any spelling."""
    async with recorded(api_keys=[USER]) as pair:
        await assert_passes(pair, Sent.json(CHAT, HELLO, field))


@pytest.mark.parametrize("path", ["/health", "/v1/health", "/livez", "/readyz"])
async def test_vitals_need_no_key(path: str, leftovers: Leftovers) -> None:
    """Whoever watches us needs no secret."""
    async with recorded(api_keys=[USER]) as pair:
        assert (await ask_port(pair.port, Sent("GET", path))).status == 200


@pytest.mark.parametrize(
    "path", ["/proxy/exchanges", "/proxy/logs", "//proxy/logs", "/%70roxy/logs"]
)
async def test_operators_route_needs_an_admin_key_once_there_is_one(
    path: str, leftovers: Leftovers
) -> None:
    """A user's key opens the model and not the operator's pages, however they are written."""
    async with recorded(api_keys=[USER, ADMIN]) as pair:
        refused = await ask_port(pair.port, Sent("GET", path, ("x-api-key: user-key",)))
        assert_refused(refused, 403, "permission_error")
        passed = await ask_port(pair.port, Sent("GET", path, ("x-api-key: admin-key",)))
        assert passed.status != 403
        await assert_passes(pair, Sent.json(CHAT, HELLO, "x-api-key: user-key"))
        await assert_passes(pair, Sent.json(CHAT, HELLO, "x-api-key: admin-key"))


async def test_operators_route_is_open_to_any_key_while_none_is_an_admins(
    leftovers: Leftovers,
) -> None:
    """One user alone needs no second key."""
    async with recorded(api_keys=[USER]) as pair:
        sent = Sent("GET", "/proxy/exchanges", ("x-api-key: user-key",))
        answer = await ask_port(pair.port, sent)
    assert (answer.status, json.loads(answer.body)) == (200, {"exchanges": []})


# -- hosts and pages -------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "192.0.2.1", "localhost.evil"])
async def test_foreign_host_is_refused_without_keys(host: str, leftovers: Leftovers) -> None:
    """A page on a name that was rebound to loopback reaches nothing, `/health` neither."""
    async with recorded() as pair:
        for target in (CHAT, "/health", "/proxy/exchanges"):
            answer = await ask_port(pair.port, Sent.json(target, HELLO, host=host))
            assert_refused(answer, 421, "invalid_request_error")
        assert pair.upstream.arrived == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "[::1]:8080", "a.lan"])
async def test_own_and_allowed_hosts_pass(host: str, leftovers: Leftovers) -> None:
    """Loopback names always, others by option."""
    async with recorded(allowed_hosts=["a.lan"]) as pair:
        await assert_passes(pair, Sent.json(CHAT, HELLO, host=host))


async def test_any_host_passes_with_keys(leftovers: Leftovers) -> None:
    """With keys the key decides: a reverse proxy may call us what it likes."""
    async with recorded(api_keys=[USER]) as pair:
        await assert_passes(pair, Sent.json(CHAT, HELLO, "x-api-key: user-key", host="a.example"))


@pytest.mark.parametrize("field", [f"Origin: {PAGE}", "Origin: null", "Sec-Fetch-Site: cross-site"])
async def test_foreign_page_is_refused_without_keys(field: str, leftovers: Leftovers) -> None:
    """No page that happens to be open can use the model; it learns nothing either."""
    async with recorded() as pair:
        answer = await ask_port(pair.port, Sent.json(CHAT, HELLO, field))
        assert pair.upstream.arrived == []
    assert_refused(answer, 403, "permission_error")
    assert answer.all("Access-Control-Allow-Origin") == []


@pytest.mark.parametrize(
    "sent",
    [
        Sent.json(CHAT, HELLO, f"Origin: {PAGE}", "x-api-key: user-key"),
        Sent.json(CHAT, b"{", f"Origin: {PAGE}", "x-api-key: user-key"),
        Sent.json(CHAT, HELLO, f"Origin: {PAGE}"),
        Sent("GET", "/health", (f"Origin: {PAGE}",)),
        Sent("GET", "/proxy/nothing", (f"Origin: {PAGE}", "x-api-key: user-key")),
    ],
    ids=["answer", "bad body", "no key", "health", "no route"],
)
async def test_listed_page_can_read_every_answer(sent: Sent, leftovers: Leftovers) -> None:
    """CORS headers are on answers and errors alike, once."""
    async with recorded(api_keys=[USER], cors_origins=[PAGE]) as pair:
        answer = await ask_port(pair.port, sent)
    assert answer.one("Access-Control-Allow-Origin") == PAGE
    assert "X-Request-Id" in answer.one("Access-Control-Expose-Headers")
    assert "Origin" in answer.one("Vary")


async def test_listed_pages_preflight_is_answered_without_a_key(leftovers: Leftovers) -> None:
    """A browser sends no credentials in a preflight; it is ours to answer."""
    fields = (
        f"Origin: {PAGE}",
        "Access-Control-Request-Method: POST",
        "Access-Control-Request-Headers: authorization, content-type",
    )
    async with recorded(api_keys=[USER], cors_origins=[PAGE]) as pair:
        answer = await ask_port(pair.port, Sent("OPTIONS", CHAT, fields))
        assert pair.upstream.arrived == []
    assert (answer.status, answer.body) == (204, b"")
    assert answer.one("Access-Control-Allow-Origin") == PAGE
    assert "POST" in answer.one("Access-Control-Allow-Methods")
    assert answer.one("Access-Control-Allow-Headers") == "authorization, content-type"


async def test_other_pages_preflight_is_refused(leftovers: Leftovers) -> None:
    """An origin that is not listed exactly is foreign."""
    fields = (f"Origin: {PAGE}.evil.example", "Access-Control-Request-Method: POST")
    async with recorded(api_keys=[USER], cors_origins=[PAGE]) as pair:
        answer = await ask_port(pair.port, Sent("OPTIONS", CHAT, fields))
    assert_refused(answer, 403, "permission_error")
    assert answer.all("Access-Control-Allow-Origin") == []


async def test_preflight_is_llama_servers_when_cors_is(leftovers: Leftovers) -> None:
    """With `upstream` neither origins nor preflights are ours."""
    fields = (f"Origin: {PAGE}", "Access-Control-Request-Method: POST")
    async with recorded(cors_origins=["upstream"]) as pair:
        await assert_passes(pair, Sent("OPTIONS", CHAT, fields))
        await assert_passes(pair, Sent.json(CHAT, HELLO, f"Origin: {PAGE}"))


# -- sizes -----------------------------------------------------------------------------------------

MIB = 1024 * 1024


@pytest.mark.parametrize("target", [CHAT, "/tokenize"])
async def test_announced_body_over_the_limit_is_refused_unread(
    target: str, leftovers: Leftovers
) -> None:
    """413 by its length alone; llama-server hears nothing."""
    async with recorded(max_body_mib=1) as pair:
        async with await trio.open_tcp_stream("127.0.0.1", pair.port) as stream:
            wire = Wire(stream)
            with trio.fail_after(PATIENCE_S):
                await wire.send(Sent("POST", target).head(f"Content-Length: {MIB + 1}"))
                answer = await wire.read_answer("POST")
                assert await wire.at_end()
        assert pair.upstream.arrived == []
    assert_refused(answer, 413, "invalid_request_error")


async def test_chunked_body_over_the_limit_is_refused_where_it_passes_it(
    leftovers: Leftovers,
) -> None:
    """413 as soon as the sum is too large, though no length was announced."""
    chunk = b"%x\r\n%s\r\n" % (MIB // 2, b"x" * (MIB // 2))
    async with recorded(max_body_mib=1) as pair:
        async with await trio.open_tcp_stream("127.0.0.1", pair.port) as stream:
            wire = Wire(stream)
            with trio.fail_after(PATIENCE_S):
                await wire.send(Sent("POST", CHAT).head("Transfer-Encoding: chunked") + 2 * chunk)
                await wire.send(b"1\r\nx\r\n")
                answer = await wire.read_answer("POST")
        assert pair.upstream.arrived == []
    assert_refused(answer, 413, "invalid_request_error")


async def test_body_at_the_limit_passes(leftovers: Leftovers) -> None:
    """The limit itself is allowed."""
    async with recorded(max_body_mib=1) as pair:
        await assert_passes(pair, Sent("POST", "/tokenize", (), b"x" * MIB))


async def test_head_over_32_kib_is_refused(leftovers: Leftovers) -> None:
    """431, and the connection closes."""
    async with recorded() as pair:
        answer = await ask_port(pair.port, Sent("GET", "/slots", ("X: " + "y" * 33_000,)))
        assert pair.upstream.arrived == []
    assert_refused(answer, 431, "invalid_request_error")
    assert answer.one("Connection") == "close"


async def test_large_head_below_the_limit_passes(leftovers: Leftovers) -> None:
    """Long cookies and tokens of other people's single sign-on do no harm."""
    async with recorded() as pair:
        await assert_passes(pair, Sent("GET", "/slots", ("X: " + "y" * 32_000,)))


NO_OBJECTS = {
    "empty": b"",
    "cut": b"{",
    "list": b"[]",
    "text": b'"a"',
    "not UTF-8": b"\xff",
    "two": b'{"a":1}x',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("body", NO_OBJECTS.values(), ids=NO_OBJECTS.keys())
async def test_body_that_is_no_json_object_is_refused(body: bytes, leftovers: Leftovers) -> None:
    """400, and no slot was asked for."""
    async with recorded() as pair:
        answer = await ask_port(pair.port, Sent.json(CHAT, body))
        assert pair.upstream.arrived == []
    assert_refused(answer, 400, "invalid_request_error")


async def test_unknown_operators_route_is_404(leftovers: Leftovers) -> None:
    """Ours and unknown: our shape, not the framework's page."""
    async with recorded() as pair:
        answer = await ask_port(pair.port, Sent("GET", "/proxy/nothing"))
        assert pair.upstream.arrived == []
    assert (answer.status, answer.error["type"]) == (404, "not_found_error")
