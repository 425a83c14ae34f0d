"""What the fast listener answers, to whom, and what of it reaches llama-server."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from proxy import ApiKey
from proxy.core.errors import RefusalReason
from proxy.core.routes import GENERATING_PATHS
from proxy.fastpath.door import PATHS
from tests.fastpath.served import BODIES, CHAT, HELLO, assert_refused, served
from tests.left_behind import Leftovers
from tests.web.wire import Answer, Sent, ask_port, without

ALICE = ApiKey.from_text("sk-alice", name="alice")
WITH_KEY = "Authorization: Bearer sk-alice"
PAGE = "https://page.example"
# One that is 1x1 and transparent.
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60"
    "e6kgAAAABJRU5ErkJggg=="
)


@pytest.fixture(autouse=True)
def leaves_nothing(leftovers: Leftovers) -> None:
    """Assert after each test that no descriptor is left."""


# -- routes ----------------------------------------------------------------------------------------


def test_paths_are_those_that_generate_and_its_own() -> None:
    """A route that generates is on both listeners; there is a body for each below."""
    assert PATHS == {"/stream", *GENERATING_PATHS} == set(BODIES)


@pytest.mark.parametrize("path", sorted(PATHS))
async def test_generating_route_is_carried_to_llama_server(path: str) -> None:
    """Under its own name, but for `/stream`, which is a chat; the query goes along."""
    async with served() as pair:
        sent = Sent.json(f"{path}?a=%20b", BODIES[path], pair.token())
        arrived = await pair.arrives(sent)
    assert arrived.line == f"POST {CHAT if path == '/stream' else path}?a=%20b HTTP/1.1"


async def test_path_that_is_percent_encoded_is_the_same() -> None:
    """As llama-server has it; no encoded letter leads to another route."""
    async with served() as pair:
        arrived = await pair.arrives(Sent.json("/%73tream", HELLO, pair.token()))
        assert arrived.line == f"POST {CHAT} HTTP/1.1"
        arrived = await pair.arrives(Sent.json("/%63ompletion", {"prompt": "a"}, pair.token()))
        assert arrived.line == "POST /%63ompletion HTTP/1.1"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *((method, "/stream") for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH")),
        ("GET", CHAT),
        *(
            ("POST", path)
            for path in (
                "/",
                "/stream/",
                "//stream",
                "/stream/x",
                "/v1/stream-tokens",
                "/v1/embeddings",
                "/tokenize",
                "/slots/0",
                "/proxy/restart",
                "/predictions",
            )
        ),
        *(
            ("GET", path)
            for path in (
                "/health",
                "/livez",
                "/props",
                "/v1/models",
                "/api/inference/stream-url",
                "/proxy/logs",
                "/status",
                "/index.html",
            )
        ),
    ],
)
async def test_everything_else_is_404_and_reaches_nobody(method: str, path: str) -> None:
    """It says where that is; a token is no way around, and is good afterwards."""
    async with served() as pair:
        token = pair.token()
        answer = await pair.ask(Sent.json(path, HELLO, token, method=method))
        assert answer.status == 404
        if method != "HEAD":
            assert_refused(answer, 404, "not_found_error", "on the main port")
        assert pair.upstream.arrived == []
        assert (await pair.ask(Sent.json("/stream", HELLO, token))).status == 200


async def test_main_listener_has_no_stream_route() -> None:
    """It is llama-server's to say that it has none; no token opens anything there."""
    async with served(api_keys=[ALICE]) as pair:
        answer = await ask_port(pair.port, Sent.json("/stream", HELLO, pair.token()))
        assert_refused(answer, 401, "authentication_error")
        arrived = await pair.arrives(Sent.json("/stream", HELLO, WITH_KEY), port=pair.port)
    assert arrived.line == "POST /stream HTTP/1.1"


# -- the same way in -------------------------------------------------------------------------------

