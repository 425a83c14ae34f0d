"""What Hypercorn would do to the promises, and that the main listener does not do it.

Each trap is sprung on two listeners that serve the same application: the guard, where nothing may
happen, and stock Hypercorn, where the test has to fail (a strict xfail), so that each trap is known
to be real. docs/decisions.md draws the conclusion.
"""

from __future__ import annotations

import logging
import re
import select
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import trio

import proxy
from proxy.core.framing import Limits
from proxy.http1.asgi import AsgiApp, Message, Receive, Send
from proxy.http1.connection import ConnectionLimits, ServerContext
from proxy.http1.guard import Guard
from proxy.runtime.listening import bind_sockets
from tests.conftest import Running
from tests.left_behind import Leftovers
from tests.promises.observe import until
from tests.promises.stock_hypercorn import STOP_GRACE_S, Listener, Serve, stock_hypercorn
from tests.promises.trap_inputs import (
    KILLING,
    WEBSOCKET,
    Recorder,
    brief_answer,
    endless_answer,
    get,
    http2,
    reading_answer,
    silent_answer,
    start,
    wait_disconnect,
    write,
)
from tests.promises.wire import PATIENCE_S, wire


class Trapped(AssertionError):
    """The trap is there: the only failure that is expected of stock Hypercorn."""


def expect(what: bool, otherwise: str) -> None:
    """Fail as trapped, with the reason, unless `what` is so."""
    if not what:
        raise Trapped(otherwise)


@asynccontextmanager
async def guard(app: AsgiApp, **limits: Any) -> AsyncIterator[Listener]:
    """Serve `app` by the main listener's guard while the block runs."""
    (sock,) = bind_sockets("127.0.0.1", 0)
    context = ServerContext(app, ConnectionLimits(Limits(), **limits))
    served = Guard(context, [sock], send_timeout_s=PATIENCE_S)

    async def stop() -> None:
        with trio.move_on_after(STOP_GRACE_S):
            await served.drain()
        served.abort()
        await served.drain()

    async with trio.open_nursery() as nursery:
        await nursery.start(served.run)
        yield Listener(sock.getsockname()[1], stop, PATIENCE_S)
        nursery.cancel_scope.cancel()


def on_both(**stock_settings: Any) -> pytest.MarkDecorator:
    """Run a test on the guard and, expected to be trapped, on stock Hypercorn with settings."""

    def stock(app: AsgiApp, **_: Any) -> Any:
        return stock_hypercorn(app, **stock_settings)

    trapped = pytest.RaisesGroup(Trapped, flatten_subgroups=True, allow_unwrapped=True)
    trap = pytest.mark.xfail(raises=trapped, strict=True, reason="the trap is real")
    return pytest.mark.parametrize(
        "serve", [pytest.param(guard, id="guard"), pytest.param(stock, id="stock", marks=trap)]
    )


# --- a client that leaves ---


@on_both()
@pytest.mark.parametrize("extra", [b"\r\n", get()], ids=["stray CRLF", "pipelined request"])
async def test_disconnect_behind_extra_bytes_is_seen(serve: Serve, extra: bytes) -> None:
    """An application that watches for it is told, whatever lies unread before the FIN."""
    app = Recorder(silent_answer)
    async with serve(app) as listener:
        async with wire(listener.port) as client:
            await client.send(get() + extra)
            await client.read_until(b"begun")
        seen = await listener.happens(app.ended.wait)
    expect(seen, "the client is gone, and the application waits")


async def test_log_follower_that_leaves_is_gone(running: Running) -> None:
    """Quart's views too learn of a client that leaves while they have nothing to send."""
    async with wire(running.port) as client:
        await client.get("/proxy/logs", "Accept: text/event-stream")
        await client.read_until(b"data:")
    await until(lambda: running.server.connections == 0)


async def test_log_follower_does_not_hold_the_shutdown(leftovers: Leftovers) -> None:
    """What is left after the drain is cut, whatever it waits for."""
    with trio.fail_after(PATIENCE_S):
        async with (
            proxy.open_llama_server() as engine,
            proxy.open_proxy(engine, port=0, drain_s=0.1) as server,
            wire(server.port) as client,
        ):
            await client.get("/proxy/logs", "Accept: text/event-stream")
            await client.read_until(b"data:")
            await server.drain()
            await client.read_to_end()


