"""A client's connection, from its first byte to its end, over real sockets."""

from __future__ import annotations

import json
import logging
import socket
import struct
from dataclasses import replace

import pytest
import trio
import trio.testing

from proxy.core.errors import HttpError
from proxy.core.framing import Limits
from proxy.http1 import connection as connection_module
from proxy.http1.asgi import Message, Receive, Send
from proxy.http1.connection import ConnectionLimits
from tests.http1.guarded import (
    Endless,
    echo,
    guarded,
    read_body,
    respond,
    server_tls,
    tls_client,
)
from tests.left_behind import Leftovers
from tests.promises.wire import LEAVING, Leave, Wire, wire

LIMITS = ConnectionLimits(Limits(max_body=1000))
GET = b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"

each_platform = pytest.mark.parametrize("epoll", [True, False], ids=["epoll", "no epoll"])


@pytest.fixture(autouse=True)
def leaves_nothing(leftovers: Leftovers) -> None:
    """Assert after each test that no descriptor is left."""


def refusal(received: bytes) -> tuple[int, str]:
    """Return code and type of the one error reply that closes a connection."""
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"\r\nConnection: close" in head
    assert head.lower().count(b"\r\nx-request-id: ") == 1
    error = json.loads(body)["error"]
    assert head.startswith(b"HTTP/1.1 %d " % error["code"])
    return error["code"], error["type"]


# -- one request after another ---------------------------------------------------------------------


@each_platform
async def test_connection_carries_requests_one_after_another(epoll: bool) -> None:
    """With and without bodies, in either framing; it stays open between."""
    async with guarded(echo, epoll=epoll) as server, wire(server.port) as client:
        await client.send(GET)
        await client.read_until(b"GET /a ")
        await client.send(POST + b"abcd")
        await client.read_until(b"POST /b abcd")
        await client.send(
            b"PUT /c HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        await client.send(b"3\r\nxyz\r\n2\r\n12\r\n0\r\n\r\n")
        await client.read_until(b"PUT /c xyz12")
        await client.send(GET)
        await client.read_until(b"xyz12HTTP/1.1 200 OK")
        assert server.guard.connections == 1


@each_platform
async def test_pipelined_requests_are_held_and_answered_in_order(epoll: bool) -> None:
    """The second reaches the application only when the first is answered."""
    seen, release = list[str](), trio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.append(scope["path"])
        if scope["path"] == "/a":
            await release.wait()
        await respond(send, scope["path"].encode())

    async with guarded(app, epoll=epoll) as server, wire(server.port) as client:
        await client.send(GET + GET.replace(b"/a", b"/second"))
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert seen == ["/a"]
        release.set()
        received = await client.read_until(b"/second")
        assert received.index(b"/a") < received.index(b"/second")


@pytest.mark.parametrize(
    "request_",
    [GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), b"GET /a HTTP/1.0\r\n\r\n"],
    ids=["Connection: close", "HTTP/1.0"],
)
async def test_request_that_ends_its_connection_is_answered_and_it_closes(request_: bytes) -> None:
    """In order: FIN behind the answer."""
    async with guarded(echo) as server, wire(server.port) as client:
        await client.send(request_)
        assert (await client.read_to_end()).endswith(b"GET /a ")
        assert server.guard.connections == 0


async def test_body_is_read_as_the_application_asks_for_it() -> None:
    """A client that sends faster waits: nothing queues up here."""
    release = trio.Event()

    async def app(_scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        await release.wait()
        body = await read_body(receive)
        await respond(send, b"%d" % len(body or b""))

    size = 32 * 1024 * 1024
    limits = ConnectionLimits(Limits())
    async with guarded(app, limits) as server, wire(server.port) as client:
        head = POST.replace(b"Length: 4", b"Length: %d" % size)
        async with trio.open_nursery() as nursery:
            sent = trio.Event()

            async def upload() -> None:
                await client.send(head + bytes(size))
                sent.set()

            nursery.start_soon(upload)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert not sent.is_set()
            release.set()
            await client.read_until(b"200 OK")
        await client.read_until(b"\r\n\r\n33")


async def test_application_sees_the_request_as_it_came() -> None:
    """Target, header spelling, version, addresses and scheme."""
    scopes = list[Message]()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await respond(send, b"")

    async with guarded(app) as server, wire(server.port) as client:
        await client.send(b"GET /a%20b?c=%41 HTTP/1.1\r\nHost: localhost\r\nX-SpelleD: 1\r\n\r\n")
        await client.read_until(b"\r\n\r\n")
    (scope,) = scopes
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == (
        "/a b",
        b"/a%20b",
        b"c=%41",
    )
    assert (b"X-SpelleD", b"1") in scope["headers"]
    assert (scope["http_version"], scope["scheme"]) == ("1.1", "http")
    assert (scope["client"][0], scope["server"]) == ("127.0.0.1", ("127.0.0.1", server.port))


# -- hang-ups --------------------------------------------------------------------------------------


@each_platform
@pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING.keys())
async def test_client_that_leaves_is_told_to_the_application(leave: Leave, epoll: bool) -> None:
    """At once and once, while it waits for something else; the connection is gone then."""
    app = Endless()
    async with guarded(app, epoll=epoll) as server, wire(server.port) as client:
        await client.send(GET)
        await client.read_until(b"first")
        leave(client)
        await app.left.wait()
        assert app.causes == ["client_disconnected"]
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert server.guard.connections == 0