EXTRAS: dict[str, Any] = {
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
    "tool_choice": "auto",
    "seed": 7,
    "response_format": {"type": "json_object"},
    "n": 2,
    "logit_bias": [[1, -1.0]],
    "stop": ["\n"],
    "model": "a",
    "cache_prompt": False,
    "unheard_of": {"é": [1.50, None]},
}
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]}


@pytest.mark.parametrize(
    "extra",
    [{}, {"stream": True}, EXTRAS, {**EXTRAS, "stream": True}, {"logprobs": True}],
    ids=["whole", "stream", "extras", "extras, stream", "logprobs"],
)
@pytest.mark.parametrize("path", sorted(PATHS))
async def test_what_arrives_is_the_same_by_either_listener(
    path: str, extra: dict[str, Any]
) -> None:
    """Head and body, byte by byte: nothing that a client asks for is dropped on the way."""
    fields = ("X-Request-Id: mine", "x-MIXED-case: 1", "Accept-Encoding: gzip", "Cookie: a=b")
    body = {**BODIES[path], **extra}
    async with served() as pair:
        main = Sent.json(CHAT if path == "/stream" else path, body, *fields)
        by_main = await pair.arrives(main, port=pair.port)
        by_fast = await pair.arrives(Sent.json(path, body, *fields, pair.token()))
    assert by_fast.line == by_main.line
    assert by_fast.fields == by_main.fields
    assert by_fast.body == by_main.body
    assert "x-stream-token" not in by_fast.names
    sent = json.dumps(body).encode()
    assert by_fast.body.startswith(sent[:-1])


async def test_image_passes() -> None:
    """In the body, that is; an address that llama-server would have to fetch does not."""
    async with served() as pair:
        arrived = await pair.arrives(Sent.json("/stream", {"messages": [IMAGE]}, pair.token()))
    assert PIXEL in arrived.body.decode()


# -- credentials -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/stream", CHAT])
async def test_key_opens_the_fast_path_as_often_as_it_likes(path: str) -> None:
    """A program that has a key needs no token."""
    async with served(api_keys=[ALICE]) as pair:
        for field in (WITH_KEY, WITH_KEY, "x-api-key: sk-alice"):
            await pair.arrives(Sent.json(path, HELLO, field))


async def test_token_opens_it_once_without_a_key() -> None:
    """The second time it is refused, on whichever connection."""
    async with served(api_keys=[ALICE]) as pair:
        sent = Sent.json("/stream", HELLO, pair.token())
        await pair.arrives(sent)
        assert_refused(await pair.ask(sent), 401, "authentication_error")
        assert len(pair.upstream.arrived) == 1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ((), "A stream token is needed"),
        (("Cookie: sk-alice",), "A stream token is needed"),
        (("x-api-key: wrong",), "not one that this server knows"),
        (("X-Stream-Token: wrong",), "The stream token is unknown"),
        (("X-Stream-Token:",), "The stream token is unknown"),
        (("X-Stream-Token: sk-alice",), "The stream token is unknown"),
        (("X-Stream-Token: caf\u00e9",), "The stream token is unknown"),
        (("X-Stream-Token: wrong", WITH_KEY), "The stream token is unknown"),
    ],
)
async def test_nobody_gets_past_it_without_a_credential(fields: tuple[str, ...], says: str) -> None:
    """401 that says what would do; a wrong token is not made good by a key beside it."""
    async with served(api_keys=[ALICE]) as pair:
        answer = await pair.ask(Sent.json("/stream", HELLO, *fields))
        assert_refused(answer, 401, "authentication_error", says)
        assert answer.one("WWW-Authenticate") == "Bearer"
        assert pair.upstream.arrived == []


async def test_token_in_a_keys_place_is_no_key() -> None:
    """Nor in a query, where it would come into logs."""
    async with served(api_keys=[ALICE]) as pair:
        secret = pair.tokens.issue().token
        for target, field in (
            ("/stream", f"Authorization: Bearer {secret}"),
            ("/stream", f"x-api-key: {secret}"),
            (f"/stream?token={secret}", "Accept: */*"),
        ):
            answer = await pair.ask(Sent.json(target, HELLO, field))
            assert_refused(answer, 401, "authentication_error")
        await pair.arrives(Sent.json("/stream", HELLO, f"X-Stream-Token: {secret}"))


