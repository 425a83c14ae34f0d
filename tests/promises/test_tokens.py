"""P6: a one-time token opens one stream, whoever comes first; a broken request does not use it up.

Over real sockets; llama-server is the fake one, or a server that keeps what arrives. How a stream
ends with its token: `test_leases`.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

import proxy
from proxy.core.access import AccessPolicy
from proxy.core.framing import Limits
from proxy.core.keyring import Keyring
from proxy.fastpath.listener import make_fast_guard
from proxy.http1.connection import ConnectionLimits
from proxy.relay.relay import Relay
from proxy.relay.settings import RelaySettings
from proxy.runtime.outbound import ControlClient
from tests.fakes.engines import fake_engine, nothing_left
from tests.fakes.engines import running as fake_running
from tests.fakes.staged_engine import external_engine
from tests.fastpath.served import HELLO, Served, served
from tests.promises.listeners import FAST, fast_port
from tests.promises.observe import leaves_nothing, until, wait_busy
from tests.promises.wire import PATIENCE_S, wire
from tests.web.wire import Sent, Wire, ask_port

ATTEMPTS = 1000
PAGE = "https://page.example"


def refusals(caplog: pytest.LogCaptureFixture) -> Counter[str]:
    """Return why tokens were refused, and how often."""
    lines = [line for line in caplog.records if line.name == "proxy.stream_tokens"]
    return Counter(line.getMessage().removeprefix("a stream token was refused: ") for line in lines)


# --- once ---


@contextmanager
def room_for(descriptors: int) -> Iterator[None]:
    """Let this process have so many descriptors; some systems allow 256 at first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, descriptors), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def race(port: int, sent: Sent, attempts: int) -> Counter[int]:
    """Send a request on so many connections, all but the last byte of each before any last one."""
    raw = sent.raw("Connection: close")
    statuses: Counter[int] = Counter()
    ready = trio.Event()
    waiting = 0

    async def attempt() -> None:
        nonlocal waiting
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            client = Wire(stream)
            await client.send(raw[:-1])
            waiting += 1
            if waiting == attempts:
                ready.set()
            await ready.wait()
            await client.send(raw[-1:])
            statuses[(await client.read_answer("POST")).status] += 1

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            for _ in range(attempts):
                nursery.start_soon(attempt)
    return statuses


