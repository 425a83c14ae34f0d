"""Which way is taken: the fast path where there is one, else the main one, and nothing twice."""

from __future__ import annotations

import json
import logging
import socket
from typing import Any

import pytest
import trio

import proxy
from tests.client.staged_proxy import (
    EVENTS,
    FAST,
    LAST_CHUNK,
    MAIN,
    OFFER,
    STREAM_HEAD,
    TOKEN,
    Play,
    StagedProxy,
    answer,
    offer,
    staged_proxy,
)
from tests.left_behind import Leftovers

KEY = "sk-1"
BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello, é"}], "seed": 1}

# Nothing of a stream, in every way: what follows is the fall back, or on the main path an error.
NO_STREAM = {
    "closed at once": Play(),
    "reset at once": Play(then="reset"),
    "no HTTP": Play((b"SSH-2.0-OpenSSH_9.6\r\n\r\n",)),
    "half a head": Play((STREAM_HEAD[:30],)),
    "400": answer("400 Bad Request", b'{"error":{"message":"No."}}'),
    "401": answer("401 Unauthorized", b'{"error":{"message":"No."}}'),
    "404": answer("404 Not Found"),
    "429": answer("429 Too Many Requests", b"", b"Retry-After: 1"),
    "500": answer("500 Internal Server Error", b"<html>"),
    "503": answer("503 Service Unavailable", b'{"error":{"message":"No."}}'),
    "204": Play((b"HTTP/1.1 204 No Content\r\n\r\n",)),
    "206": answer("206 Partial Content", b"data: {}\n\n", kind=b"text/event-stream"),
    "redirect": answer("307 Temporary Redirect", b"", b"Location: /v1/chat/completions"),
    "an error cut": Play((b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 9\r\n\r\n{",)),
    "JSON": answer("200 OK", b'{"choices":[]}'),
    "no type": Play((b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",)),
    "empty": answer("200 OK", kind=b"text/event-stream"),
    "empty, chunked": Play((STREAM_HEAD, LAST_CHUNK)),
    "closed after the head": Play((STREAM_HEAD,)),
    "reset after the head": Play((STREAM_HEAD,), then="reset"),
    "no chunk": Play((STREAM_HEAD, b"nonsense\r\n")),
}
# And no offer.
NO_OFFER = {
    **{name: play for name, play in NO_STREAM.items() if name != "empty, chunked"},
    "unsupported": offer({"supported": False}),
    "no object": offer([]),
    "no JSON": answer("200 OK", b"supported"),
    "not whole": Play((b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}",)),
    "no URL": offer({"supported": True, "token": TOKEN}),
    "no token": offer({"supported": True, "stream_url": "http://127.0.0.1:1/stream"}),
    "too large": offer({"supported": False, "padding": "x" * 20_000}),
}
# Or one that leads nowhere; a host's name, where it cannot be one, is found out late.
NOWHERE = [
    "stream",
    "/stream",
    "ftp://127.0.0.1/stream",
    "http://user:password@127.0.0.1/stream",
    "http://127.0.0.1:99999/stream",
    "http://127.0.0.1:0/stream",
    "http://a..b/stream",
    f"http://{'a' * 64}/stream",
    "http://[::1/stream",
    "http://[fe80::1%25nothing]/stream",
    "https://127.0.0.1:1/stream",
]


async def assert_falls_back(staged: StagedProxy, **options: Any) -> None:
    """Check that a stream comes by the main path, asked for once."""
    async with (
        proxy.open_client(staged.url, KEY, **options) as client,
        client.stream_chat(BODY) as events,
    ):
        assert events.path == "main"
        assert [each async for each in events] == EVENTS
    assert staged.paths.count(OFFER) == staged.paths.count(MAIN) == 1
    assert staged.paths.count(FAST) <= 1
    assert json.loads(staged.of(MAIN).body) == {**BODY, "stream": True}
    assert staged.of(MAIN).fields["authorization"] == f"Bearer {KEY}"
    assert "x-stream-token" not in staged.of(MAIN).fields


async def test_stream_comes_by_the_fast_path_where_there_is_one(leftovers: Leftovers) -> None:
    """Asked for with the token and without the key, which only the main listener gets."""
    async with (
        staged_proxy() as staged,
        proxy.open_client(staged.url, KEY) as client,
        client.stream_chat(BODY) as events,
    ):
        assert (events.path, events.request_id) == ("fast", "r-1")
        assert [each async for each in events] == EVENTS
    assert staged.paths == [OFFER, FAST]
    assert staged.of(OFFER).fields["authorization"] == f"Bearer {KEY}"
    assert "authorization" not in staged.of(FAST).fields
    assert staged.of(FAST).fields["x-stream-token"] == TOKEN
    assert staged.of(FAST).fields["content-type"] == "application/json"
    assert json.loads(staged.of(FAST).body) == {**BODY, "stream": True}


@pytest.mark.parametrize("play", NO_OFFER.values(), ids=NO_OFFER)
async def test_main_path_is_taken_where_there_is_no_offer(play: Play, leftovers: Leftovers) -> None:
    """Whatever the answer is, or if there is none."""
    async with staged_proxy({OFFER: play}) as staged:
        await assert_falls_back(staged)
    assert FAST not in staged.paths


@pytest.mark.parametrize("url", NOWHERE)
async def test_main_path_is_taken_where_the_offer_leads_nowhere(
    url: str, leftovers: Leftovers
) -> None:
    """A URL that cannot be used, resolved or connected to is as good as none."""
    async with staged_proxy() as staged:
        staged.plays[OFFER] = offer({"supported": True, "stream_url": url, "token": TOKEN})
        await assert_falls_back(staged)


async def test_main_path_is_taken_where_nobody_listens_on_the_fast_one(
    leftovers: Leftovers,
) -> None:
    """As when it is behind a firewall, or was stopped meanwhile."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/stream"
        async with staged_proxy() as staged:
            staged.plays[OFFER] = offer({"supported": True, "stream_url": url, "token": TOKEN})
            await assert_falls_back(staged)


@pytest.mark.parametrize("play", NO_STREAM.values(), ids=NO_STREAM)
async def test_main_path_is_taken_where_the_fast_one_gives_no_byte_of_a_stream(
    play: Play, leftovers: Leftovers
) -> None:
    """Before the first byte nothing is lost by asking again, and the caller need not know."""
    async with staged_proxy({FAST: play}) as staged:
        await assert_falls_back(staged)
    assert staged.paths == [OFFER, FAST, MAIN]


@pytest.mark.parametrize(
    "play", [Play(then="stay"), Play((b"HTTP/1.1 200 OK\r\n",), "stay")], ids=["silent", "slow"]
)
async def test_main_path_is_taken_where_the_offer_does_not_come_in_time(
    play: Play, leftovers: Leftovers
) -> None:
    """And the question is withdrawn: its connection is closed."""
    async with staged_proxy({OFFER: play}) as staged:
        await assert_falls_back(staged, negotiation_timeout_s=0.02)
        await staged.of(OFFER).left.wait()


async def test_error_of_the_fast_path_is_not_waited_for(leftovers: Leftovers) -> None:
    """Its status is all that matters; the rest may never come."""
    play = Play((b"HTTP/1.1 503 Unavailable\r\nContent-Length: 9\r\n\r\n",), then="stay")
    async with staged_proxy({FAST: play}) as staged:
        await assert_falls_back(staged)
        await staged.of(FAST).left.wait()


async def test_fast_path_that_was_left_is_in_the_log_without_secrets(
    caplog: pytest.LogCaptureFixture, leftovers: Leftovers
) -> None:
    """One line at level debug says why."""
    caplog.set_level(logging.DEBUG, "proxy.client")
    async with staged_proxy({FAST: Play(then="reset")}) as staged:
        await assert_falls_back(staged)
    (line,) = [each.getMessage() for each in caplog.records if each.name == "proxy.client"]
    assert line.startswith("The fast path is not used: The connection was lost")
    assert TOKEN not in line
    assert KEY not in line


async def test_main_path_that_fails_too_is_asked_once(leftovers: Leftovers) -> None:
    """There is no third try."""
    async with (
        staged_proxy({FAST: Play(), MAIN: Play()}) as staged,
        proxy.open_client(staged.url, KEY) as client,
    ):
        with pytest.raises(proxy.StreamUnanswered):
            async with client.stream_chat(BODY):
                raise AssertionError("entered")
    assert staged.paths == [OFFER, FAST, MAIN]


@pytest.mark.parametrize("name", NO_STREAM)
async def test_main_path_without_a_stream_is_a_typed_error(name: str, leftovers: Leftovers) -> None:
    """Raised where the block would be entered, with httpx's own error as its cause at most."""
    async with (
        staged_proxy({OFFER: NO_OFFER["404"], MAIN: NO_STREAM[name]}) as staged,
        proxy.open_client(staged.url) as client,
    ):
        with pytest.raises(proxy.StreamFailed) as caught:
            async with client.stream_chat(BODY):
                raise AssertionError("entered")
    assert caught.type is EXPECTED.get(name, proxy.StreamRefused)
    assert str(caught.value) == caught.value.message
    assert staged.paths == [OFFER, MAIN]


EXPECTED = {
    "closed at once": proxy.StreamUnanswered,
    "reset at once": proxy.StreamUnanswered,
    "no HTTP": proxy.StreamUnanswered,
    "half a head": proxy.StreamUnanswered,
    "empty": proxy.StreamBroken,
    "empty, chunked": proxy.StreamBroken,
    "closed after the head": proxy.StreamBroken,
    "reset after the head": proxy.StreamBroken,
    "no chunk": proxy.StreamBroken,
}


async def test_refusal_of_the_main_path_says_all_that_was_told(leftovers: Leftovers) -> None:
    """The server's words, its status and type, the request's id, and when to come again."""
    told = {"code": 429, "message": "Full.", "type": "rate_limit_error", "request_id": "r-9"}
    body = json.dumps({"error": told}).encode()
    play = answer("429 Too Many Requests", body, b"Retry-After: 2")
    async with (
        staged_proxy({FAST: play, MAIN: play}) as staged,
        proxy.open_client(staged.url) as client,
    ):
        with pytest.raises(proxy.StreamRefused, match=r"^Full\.$") as caught:
            async with client.stream_chat(BODY):
                raise AssertionError("entered")
    found = caught.value
    assert (found.status, found.type, found.request_id) == (429, "rate_limit_error", "r-9")
    assert found.retry_after_s == 2


async def test_refusal_that_does_not_end_is_cut(
    monkeypatch: pytest.MonkeyPatch, leftovers: Leftovers
) -> None:
    """The status is known; what it says about it is bounded in time and in size."""
    monkeypatch.setattr("proxy.client.client._REFUSAL_S", 0.02)
    monkeypatch.setattr("proxy.client.client._MAX_REFUSAL_BYTES", 10)
    head = b"HTTP/1.1 503 Unavailable\r\nContent-Length: 99\r\n\r\n"
    for play in (Play((head,), "stay"), Play((head, b"x" * 20), "stay")):
        async with (
            staged_proxy({OFFER: NO_OFFER["404"], MAIN: play}) as staged,
            proxy.open_client(staged.url) as client,
        ):
            with pytest.raises(proxy.StreamRefused, match="503"):
                async with client.stream_chat(BODY):
                    raise AssertionError("entered")
            await staged.of(MAIN).left.wait()


async def test_nobody_at_the_url_is_a_typed_error(leftovers: Leftovers) -> None:
    """It says that the server was not reached, and the network's error is its cause."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with proxy.open_client(f"http://127.0.0.1:{unused.getsockname()[1]}") as client:
            with pytest.raises(proxy.StreamUnanswered, match="could not be reached") as caught:
                async with client.stream_chat(BODY):
                    raise AssertionError("entered")
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "[fe80::1%25nothing]"])
async def test_host_that_cannot_be_one_is_a_typed_error(host: str, leftovers: Leftovers) -> None:
    """Whoever finds it out: httpx, the IDNA codec or the resolver."""
    async with proxy.open_client(f"http://{host}") as client:
        with pytest.raises(proxy.StreamUnanswered, match="could not be reached"):
            async with client.stream_chat(BODY):
                raise AssertionError("entered")


@pytest.mark.parametrize("key", ["", "a b", "a\n", "é"])
async def test_key_that_cannot_be_sent_is_a_config_error(key: str) -> None:
    """And is not repeated."""
    with pytest.raises(proxy.ConfigError, match="API key"):
        async with proxy.open_client("http://127.0.0.1:1", key):
            raise AssertionError("entered")


async def test_body_is_the_mapping_and_the_keywords(leftovers: Leftovers) -> None:
    """Keywords count, and it is always a stream that is asked for."""
    async with (
        staged_proxy({OFFER: NO_OFFER["404"]}) as staged,
        proxy.open_client(staged.url) as client,
        client.stream_chat({"seed": 1, "n": 2, "stream": False}, seed=3, messages=[]) as events,
    ):
        assert events.path == "main"
    wanted = {"seed": 3, "n": 2, "messages": [], "stream": True}
    assert json.loads(staged.of(MAIN).body) == wanted
    assert "authorization" not in staged.of(MAIN).fields


async def test_large_body_arrives_whole(leftovers: Leftovers) -> None:
    """It is sent in pieces, each with a time limit of its own."""
    text = "".join(map(str, range(200_000)))
    async with (
        staged_proxy() as staged,
        proxy.open_client(staged.url) as client,
        client.stream_chat(prompt=text) as events,
    ):
        assert [each async for each in events] == EVENTS
    assert json.loads(staged.of(FAST).body) == {"prompt": text, "stream": True}


@pytest.mark.parametrize(("value", "error"), [(float("nan"), ValueError), ({1}, TypeError)])
async def test_body_that_is_no_json_is_not_sent(value: object, error: type[Exception]) -> None:
    """It fails as `json.dumps` does, before anything is asked."""
    async with staged_proxy() as staged, proxy.open_client(staged.url) as client:
        with pytest.raises(error):
            async with client.stream_chat(seed=value):
                raise AssertionError("entered")
    assert not staged.arrived


async def test_streams_of_one_client_are_independent(leftovers: Leftovers) -> None:
    """Many at once, each on a connection of its own; one that is left does not disturb the rest."""
    whole: list[bool] = []

    async def read(client: proxy.ProxyClient, number: int) -> None:
        async with client.stream_chat(BODY) as events:
            if number % 2:
                return
            whole.append([each async for each in events] == EVENTS)

    async with (
        staged_proxy() as staged,
        proxy.open_client(staged.url) as client,
        trio.open_nursery() as nursery,
    ):
        for number in range(20):
            nursery.start_soon(read, client, number)
    assert whole == [True] * 10
    assert staged.paths.count(FAST) == 20


async def test_environment_does_not_lead_a_client_elsewhere(
    monkeypatch: pytest.MonkeyPatch, leftovers: Leftovers
) -> None:
    """No proxy that a variable names gets to see what is said."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with (
        staged_proxy() as staged,
        proxy.open_client(staged.url) as client,
        client.stream_chat(BODY) as events,
    ):
        assert [each async for each in events] == EVENTS