async def test_of_two_tokens_the_first_counts() -> None:
    """And the other one is not used by that."""
    async with served() as pair:
        one, other = pair.token(), pair.token()
        await pair.arrives(Sent.json("/stream", HELLO, one, other))
        assert_refused(
            await pair.ask(Sent.json("/stream", HELLO, one, other)), 401, "authentication_error"
        )
        await pair.arrives(Sent.json("/stream", HELLO, other))


async def test_without_keys_no_credential_is_needed_but_a_wrong_one_is_refused() -> None:
    """As on the main listener; who presents a token means to be held to it."""
    async with served() as pair:
        await pair.arrives(Sent.json("/stream", HELLO))
        answer = await pair.ask(Sent.json("/stream", HELLO, "X-Stream-Token: wrong"))
        assert_refused(answer, 401, "authentication_error")


# -- refusals look the same ------------------------------------------------------------------------


async def refusals() -> dict[RefusalReason, tuple[Answer, str]]:
    """Return the answers to refused tokens, with their fields, for each reason of the client's."""
    found = {}
    async with served(api_keys=[ALICE], cors_origins=[PAGE]) as pair:
        used = pair.token()
        await pair.arrives(Sent.json("/stream", HELLO, used))
        cases = {
            RefusalReason.UNKNOWN: "X-Stream-Token: " + "x" * 43,
            RefusalReason.USED: used,
            RefusalReason.WRONG_ORIGIN: pair.token(origin=PAGE),
            RefusalReason.WRONG_PATH: pair.token(paths=frozenset({"/completion"})),
        }
        for reason, field in cases.items():
            answer = await pair.ask(Sent.json("/stream", HELLO, field, "X-Request-Id: same"))
            found[reason] = (answer, field)
    return found


async def test_every_refused_token_looks_the_same(caplog: pytest.LogCaptureFixture) -> None:
    """To the byte, but for the date; what was wrong is in the log, and the token is not."""
    caplog.set_level(logging.DEBUG)
    answers = await refusals()
    seen = {
        (answer.status, answer.body, tuple(without(answer.fields, "date")))
        for answer, _ in answers.values()
    }
    assert len(seen) == 1
    said = [line.getMessage() for line in caplog.records if line.name == "proxy.stream_tokens"]
    assert said == [f"a stream token was refused: {reason}" for reason in answers]
    for _, field in answers.values():
        assert field.removeprefix("X-Stream-Token: ") not in caplog.text


async def test_refused_token_is_an_exchange_of_its_own_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Answered whole, by 401."""
    caplog.set_level(logging.INFO, "proxy.exchange")
    async with served() as pair:
        await pair.ask(Sent.json("/stream", HELLO, "X-Stream-Token: wrong"))
    (line,) = [line for line in caplog.records if line.name == "proxy.exchange"]
    assert line.getMessage() == f"POST {CHAT} -> 401 finished"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (Sent.json("/stream", b"{", host="evil.example"), 421),
        (Sent.json("/stream", b"{", "Origin: https://evil.example"), 403),
        (Sent.json("/elsewhere", b"{"), 404),
        (Sent.json("/stream", b"{"), 400),
        (Sent.json("/stream", HELLO), 401),
    ],
    ids=["host", "origin", "path", "body", "token"],
)
async def test_what_is_wrong_is_told_in_order_and_the_token_last(sent: Sent, status: int) -> None:
    """Host, page, path, body, token: the first of them that is wrong is what it is refused for."""
    async with served() as pair:
        answer = await pair.ask(sent, "X-Stream-Token: wrong")
        assert answer.status == status
        assert pair.upstream.arrived == []