async def test_client_that_pipelines_and_leaves_is_told_to_the_application() -> None:
    """Its unread bytes hide nothing."""
    app = Endless()
    async with guarded(app) as server, wire(server.port) as client:
        await client.send(GET + GET * 1000)
        await client.read_until(b"first")
        client.fin()
        await app.left.wait()
    assert app.causes == ["client_disconnected"]


async def test_client_that_leaves_in_its_upload_is_told_to_the_application() -> None:
    """As a message too, for who reads the body."""
    bodies = list[bytes | None]()
    done = trio.Event()

    async def app(_scope: Message, receive: Receive, send: Send) -> None:
        bodies.append(await read_body(receive))
        done.set()

    async with guarded(app) as server, wire(server.port) as client:
        await client.send(POST + b"ab")
        await trio.testing.wait_all_tasks_blocked(0.01)
        client.fin()
        await done.wait()
    assert bodies == [None]


@pytest.mark.parametrize("attempt", range(8))
async def test_client_that_ends_its_head_and_leaves_at_once_is_told(attempt: int) -> None:
    """The rest of the head and the FIN arrive together, in whichever order they are handled."""
    app = Endless()
    async with guarded(app) as server, wire(server.port) as client:
        await client.send(GET[:10])
        await trio.testing.wait_all_tasks_blocked(0.01)
        client._stream.socket._sock.send(GET[10:])  # type: ignore[attr-defined]
        client.half_close()
        with trio.fail_after(2):
            await app.left.wait()
    assert app.causes == ["client_disconnected"]


async def test_client_that_leaves_between_requests_closes_quietly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """There is nobody to tell and nothing to log."""
    async with guarded(echo) as server, wire(server.port) as client:
        await client.send(GET)
        await client.read_until(b"GET /a ")
        client.half_close()
        assert await client.read_to_end() == client.received
        assert server.guard.connections == 0
    assert caplog.records == []


