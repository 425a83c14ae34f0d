"""The front door: identity, access, who of us answers, and the one boundary for errors."""

from __future__ import annotations

import logging
import re
from email.utils import parsedate_to_datetime

import pytest

from proxy.core.access import AccessPolicy, ApiKey
from proxy.core.errors import InvalidRequest, QueueFull
from proxy.core.keyring import Keyring
from proxy.http1.asgi import AsgiApp, Message, Receive, Send
from proxy.relay.front_door import FrontDoor
from tests.http1.asgi_client import Field, Reply, ask, scope_of
from tests.http1.guarded import guarded, respond
from tests.promises.wire import wire

KEY = ApiKey.from_text("k", name="user")
PAGE = b"https://page.example"
HOST: Field = (b"Host", b"localhost")


def named(name: str) -> AsgiApp:
    """Return an application that answers its name."""

    async def app(_scope: Message, _receive: Receive, send: Send) -> None:
        await respond(send, name.encode())

    return app


def door(
    relay: AsgiApp | None = None, *, keys: tuple[ApiKey, ...] = (), origins: tuple[bytes, ...] = ()
) -> FrontDoor:
    """Return a front door before applications that answer their names."""
    policy = AccessPolicy(
        keyring=Keyring(keys), cors_origins=frozenset(each.decode() for each in origins)
    )
    answers = relay or named("relay")
    return FrontDoor(policy, lambda _: answers)


# -- identity --------------------------------------------------------------------------------------


async def test_request_id_of_the_client_is_kept() -> None:
    """In the reply, and for whoever answers."""
    scope = scope_of(headers=(HOST, (b"x-REQUEST-id", b"mine-1")))
    assert (await ask(door(), scope)).one(b"X-Request-Id") == b"mine-1"
    assert scope["state"]["request_id"] == "mine-1"


@pytest.mark.parametrize("bad", [b"", b"a b", b"x" * 129, b"caf\xc3\xa9"])
async def test_request_id_that_is_none_is_made_anew(bad: bytes) -> None:
    """What is not visible ASCII of a sane length never reaches a log or a header."""
    reply = await ask(door(), scope_of(headers=(HOST, (b"X-Request-Id", bad))))
    assert re.fullmatch(rb"[0-9a-f]{32}", reply.one(b"X-Request-Id"))


async def test_request_ids_that_are_made_differ() -> None:
    """Each request has its own."""
    first, second = await ask(door(), scope_of()), await ask(door(), scope_of())
    assert first.one(b"X-Request-Id") != second.one(b"X-Request-Id")


async def test_reply_has_date_and_server_once() -> None:
    """Ours, where whoever answers has none."""
    reply = await ask(door(), scope_of())
    assert reply.one(b"Server").startswith(b"trio-llama-proxy/")
    assert parsedate_to_datetime(reply.one(b"Date").decode()).tzinfo is not None


