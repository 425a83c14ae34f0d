"""A client's connection to the fast listener: as strict, as patient and as private as the main one.

It is the same code, tested in `tests/http1`; here is that it stands before the fast path, too.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio

import proxy
from proxy.core.causes import EndCause
from tests.fakes.engines import fake_engine, nothing_left
from tests.fakes.engines import running as fake_running
from tests.fastpath.served import HELLO, Served, served
from tests.http1.guarded import TLS, tls_client
from tests.http1.probe import Cut, Handled, Outcome, Probe
from tests.http1.probes import PROBES
from tests.http1.test_framing_probes import converse, fits, read_answers
from tests.left_behind import Leftovers
from tests.promises.listeners import fast_port
from tests.promises.observe import FREE_WITHIN_S, idle_after_s, leaves_nothing
from tests.promises.replies import CHUNKED_END, last_error
from tests.web.wire import PATIENCE_S, Answer, Sent, Wire, ask


@pytest.fixture(autouse=True)
def leaves_none_open(leftovers: Leftovers) -> None:
    """Assert after each test that no descriptor is left."""


@asynccontextmanager
async def connected(pair: Served) -> AsyncIterator[Wire]:
    """Connect to the fast listener."""
    async with await trio.open_tcp_stream("127.0.0.1", pair.fast_port) as stream:
        yield Wire(stream)


# -- framing ---------------------------------------------------------------------------------------


def as_answered_here(outcome: Outcome) -> Outcome:
    """Return what the fast listener answers where the main one has a route."""
    if not isinstance(outcome, Handled) or outcome.status != 200:
        return outcome
    return replace(outcome, status=404) if outcome.target.startswith(b"/livez") else outcome


async def mismatch(url: str, probe: Probe) -> list[Answer]:
    """Send a probe; return what was answered if that is not what the table says."""
    probe = replace(probe, data=probe.data.replace(b" /tokenize ", b" /stream "))
    expected = [as_answered_here(outcome) for outcome in probe.outcomes]
    methods = [outcome.method for outcome in expected if isinstance(outcome, Handled)]
    answers = read_answers(await converse(url, probe), methods)
    kept_open = not any(answer.closes for answer in answers[: len(expected)])
    if isinstance(expected[-1], Handled) and kept_open:
        expected.append(as_answered_here(Handled()))
    if isinstance(expected[-1], Cut) and len(answers) < len(expected):
        expected.pop()
    same = len(answers) == len(expected) and all(map(fits, answers, expected))
    return [] if same else [Answer(each.status, "", [], each.body) for each in answers]


async def test_every_framing_probe_is_read_as_by_the_main_listener() -> None:
    """No request is smuggled in here either; the bodies are for `/stream`."""
    async with served() as pair:
        wrong = {}
        for probe in PROBES:
            if answers := await mismatch(f"http://127.0.0.1:{pair.fast_port}", probe):
                wrong[probe.name] = answers
    assert wrong == {}


# -- several requests ------------------------------------------------------------------------------


async def test_connection_carries_one_request_after_another() -> None:
    """A refusal between two streams leaves it usable, if the request was whole."""
    async with served() as pair, connected(pair) as wire:
        statuses = []
        for sent in (
            Sent.json("/stream", HELLO, pair.token()),
            Sent.json("/stream", HELLO, "X-Stream-Token: wrong"),
            Sent("GET", "/elsewhere"),
            Sent.json("/stream", b"{", pair.token()),
            Sent.json("/completion", {"prompt": "a"}, pair.token()),
        ):
            await wire.send(sent.raw())
            statuses.append((await wire.read_answer(sent.method)).status)
    assert statuses == [200, 401, 404, 400, 200]


async def test_pipelined_requests_are_answered_in_order_each_by_its_own_token() -> None:
    """One waits until the one before it was answered; the same token twice opens one stream."""
    async with served() as pair, connected(pair) as wire:
        one, other = pair.token(), pair.token()
        requests = [Sent.json("/stream", HELLO, token) for token in (one, one, other)]
        await wire.send(b"".join(sent.raw() for sent in requests))
        statuses = [(await wire.read_answer("POST")).status for _ in requests]
        assert statuses == [200, 401, 200]
        assert len(pair.upstream.arrived) == 2


async def test_client_that_waits_for_100_gets_it_before_its_token_is_looked_at() -> None:
    """Only then does its body come, which may be no good."""
    async with served() as pair, connected(pair) as wire:
        token = pair.token()
        sent = Sent.json("/stream", b"{", token)
        await wire.send(sent.head("Expect: 100-continue", "Content-Length: 1"))
        assert (await wire.read_some()).startswith(b"HTTP/1.1 100 ")
        await wire.send(b"{")
        assert (await wire.read_answer("POST")).status == 400
        await pair.arrives(Sent.json("/stream", HELLO, token))


@pytest.mark.parametrize("start", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00"])
async def test_other_protocol_is_refused_in_words(start: bytes) -> None:
    """Neither HTTP/2 nor, on a plain port, TLS is spoken."""
    async with served() as pair, connected(pair) as wire:
        await wire.send(start + b"\r\n\r\n")
        assert (await wire.read_answer()).status == 400


async def test_upgrade_is_not_spoken() -> None:
    """The request is answered as if nothing had been said of it."""
    async with served() as pair, connected(pair) as wire:
        fields = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA")
        await wire.send(Sent.json("/stream", HELLO, pair.token(), *fields).raw())
        assert (await wire.read_answer("POST")).status == 200
        assert "upgrade" not in pair.upstream.only.names


# -- TLS -------------------------------------------------------------------------------------------

CERTIFICATE: dict[str, Any] = {"certfile": TLS / "one.pem", "keyfile": TLS / "one.key"}
ENDLESS = "events=100000&pace_s=0.01"
STREAM = {**HELLO, "stream": True}


@asynccontextmanager
async def behind_tls() -> AsyncIterator[tuple[proxy.LlamaServer, proxy.ProxyServer]]:
    """Run a proxy with TLS before a llama-server that streams for as long as it is wanted."""
    with nothing_left():
        async with (
            fake_running(fake_engine()) as engine,
            proxy.open_proxy(engine, port=0, **CERTIFICATE) as server,
            leaves_nothing(server),
        ):
            yield engine, server


async def test_page_is_sent_to_the_fast_path_over_tls() -> None:
    """One that came by https may not ask by http; its token streams there, and whole."""
    async with behind_tls() as (_, server):
        sent = Sent("GET", "/api/inference/stream-url")
        found = json.loads((await ask(await tls_client(server.port), sent)).body)  # type: ignore[arg-type]
        port = fast_port(server)
        assert found["stream_url"] == f"https://localhost:{port}/stream"
        token = f"X-Stream-Token: {found['token']}"
        page = f"Origin: https://localhost:{server.port}"
        sent = Sent.json("/stream", STREAM, token, page)
        answer = await ask(await tls_client(port), sent)  # type: ignore[arg-type]
    assert (answer.status, answer.one("Access-Control-Allow-Origin")) == (200, page[8:])
    assert answer.body.count(b"data: ") == 7
    assert answer.body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("ends", ["lease", "revoked"])
async def test_stream_over_tls_ends_with_its_token(ends: str) -> None:
    """By a task of its own, for the pump writes no TLS: the slot is idle, the client is told."""
    async with behind_tls() as (engine, server):
        token = server.stream_tokens.issue(lease_s=0.4 if ends == "lease" else 60)
        stream = await tls_client(fast_port(server))
        async with stream:
            sent = Sent.json(f"/stream?{ENDLESS}", STREAM, f"X-Stream-Token: {token.token}")
            await stream.send_all(sent.raw("Connection: close"))
            received = b""
            while b'"content"' not in received:
                received += await stream.receive_some()
            assert len(server._backend.pump) == 0
            if ends == "revoked":
                server.stream_tokens.revoke(token.id)
                assert await idle_after_s(engine) < FREE_WITHIN_S
            with trio.fail_after(PATIENCE_S):
                while data := await stream.receive_some():
                    received += data
        error = last_error(received)
        words = "lease" if ends == "lease" else "revoked"
        assert (error["code"], words in str(error["message"])) == (401, True)
        assert received.endswith(CHUNKED_END)
        cause = EndCause.TOKEN_EXPIRED if ends == "lease" else EndCause.TOKEN_REVOKED
        ended = server._backend.exchanges.measures.exchanges
        assert ended["/v1/chat/completions", cause] == 1