async def test_client_that_resets_before_it_is_served_is_no_defect(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A port scanner's way; the kernel has forgotten its address by then."""
    app = Endless()
    async with guarded(app) as server:
        # Blocking, so that all of it has happened before the guard's task runs.
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(GET)
            linger = struct.pack("ii", 1, 0)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert server.guard.connections == 0
    assert caplog.records == []


async def test_listener_that_was_taken_back_is_not_told() -> None:
    """Whoever has ended does not hear of it; taking it back twice is harmless."""
    told = list[str]()
    connections = list[connection_module.ClientConnection]()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        connection = scope["state"]["connection"]
        connections.append(connection)
        take_back = connection.on_gone(lambda cause: told.append("first"))
        take_back()
        take_back()
        await respond(send, b"done")

    async with guarded(app) as server, wire(server.port) as client:
        await client.send(GET)
        await client.read_until(b"done")
        client.fin()
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert told == []
        # A client that is gone already is told of at once.
        connections[0].on_gone(lambda cause: told.append(str(cause)))
    assert told == ["client_disconnected"]


async def test_application_that_does_not_end_after_its_client_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has a few seconds; then nothing of the connection is left."""
    monkeypatch.setattr(connection_module, "_REAP_AFTER_S", 0.05)
    ended = trio.Event()

    async def app(_scope: Message, _receive: Receive, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"", "more_body": True})
            await trio.sleep_forever()
        finally:
            ended.set()

    async with guarded(app) as server, wire(server.port) as client:
        await client.send(GET)
        await client.read_until(b"\r\n\r\n")
        client.fin()
        await ended.wait()


# -- slow clients ----------------------------------------------------------------------------------


async def test_client_that_takes_nothing_is_too_slow() -> None:
    """The application is told so, and the connection is reset."""
    causes = list[str]()
    left = trio.Event()

    async def app(scope: Message, _receive: Receive, send: Send) -> None:
        scope["state"]["connection"].on_gone(lambda cause: causes.append(str(cause)))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not causes:
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
        left.set()

    async with (
        guarded(app, send_timeout_s=0.1) as server,
        wire(server.port, receive_buffer=4096) as client,
    ):
        await client.send(GET)
        await left.wait()
    assert causes == ["client_too_slow"]


async def test_head_that_comes_too_slowly_is_refused_whatever_trickles_in(
    mock_clock: trio.testing.MockClock,
) -> None:
    """The time is for the whole head: a byte now and then buys no more of it."""
    limits = replace(LIMITS, head_s=1)
    async with guarded(echo, limits) as server, wire(server.port) as client:
        await client.send(b"GET /a HTTP/1.1\r\nX: ")
        for _ in range(3):
            await trio.testing.wait_all_tasks_blocked(0.01)
            mock_clock.jump(0.4)
            await client.send(b"x")
        await client.read_until(b"}}")
        assert refusal(client.received) == (408, "timeout_error")


async def test_second_head_has_its_own_time(mock_clock: trio.testing.MockClock) -> None:
    """The first request's head does not count against it."""
    limits = replace(LIMITS, head_s=1)
    async with guarded(echo, limits) as server, wire(server.port) as client:
        for _ in range(3):
            await client.send(GET[:10])
            await trio.testing.wait_all_tasks_blocked(0.01)
            mock_clock.jump(0.9)
            await client.send(GET[10:])
            await client.read_until(b"GET /a ")
            client.received = b""


async def test_body_that_stops_coming_is_refused() -> None:
    """The application gives the answer, or the guard does; the connection closes."""
    limits = replace(LIMITS, body_stall_s=0.05)
    async with guarded(told_of_refusals, limits) as server, wire(server.port) as client:
        await client.send(POST + b"ab")
        assert (await client.read_until(b"stopped coming")).startswith(b"HTTP/1.1 408")


async def test_idle_connection_is_closed_quietly() -> None:
    """Without an answer to nothing."""
    limits = replace(LIMITS, idle_s=0.05)
    async with guarded(echo, limits) as server, wire(server.port) as client:
        await client.send(GET)
        received = await client.read_to_end()
        assert received.count(b"HTTP/1.1") == 1


# -- refusals --------------------------------------------------------------------------------------


async def told_of_refusals(_scope: Message, receive: Receive, send: Send) -> None:
    """Answer with the refusal that reading the body raised."""
    try:
        await read_body(receive)
    except HttpError as error:
        await respond(send, error.message.encode(), status=error.status)


async def test_malformed_head_is_refused_and_nothing_after_it_is_read() -> None:
    """One answer; where the next request begins cannot be known."""
    async with guarded(echo) as server, wire(server.port) as client:
        await client.send(b"GET /a HTTP/1.1\r\nHost : x\r\n\r\n" + GET)
        assert refusal(await client.read_to_end()) == (400, "invalid_request_error")


async def test_malformed_head_after_a_good_request_is_refused() -> None:
    """The first is answered first."""
    async with guarded(echo) as server, wire(server.port) as client:
        await client.send(GET + b"GET\r\n\r\n")
        received = await client.read_to_end()
        first, _, second = received.partition(b"GET /a ")
        assert first.startswith(b"HTTP/1.1 200 OK")
        assert refusal(second) == (400, "invalid_request_error")


BAD_BODIES = {
    "too large": (POST.replace(b": 4", b": 1001"), 413),
    "chunks too large": (
        POST.replace(b"Content-Length: 4", b"Transfer-Encoding: chunked")
        + b"3e9\r\n"
        + bytes(1001),
        413,
    ),
    "bad chunk": (
        POST.replace(b"Content-Length: 4", b"Transfer-Encoding: chunked") + b"zz\r\n",
        400,
    ),
}


@each_platform
@pytest.mark.parametrize(("data", "status"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
async def test_body_that_is_refused_closes_the_connection(
    data: bytes, status: int, epoll: bool
) -> None:
    """Whoever has to say it, the client is told once."""
    async with (
        guarded(told_of_refusals, LIMITS, epoll=epoll) as server,
        wire(server.port) as client,
    ):
        await client.send(data)
        received = await client.read_to_end()
        assert received.startswith(b"HTTP/1.1 %d " % status)
        assert received.count(b"HTTP/1.1 ") == 1


@each_platform
async def test_early_answer_reaches_a_client_that_is_still_sending(epoll: bool) -> None:
    """We read on for a moment: a reset would take the answer with it."""

    async def app(_scope: Message, _receive: Receive, send: Send) -> None:
        await respond(send, b"no, thank you", status=413)

    size = 8 * 1024 * 1024
    limits = ConnectionLimits(Limits())
    async with guarded(app, limits, epoll=epoll) as server, wire(server.port) as client:
        await client.send(POST.replace(b"Length: 4", b"Length: %d" % size) + bytes(size))
        received = await client.read_to_end()
        assert received.endswith(b"no, thank you")
        assert b"\r\nconnection: close" in received.lower()


async def test_early_answer_to_a_client_that_never_stops_sending_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The moment is bounded in time and in bytes."""
    monkeypatch.setattr(connection_module, "_LINGER_BYTES", 1000)

    async def app(_scope: Message, _receive: Receive, send: Send) -> None:
        await respond(send, b"no", status=413)

    limits = ConnectionLimits(Limits())
    async with guarded(app, limits) as server, wire(server.port) as client:
        await client.send(POST.replace(b": 4", b": 1000000000"))

        async def upload_without_end() -> None:
            while True:
                await client.send(bytes(65536))

        with pytest.raises(trio.BrokenResourceError):
            await upload_without_end()


async def test_request_whose_body_was_not_wanted_but_is_here_keeps_the_connection() -> None:
    """A small body that came with its head costs nothing."""

    async def app(scope: Message, _receive: Receive, send: Send) -> None:
        await respond(send, scope["path"].encode())

    async with guarded(app) as server, wire(server.port) as client:
        await client.send(POST + b"abcd")
        await client.read_until(b"/b")
        await client.send(GET)
        await client.read_until(b"/bHTTP/1.1 200 OK")


# -- defects ---------------------------------------------------------------------------------------


async def test_exception_of_an_application_stays_in_its_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged with its traceback, its connection is broken, another goes on."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["path"] == "/a":
            raise ValueError("a defect")
        await echo(scope, receive, send)

    async with guarded(app) as server, wire(server.port) as other, wire(server.port) as client:
        await client.send(GET)
        assert await client.read_to_end() == b""
        await other.send(POST + b"abcd")
        await other.read_until(b"abcd")
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.levelno == logging.ERROR


async def test_answer_that_an_application_leaves_unfinished_breaks_its_connection() -> None:
    """A half answer never looks like a whole one, and nothing follows it."""

    async def app(_scope: Message, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    async with guarded(app) as server, wire(server.port) as client:
        await client.send(GET + GET)
        received = await client.read_to_end()
        assert b"4\r\nhalf\r\n" in received
        assert b"\r\n0\r\n\r\n" not in received
        assert received.count(b"HTTP/1.1") == 1


# -- TLS -------------------------------------------------------------------------------------------


@each_platform
async def test_tls_connection_carries_requests_and_ends_in_order(epoll: bool) -> None:
    """The application sees `https`; the end is TLS's own, then FIN."""
    schemes = list[str]()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        schemes.append(scope["scheme"])
        await echo(scope, receive, send)

    async with guarded(app, tls=server_tls(), epoll=epoll) as server:
        client = Wire(await tls_client(server.port))  # type: ignore[arg-type]
        await client.send(GET)
        await client.read_until(b"GET /a ")
        await client.send(POST + b"abcd")
        await client.read_until(b"POST /b abcd")
        await client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        await client.read_to_end()
        await client._stream.aclose()
    assert schemes == ["https"] * 3


@each_platform
async def test_tls_client_that_leaves_is_told_to_the_application(epoll: bool) -> None:
    """Its FIN is TCP's: it is told beneath the encryption."""
    app = Endless()
    async with guarded(app, tls=server_tls(), epoll=epoll) as server:
        stream = await tls_client(server.port)
        client = Wire(stream)  # type: ignore[arg-type]
        await client.send(GET)
        await client.read_until(b"first")
        stream.transport_stream.socket.close()
        await app.left.wait()
    assert app.causes == ["client_disconnected"]


async def test_tls_handshake_that_does_not_come_is_given_up() -> None:
    """After its own time."""
    limits = replace(LIMITS, handshake_s=0.05)
    async with guarded(echo, limits, tls=server_tls()) as server, wire(server.port) as client:
        assert await client.read_to_end() == b""
        assert server.guard.connections == 0


async def test_plain_http_to_a_tls_port_is_closed_quietly(caplog: pytest.LogCaptureFixture) -> None:
    """No defect of ours."""
    async with guarded(echo, tls=server_tls()) as server, wire(server.port) as client:
        await client.send(GET)
        await client.read_to_end()
        assert server.guard.connections == 0
    assert caplog.records == []


async def test_tls_refusal_can_be_read() -> None:
    """A malformed head is answered over TLS as well."""
    async with guarded(echo, tls=server_tls()) as server:
        stream = await tls_client(server.port)
        client = Wire(stream)  # type: ignore[arg-type]
        await client.send(b"GET\r\n\r\n")
        await client.read_until(b"}}")
        assert refusal(client.received) == (400, "invalid_request_error")
        stream.transport_stream.socket.close()