async def test_reply_that_has_date_and_server_keeps_them() -> None:
    """llama-server's pass."""

    async def app(_scope: Message, _receive: Receive, send: Send) -> None:
        headers = [(b"server", b"llama.cpp"), (b"DATE", b"then"), (b"x-request-id", b"theirs")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    reply = await ask(door(app), scope_of())
    assert reply.one(b"Server") == b"llama.cpp"
    assert reply.one(b"Date") == b"then"
    assert reply.one(b"X-Request-Id") == b"theirs"


# -- access ----------------------------------------------------------------------------------------


async def test_refused_request_reaches_nobody() -> None:
    """The error has our shape, the challenge and the request id."""
    reply = await ask(door(keys=(KEY,)), scope_of(path="/v1/models"))
    assert (reply.status, reply.error["type"]) == (401, "authentication_error")
    assert reply.one(b"WWW-Authenticate") == b"Bearer"
    assert reply.error["request_id"] == reply.one(b"X-Request-Id").decode()
    assert reply.one(b"Content-Length") == b"%d" % len(reply.body)
    assert reply.complete


async def test_admitted_request_carries_its_principal() -> None:
    """Whoever answers knows who asks."""
    scope = scope_of(headers=(HOST, (b"Authorization", b"Bearer k")))
    await ask(door(keys=(KEY,)), scope)
    assert scope["state"]["principal"] == KEY


async def test_cors_headers_are_on_every_reply_to_a_listed_page() -> None:
    """On answers, on refusals, on errors and on defects: a page that cannot read one is lost."""

    async def broken(_scope: Message, _receive: Receive, _send: Send) -> None:
        raise ValueError("a defect")

    async def full(_scope: Message, _receive: Receive, _send: Send) -> None:
        raise QueueFull("full")

    page = (HOST, (b"Origin", PAGE))
    for app, status in (
        (door(origins=(PAGE,)), 200),
        (door(origins=(PAGE,), keys=(KEY,)), 401),
        (door(full, origins=(PAGE,)), 429),
        (door(broken, origins=(PAGE,)), 500),
    ):
        reply = await ask(app, scope_of(path="/v1/models", headers=page))
        assert reply.status == status
        assert reply.one(b"Access-Control-Allow-Origin") == PAGE


async def test_foreign_page_is_refused_without_cors_headers() -> None:
    """It may not even read the refusal."""
    reply = await ask(door(), scope_of(headers=(HOST, (b"Origin", b"https://evil.example"))))
    assert reply.status == 403
    assert reply.all(b"Access-Control-Allow-Origin") == []


async def test_preflight_of_a_listed_page_is_answered_here() -> None:
    """204, complete, with identity; nobody behind us is asked."""
    headers = (HOST, (b"Origin", PAGE), (b"Access-Control-Request-Method", b"POST"))
    reply = await ask(door(origins=(PAGE,)), scope_of("OPTIONS", "/v1/models", headers))
    assert (reply.status, reply.body, reply.complete) == (204, b"", True)
    assert reply.one(b"Access-Control-Allow-Origin") == PAGE
    assert reply.all(b"X-Request-Id")


async def test_options_of_the_whole_server_is_answered_here() -> None:
    """RFC 9110 section 9.3.7: it is about us, not about a resource of llama-server's."""
    reply = await ask(door(), scope_of("OPTIONS", "*"))
    assert (reply.status, reply.body) == (204, b"")
    assert b"OPTIONS" in reply.one(b"Allow")


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("grouped", [False, True], ids=["alone", "in a group"])
async def test_error_of_ours_becomes_its_reply(grouped: bool) -> None:
    """Also when a nursery raised it."""

    async def app(_scope: Message, _receive: Receive, _send: Send) -> None:
        error = InvalidRequest("No good.")
        raise ExceptionGroup("nursery", [ExceptionGroup("inner", [error])]) if grouped else error

    reply = await ask(door(app), scope_of())
    assert (reply.status, reply.error["message"]) == (400, "No good.")


async def test_error_of_ours_after_the_start_leaves_the_reply_unfinished() -> None:
    """The connection ends it then, so that a half never looks whole."""

    async def app(_scope: Message, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise InvalidRequest("too late")

    reply = await ask(door(app), scope_of())
    assert (reply.status, reply.body, reply.complete) == (200, b"", False)


async def test_defect_gives_500_and_tells_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the traceback and the request id, the client neither text nor type of it."""

    async def app(_scope: Message, _receive: Receive, _send: Send) -> None:
        raise KeyError("/secret/path")

    reply = await ask(door(app), scope_of(headers=(HOST, (b"X-Request-Id", b"r7"))))
    assert (reply.status, reply.error["type"]) == (500, "server_error")
    assert b"secret" not in reply.body
    assert b"KeyError" not in reply.body
    (record,) = caplog.records
    assert (record.levelno, record.__dict__["request_id"]) == (logging.ERROR, "r7")
    assert record.exc_info is not None
    assert "/secret/path" in caplog.text


async def test_defect_after_the_start_is_raised() -> None:
    """For the connection, which breaks."""

    async def app(_scope: Message, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise KeyError("late")

    reply = Reply()
    with pytest.raises(ExceptionGroup):
        await ask(door(app), scope_of(), reply)
    assert not reply.complete


async def test_defect_after_the_start_breaks_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The client never sees a proper end."""

    async def app(_scope: Message, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise KeyError("late")

    async with guarded(door(app)) as server, wire(server.port) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = await client.read_to_end()
    assert not received.endswith(b"0\r\n\r\n")
    assert "KeyError" in caplog.text


@pytest.mark.parametrize("path", ["/refused", "/v1/models"])
async def test_head_request_gets_the_head_alone(path: str) -> None:
    """Of an answer and of an error: the length is that of what GET gets; the connection is kept."""

    async def app(scope: Message, _receive: Receive, send: Send) -> None:
        if scope["path"] == "/refused":
            raise InvalidRequest("No good.")
        await respond(send, b"a body")

    async with guarded(door(app)) as server, wire(server.port) as client:
        await client.send(b"HEAD %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())
        received = await client.read_until(b"\r\n\r\n")
        assert b"\r\nContent-Length: " in received
        await client.send(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = await client.read_until(b"a body")
        assert received.count(b"HTTP/1.1 ") == 2
        assert received.count(b"\r\n\r\nHTTP/1.1 200 OK") == 1