async def test_of_a_thousand_simultaneous_attempts_one_wins(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One stream, one request at llama-server; all others are told what a made-up token is."""
    caplog.set_level(logging.INFO, "proxy.stream_tokens")
    # Both ends of every connection are in this process.
    with room_for(2 * ATTEMPTS + 200), nothing_left():
        async with (
            fake_running(fake_engine()) as engine,
            proxy.open_proxy(engine, port=0) as server,
            leaves_nothing(server),
        ):
            token = server.stream_tokens.issue()
            sent = Sent.json("/stream?events=1", HELLO, f"X-Stream-Token: {token.token}")
            statuses = await race(fast_port(server), sent, ATTEMPTS)
            state = await ControlClient(engine.address, engine.api_key).get_json("/fake/state")
    assert statuses == {200: 1, 401: ATTEMPTS - 1}
    assert refusals(caplog) == {"used": ATTEMPTS - 1}
    assert isinstance(state, dict)
    asked = [target for method, target in state["requests"] if method == "POST"]
    assert asked == ["/v1/chat/completions?events=1"]


async def test_each_of_several_tokens_wins_once() -> None:
    """Who loses one race has no part in another."""
    async with served() as pair, trio.open_nursery() as nursery:
        results: list[Counter[int]] = []

        async def race_for(token: str) -> None:
            results.append(await race(pair.fast_port, Sent.json("/stream", HELLO, token), 20))

        for _ in range(20):
            nursery.start_soon(race_for, pair.token())
    assert results == [Counter({401: 19, 200: 1})] * 20
    assert len(pair.upstream.arrived) == 20


# --- what does not use it up ---


@dataclass(frozen=True, slots=True)
class Broken:
    """A request that is refused before its token is looked at, or that the token is not for.

    Attributes:
        status: What it gets.
        body: Its body.
        path: Its path.
        method: Its method.
        host: Its `Host`.
        fields: More header lines.
        raw: Makes the bytes of it, where it is no proper request; takes the token's header line.
        bounds: What its token is made with.
    """

    status: int
    body: bytes = json.dumps(HELLO).encode()
    path: str = "/stream"
    method: str = "POST"
    host: str = "localhost"
    fields: tuple[str, ...] = ()
    raw: Callable[[str], bytes] | None = None
    bounds: dict[str, Any] = field(default_factory=dict)

    def bytes(self, token: str) -> bytes:
        """Return what goes on the wire."""
        if self.raw is not None:
            return self.raw(token)
        sent = Sent(self.method, self.path, (*self.fields, token), self.body, host=self.host)
        return sent.raw()


def head(*lines: str) -> Callable[[str], bytes]:
    """Return what makes a head of these lines and the token's."""
    return lambda token: "\r\n".join([*lines, token, "", ""]).encode()


def chunked(body: bytes) -> Callable[[str], bytes]:
    """Return what makes a request with this body, which is said to be chunked."""
    lines = ("POST /stream HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked")
    return lambda token: head(*lines)(token) + body


IMAGE = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/"}}
BROKEN = {
    "cut JSON": Broken(400, b'{"messages":'),
    "list": Broken(400, b"[]"),
    "no body": Broken(400, b""),
    "bytes": Broken(400, b"\xff\xfe\x00"),
    "nested": Broken(400, b"[" * 100_000),
    "foreign image": Broken(
        400, json.dumps({"messages": [{"role": "user", "content": [IMAGE]}]}).encode()
    ),
    "too large": Broken(413, b" " * 0x100001),
    "too large, chunked": Broken(413, raw=chunked(b"100001\r\n" + b" " * 0x100001)),
    "bad chunk": Broken(400, raw=chunked(b"xyz\r\n")),
    "path": Broken(404, path="/v1/models"),
    "method": Broken(404, method="PUT"),
    "host": Broken(421, host="evil.example"),
    "bad host": Broken(400, host="a b"),
    "page": Broken(403, fields=("Origin: https://evil.example",)),
    "no origin": Broken(401, bounds={"origin": PAGE}),
    "origin": Broken(401, fields=(f"Origin: {PAGE}",), bounds={"origin": "https://other.example"}),
    "route": Broken(401, bounds={"paths": frozenset({"/completion"})}),
    "blank before colon": Broken(400, raw=head("POST /stream HTTP/1.1", "Host : localhost")),
    "two lengths": Broken(
        400,
        raw=head(
            "POST /stream HTTP/1.1", "Host: localhost", "Content-Length: 1", "Content-Length: 2"
        ),
    ),
    "length and chunks": Broken(
        400,
        raw=head(
            *("POST /stream HTTP/1.1", "Host: localhost"),
            *("Content-Length: 1", "Transfer-Encoding: chunked"),
        ),
    ),
    "no host": Broken(400, raw=head("POST /stream HTTP/1.1", "Content-Length: 2")),
    "large head": Broken(431, fields=("X: " + "x" * 100_000,)),
    "many fields": Broken(431, fields=("X: x",) * 500),
    "long target": Broken(431, path="/stream?" + "x" * 20_000),
}


def good(token: str, bounds: dict[str, Any]) -> Sent:
    """Return the request that the token is for."""
    origin = bounds.get("origin")
    path = "/completion" if "paths" in bounds else "/stream"
    fields = (token,) if origin is None else (token, f"Origin: {origin}")
    return Sent.json(path, HELLO, *fields)


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_broken_request_does_not_burn_its_token(broken: Broken) -> None:
    """It is refused for what it is, reaches nobody, and the token opens a stream afterwards."""
    pages = [PAGE, "https://other.example"]
    async with served(cors_origins=pages, max_body_mib=1) as pair:
        token = pair.token(**broken.bounds)
        async with await trio.open_tcp_stream("127.0.0.1", pair.fast_port) as stream:
            client = Wire(stream)
            with trio.fail_after(PATIENCE_S):
                await client.send(broken.bytes(token))
                assert (await client.read_answer("POST")).status == broken.status
        assert pair.upstream.arrived == []
        await pair.arrives(good(token, broken.bounds))


Leave = Callable[[Served, str], Awaitable[None]]


async def leave_in_the_head(pair: Served, token: str) -> None:
    """Send half a head."""
    async with wire(pair.fast_port) as client:
        await client.send(f"POST /stream HTTP/1.1\r\n{token}\r\n".encode())


async def leave_in_the_body(pair: Served, token: str) -> None:
    """Send half a body, and wait until somebody waits for the rest."""
    async with wire(pair.fast_port) as client:
        sent = Sent.json("/stream", HELLO, token)
        await client.send(sent.raw()[:-1])
        await until(lambda: pair.server.in_flight == 1)


@pytest.mark.parametrize("leave", [leave_in_the_head, leave_in_the_body])
async def test_client_that_leaves_before_its_request_is_whole_keeps_its_token(leave: Leave) -> None:
    """A page that is loaded again, say."""
    async with served() as pair:
        token = pair.token()
        await leave(pair, token)
        await until(lambda: pair.server.connections == 0)
        await pair.arrives(Sent.json("/stream", HELLO, token))


@asynccontextmanager
async def impatient(pair: Served) -> AsyncIterator[int]:
    """Serve the fast path with little patience for who sends; yields its port."""
    server = pair.server
    (sock,) = proxy.bind_sockets("127.0.0.1", 0)
    guard = make_fast_guard(
        Relay(server._backend, RelaySettings()),
        server.stream_tokens,
        AccessPolicy(Keyring(), takes_stream_tokens=True),
        ConnectionLimits(Limits(max_body=1000), head_s=0.1, body_stall_s=0.1),
        [sock],
        send_timeout_s=PATIENCE_S,
        tls=None,
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(guard.run)
        yield sock.getsockname()[1]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("sent_until", [-1, 60], ids=["body", "head"])
async def test_client_that_is_too_slow_keeps_its_token(sent_until: int) -> None:
    """Its request is given up with 408, before the token is looked at."""
    async with served() as pair, impatient(pair) as port, wire(port) as client:
        token = pair.token()
        await client.send(Sent.json("/stream", HELLO, token).raw()[:sent_until])
        assert b"HTTP/1.1 408 " in await client.read_to_end()
        await pair.arrives(Sent.json("/stream", HELLO, token))


# --- what does ---


async def attempt(server: proxy.ProxyServer, token: proxy.StreamToken) -> int:
    """Use a token at the fast listener; return the status."""
    sent = Sent.json("/stream", HELLO, f"X-Stream-Token: {token.token}")
    return (await ask_port(fast_port(server), sent)).status


async def test_token_is_used_before_llama_server_is_dialled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where nobody answers, the one attempt is spent: else two could be made of it."""
    caplog.set_level(logging.INFO, "proxy.stream_tokens")
    with socket.socket() as nobody:
        # Bound, and not listening: a connection is refused.
        nobody.bind(("127.0.0.1", 0))
        engine = external_engine(f"http://127.0.0.1:{nobody.getsockname()[1]}")
        async with proxy.open_proxy(engine, port=0) as server, leaves_nothing(server):
            token = server.stream_tokens.issue()
            assert await attempt(server, token) == 502
            assert (server.stream_tokens.outstanding, server.stream_tokens.running) == (0, 0)
            assert await attempt(server, token) == 401
    assert refusals(caplog) == {"used": 1}


async def test_token_of_who_waits_in_the_queue_is_used() -> None:
    """And of who is refused by a full one: what it opened was the way to the gate."""
    async with (
        fake_running(fake_engine("--fake-slots", "1")) as engine,
        proxy.open_proxy(engine, port=0, max_queue=1) as server,
        FAST.wire(server) as busy,
        wire(fast_port(server)) as queued,
    ):
        await busy.post("/stream?first_s=600", HELLO)
        await wait_busy(engine, 1)
        token, other = server.stream_tokens.issue(), server.stream_tokens.issue()
        await queued.post("/stream", HELLO, f"X-Stream-Token: {token.token}")
        await until(lambda: server.in_flight == 2)
        assert await attempt(server, token) == 401
        assert await attempt(server, other) == 429
        assert await attempt(server, other) == 401


async def test_answer_that_is_an_error_has_used_the_token() -> None:
    """llama-server was asked, whatever it says."""
    async with served() as pair:
        pair.upstream.answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}"
        sent = Sent.json("/stream", HELLO, pair.token())
        assert (await pair.ask(sent)).status == 400
        assert (await pair.ask(sent)).status == 401
        assert len(pair.upstream.arrived) == 1


# --- a restart ---


async def test_restart_of_llama_server_voids_unused_tokens(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They were made for a llama-server that is gone; one that is made now is good."""
    caplog.set_level(logging.INFO, "proxy.stream_tokens")
    async with fake_running(fake_engine()) as engine, proxy.open_proxy(engine, port=0) as server:
        old = server.stream_tokens.issue()
        os.kill(engine.pid or 0, signal.SIGKILL)
        with trio.fail_after(PATIENCE_S):
            await engine.wait_exited(1)
            await engine.wait_ready()
        assert await attempt(server, old) == 401
        assert await attempt(server, server.stream_tokens.issue()) == 200
    assert refusals(caplog) == {"engine_restarted": 1}
