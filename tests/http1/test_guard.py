"""The accept loop, the set of connections, and how draining ends."""

from __future__ import annotations

import errno
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing

from proxy.core.framing import Limits
from proxy.http1 import guard as guard_module
from proxy.http1.asgi import Message, Receive, Send
from proxy.http1.connection import ConnectionLimits, ServerContext
from proxy.http1.guard import Guard
from tests.http1.guarded import Endless, echo, guarded, respond
from tests.left_behind import Leftovers
from tests.promises.wire import wire

GET = b"GET /a HTTP/1.1\r\nHost: localhost\r\n\r\n"
TWO_S = 2.0


@pytest.fixture(autouse=True)
def leaves_nothing(leftovers: Leftovers) -> None:
    """Assert after each test that no descriptor is left."""


async def settled() -> None:
    """Wait until what was sent has been handled."""
    await trio.testing.wait_all_tasks_blocked(0.02)


async def test_guard_serves_every_listening_socket() -> None:
    """IPv4 and IPv6, say; here two ports."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    for sock in sockets:
        sock.setblocking(False)
    ports = [sock.getsockname()[1] for sock in sockets]
    context = ServerContext(echo, ConnectionLimits(Limits()))
    guard = Guard(context, sockets, send_timeout_s=1)
    with trio.fail_after(TWO_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(guard.run)
            for port in ports:
                async with wire(port) as client:
                    await client.send(GET)
                    await client.read_until(b"GET /a ")
            nursery.cancel_scope.cancel()


async def test_connections_are_counted_while_they_last() -> None:
    """A client that leaves is not counted any more."""
    async with guarded(echo) as server:
        async with wire(server.port), wire(server.port):
            await settled()
            assert server.guard.connections == 2
        await settled()
        assert server.guard.connections == 0


async def test_connection_beyond_the_bound_is_closed_as_it_comes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Those that are served go on, and when one ends there is room again."""
    async with guarded(echo, max_connections=1) as server:
        async with wire(server.port) as served:
            await settled()
            async with wire(server.port) as refused:
                assert await refused.read_to_end() == b""
            await served.send(GET)
            await served.read_until(b"GET /a ")
        await settled()
        async with wire(server.port) as next_one:
            await next_one.send(GET)
            await next_one.read_until(b"GET /a ")
    assert "too many connections" in caplog.text


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Let this process open no more descriptors."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_accepting_waits_while_there_are_no_descriptors(
    mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It neither ends nor spins, and goes on when there are some again."""
    async with guarded(echo) as server:
        with socket.socket() as client:
            client.setblocking(False)
            with no_more_descriptors():
                assert client.connect_ex(("127.0.0.1", server.port)) in (0, errno.EINPROGRESS)
                await settled()
            assert [record.getMessage() for record in caplog.records] == [
                "cannot accept a connection: Too many open files"
            ]
            mock_clock.jump(guard_module._EXHAUSTED_PAUSE_S)
            await settled()
            assert server.guard.connections == 1
        await settled()


class _OddListener(socket.socket):
    """A listening socket whose first accept fails with the error of one connection."""

    refusal: OSError | None = None

    def accept(self) -> tuple[socket.socket, object]:
        if self.refusal is not None:
            refusal, self.refusal = self.refusal, None
            raise refusal
        return super().accept()


@pytest.mark.parametrize(
    "refusal",
    [BlockingIOError(), OSError(errno.EPROTO, "Protocol error")],
    ids=["nobody there", "EPROTO"],
)
async def test_accept_that_fails_for_one_connection_goes_on(refusal: OSError) -> None:
    """accept(2): errors of the connection that was being accepted are not the listener's."""
    plain = socket.create_server(("127.0.0.1", 0))
    plain.setblocking(False)
    odd = _OddListener(fileno=plain.detach())
    odd.refusal = refusal
    port = odd.getsockname()[1]
    guard = Guard(ServerContext(echo, ConnectionLimits(Limits())), [odd], send_timeout_s=1)
    with trio.fail_after(TWO_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(guard.run)
            async with wire(port) as client:
                await client.send(GET)
                await client.read_until(b"GET /a ")
            nursery.cancel_scope.cancel()


# -- the end ---------------------------------------------------------------------------------------


async def test_drain_closes_idle_connections_at_once() -> None:
    """Those that were never used, and those between two requests."""
    async with guarded(echo) as server, wire(server.port) as fresh, wire(server.port) as used:
        await used.send(GET)
        await used.read_until(b"GET /a ")
        await settled()
        with trio.fail_after(TWO_S):
            await server.guard.drain()
        assert await fresh.read_to_end() == b""
        assert (await used.read_to_end()).endswith(b"GET /a ")
        assert server.guard.connections == 0


async def test_drain_lets_a_request_finish_and_closes_then() -> None:
    """The response says that it is the last; a request behind it is not served."""
    release, seen = trio.Event(), list[str]()

    async def app(scope: Message, _receive: Receive, send: Send) -> None:
        seen.append(scope["path"])
        await release.wait()
        await respond(send, b"done")

    async with guarded(app) as server, wire(server.port) as client:
        await client.send(GET + GET)
        await settled()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.guard.drain)
            await settled()
            assert server.guard.connections == 1
            release.set()
        received = await client.read_to_end()
        assert b"\r\nconnection: close" in received.lower()
        assert received.endswith(b"done")
        assert seen == ["/a"]


async def test_drain_lets_a_head_that_has_begun_come() -> None:
    """Half a request has been sent in good faith."""
    async with guarded(echo) as server, wire(server.port) as client:
        await client.send(GET[:9])
        await settled()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.guard.drain)
            await settled()
            await client.send(GET[9:])
        assert (await client.read_to_end()).endswith(b"GET /a ")


async def test_drain_closes_the_listeners() -> None:
    """Nobody can connect any more."""
    async with guarded(echo) as server:
        await server.guard.drain()
        await settled()
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", server.port)


async def test_drain_that_is_cancelled_goes_on() -> None:
    """Only the wait ends; a busy connection stays until it is aborted."""
    app = Endless()
    async with guarded(app) as server, wire(server.port) as client:
        await client.send(GET)
        await client.read_until(b"first")
        with trio.move_on_after(0.02) as patience:
            await server.guard.drain()
        assert patience.cancelled_caught
        assert server.guard.connections == 1
        server.guard.abort()
        await server.guard.drain()
        assert app.causes == ["client_disconnected"]
        assert b"\r\n0\r\n\r\n" not in await client.read_to_end()


async def test_drain_wakes_everybody_who_waits_for_it() -> None:
    """Whoever asked first is not forgotten."""
    app = Endless()
    async with guarded(app) as server, wire(server.port) as client:
        await client.send(GET)
        await client.read_until(b"first")
        with trio.fail_after(TWO_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.guard.drain)
                nursery.start_soon(server.guard.drain)
                await settled()
                client.fin()


async def test_guard_that_is_cancelled_resets_every_connection() -> None:
    """Also one that does not read, whose write is blocked; every socket is closed."""
    started = trio.Event()

    async def flood(_scope: Message, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        started.set()
        while True:
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})

    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    port = sock.getsockname()[1]
    guard = Guard(ServerContext(flood, ConnectionLimits(Limits())), [sock], send_timeout_s=60)
    with trio.fail_after(TWO_S):
        async with wire(port, receive_buffer=4096) as stuck:
            async with trio.open_nursery() as nursery:
                await nursery.start(guard.run)
                await stuck.send(GET)
                await started.wait()
                await settled()
                nursery.cancel_scope.cancel()
            assert guard.connections == 0
            assert sock.fileno() == -1