@on_both()
async def test_end_of_an_answer_is_no_disconnect(serve: Serve) -> None:
    """Nobody is told that a client is gone which is still there, inside the last `send` neither."""
    told: list[str] = []

    async def answer(scope: Message, receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                await wait_disconnect(receive)
                told.append("gone")

            nursery.start_soon(listen)
            await start(send, (b"Content-Length", b"2"))
            await write(send, b"ok", more=False)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    app = Recorder(answer)
    async with serve(app) as listener, wire(listener.port) as client:
        await client.send(get())
        await client.read_until(b"ok")
        await listener.happens(app.ended.wait)
    expect(told == [], "a client that has read its whole answer counts as gone")


async def test_exchange_whose_answer_was_read_is_finished(running: Running) -> None:
    """Also when its client closes with the last byte."""
    for _ in range(20):
        async with wire(running.port) as client:
            await client.get("/v1/models")
            await client.read_until(b"]}")
    async with wire(running.port) as client:
        await client.get("/proxy/metrics")
        metrics = await client.read_until(b"engine_restarts_total")
    assert b'exchanges_total{cause="finished",route="/v1/models"} 20.0' in metrics


# --- a client that does not read ---


@on_both()
async def test_cancelled_answer_ends_while_its_client_does_not_read(serve: Serve) -> None:
    """A write that waits for the client is no shield against cancellation."""
    cancelled = trio.CancelScope()

    async def answer(scope: Message, receive: Receive, send: Send) -> None:
        with cancelled:
            await endless_answer(scope, receive, send)

    app = Recorder(answer)
    async with serve(app) as listener, wire(listener.port, receive_buffer=4096) as client:
        await client.send(get())
        await client.read_until(b"xxx")
        await trio.testing.wait_all_tasks_blocked(0.05)
        cancelled.cancel()
        ended = await listener.happens(app.ended.wait)
    expect(ended, "a write holds the cancelled answer")


@on_both()
async def test_shutdown_ends_while_a_client_does_not_read(serve: Serve) -> None:
    """After the grace the connection is cut and its application is cancelled."""
    app = Recorder(endless_answer)
    async with serve(app) as listener, wire(listener.port, receive_buffer=4096) as client:
        await client.send(get())
        await client.read_until(b"xxx")
        await trio.testing.wait_all_tasks_blocked(0.05)
        stopped = await listener.happens(listener.stop)
    expect(stopped, "a client that does not read holds the shutdown")


# --- what kills the whole listener ---


async def is_answered(port: int) -> bool:
    """Tell whether a client that comes now gets its answer."""
    try:
        async with wire(port) as client:
            await client.send(get("/", "Connection: close"))
            return (await client.read_to_end()).endswith(b"ok")
    except (OSError, trio.BrokenResourceError):
        return False


@on_both()
@pytest.mark.parametrize("pieces", KILLING.values(), ids=KILLING.keys())
async def test_input_of_one_client_is_survived_by_the_others(
    serve: Serve, pieces: tuple[bytes, ...]
) -> None:
    """Whatever one connection sends, the next one is answered."""
    async with serve(Recorder(brief_answer)) as listener:
        async with wire(listener.port) as attacker:
            for piece in pieces:
                await attacker.send(piece)
                # The second piece has to find what the first one set off.
                with trio.move_on_after(0.1):
                    await attacker.read_to_end()
        answered = await is_answered(listener.port)
    expect(answered and not listener.death, "one client took the whole listener down")


@on_both()
@pytest.mark.parametrize(
    "opening",
    [http2(), get("/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: ")],
    ids=["preface", "h2c upgrade"],
)
async def test_http2_is_never_spoken(serve: Serve, opening: bytes) -> None:
    """Hypercorn's has no back-pressure, and no setting turns it off in clear text."""
    async with serve(Recorder(brief_answer)) as listener, wire(listener.port) as client:
        await client.send(opening)
        with trio.move_on_after(listener.patience_s):
            await client.read_until(b"\r\n")
    status = client.received.split(b"\r\n")[0]
    expect(status[:10] in (b"HTTP/1.1 2", b"HTTP/1.1 4", b"HTTP/1.1 5"), f"it says {status!r}")


@pytest.mark.parametrize("upgrade", [WEBSOCKET, ("Connection: Upgrade", "Upgrade: h2c")])
async def test_upgrade_is_ignored(upgrade: tuple[str, ...]) -> None:
    """RFC 9110 section 7.8 allows it: the answer is that of HTTP/1.1, without 101."""
    async with guard(Recorder(brief_answer)) as listener, wire(listener.port) as client:
        await client.send(get("/", *upgrade))
        assert (await client.read_until(b"ok")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_fault_in_one_connection_stays_in_it(caplog: pytest.LogCaptureFixture) -> None:
    """It loses its connection, we log why, and the next one is answered."""

    async def answer(scope: Message, receive: Receive, send: Send) -> None:
        if scope["path"] == "/fault":
            raise RuntimeError("a defect of ours")
        await brief_answer(scope, receive, send)

    async with guard(answer) as listener:
        async with wire(listener.port) as client:
            await client.send(get("/fault"))
            assert await client.read_to_end() == b""
        assert await is_answered(listener.port)
    assert caplog.text.count("RuntimeError: a defect of ours") == 1


async def test_client_that_is_gone_before_it_is_accepted_is_no_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its socket has no peer any more; nothing is logged as an error."""
    caplog.set_level(logging.DEBUG)
    async with guard(Recorder(brief_answer)) as listener:
        for sent in [b"", get()] * 5:
            sock = socket.create_connection(("127.0.0.1", listener.port))
            sock.send(sent)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        async with wire(listener.port) as client:
            await client.send(get())
            await client.read_until(b"ok")
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


# --- bodies, heads and time ---


@on_both()
async def test_answer_without_reading_the_upload_ends(serve: Serve) -> None:
    """Hypercorn's queue holds 10 messages; when it is full the last `send` waits for ever."""

    async def answer(scope: Message, receive: Receive, send: Send) -> None:
        # As an application that looks up who is asking, and refuses them.
        await trio.testing.wait_all_tasks_blocked(0.05)
        await brief_answer(scope, receive, send)

    app = Recorder(answer)
    chunks = [b"400\r\n%b\r\n" % (b"x" * 0x400)] * 64
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serve(app) as listener, wire(listener.port) as client:
        await client.send(head + b"".join(chunks))
        await client.read_until(b"ok")
        ended = await listener.happens(app.ended.wait)
    expect(ended, "the answer is sent, and its application sticks in `send`")


@on_both()
async def test_body_that_stops_coming_is_given_up(serve: Serve) -> None:
    """The client is told 408, and its connection is closed."""
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
    app = Recorder(reading_answer)
    async with serve(app, body_stall_s=0.1) as listener, wire(listener.port) as client:
        await client.send(head + b"0123456789")
        with trio.move_on_after(listener.patience_s):
            await client.read_until(b"\r\n")
    expect(client.received.startswith(b"HTTP/1.1 "), "the application waits for the rest for ever")


@on_both(read_timeout=0.2)
async def test_stream_outlives_every_limit_on_reading(serve: Serve) -> None:
    """A client that has sent its request has nothing more to say; that is no reason to cut it."""
    limit_s = 0.2

    async def answer(scope: Message, receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:

            async def leave() -> None:
                await wait_disconnect(receive)
                nursery.cancel_scope.cancel()

            nursery.start_soon(leave)
            await start(send)
            for _ in range(6):
                await write(send, b".")
                # The stream has to take its time: that is what the trap is about.
                await trio.sleep(limit_s / 2)
            await write(send, b"whole")
            nursery.cancel_scope.cancel()

    limits = {"head_s": limit_s, "body_stall_s": limit_s, "idle_s": limit_s}
    async with serve(Recorder(answer), **limits) as listener, wire(listener.port) as client:
        await client.send(get("/", "Connection: close"))
        with trio.move_on_after(listener.patience_s + 6 * limit_s):
            await client.read_to_end()
    expect(b"whole" in client.received, "a limit on reading cut a stream that was being sent")


@on_both()
@pytest.mark.parametrize("size", [20_000, 33_000])
async def test_limit_of_a_head_does_not_depend_on_packets(serve: Serve, size: int) -> None:
    """20 KB are accepted and 33 KB are refused, at once or in pieces."""
    head = get("/", f"X-Filling: {'x' * size}")
    statuses = []
    async with serve(Recorder(brief_answer)) as listener:
        for pieces in ([head], [head[:10_000], head[10_000:-2], head[-2:]]):
            async with wire(listener.port) as client:
                for piece in pieces:
                    await client.send(piece)
                    await trio.testing.wait_all_tasks_blocked(0.02)
                await client.read_until(b"\r\n")
            statuses.append(int(client.received[9:12]))
    expect(statuses == ([200, 200] if size < 32_768 else [431, 431]), f"it answers {statuses}")


@on_both()
async def test_burst_of_clients_is_connected_at_once(serve: Serve) -> None:
    """The listener's backlog has room for 128; a SYN that is lost costs its client a second."""
    burst = [socket.socket() for _ in range(128)]
    async with serve(Recorder(brief_answer)) as listener:
        # Without a checkpoint in between: nobody accepts meanwhile.
        for sock in burst:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", listener.port))
        poll = select.poll()
        for sock in burst:
            poll.register(sock, select.POLLOUT)
        connected = len(poll.poll(0))
        for sock in burst:
            sock.close()
    expect(connected == len(burst), f"{connected} of {len(burst)} are connected")


# --- the pin ---


def test_traps_are_those_of_the_pinned_hypercorn() -> None:
    """When the pin moves, run this file: what Hypercorn has mended fails here as XPASS.

    Nothing of ours imports it (Quart-Trio does, for its types), so nothing else can break.
    """
    assert version("hypercorn") == "0.18.0"
    ours = Path(proxy.__file__).parent.rglob("*.py")
    importing = re.compile(r"^\s*(from|import) hypercorn\b", re.MULTILINE)
    assert [path.name for path in ours if importing.search(path.read_text())] == []
