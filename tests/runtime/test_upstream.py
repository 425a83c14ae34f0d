"""One exchange with an upstream, over real sockets, whatever the upstream does."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from proxy.core.errors import UpstreamFailed
from proxy.runtime.address import Address
from proxy.runtime.response_head import ResponseHead
from proxy.runtime.upstream import (
    BROKEN,
    MALFORMED,
    MAX_RESPONSE_HEAD,
    UNREACHABLE,
    UpstreamConnection,
    open_upstream,
)
from tests.fakes.scripted_server import Handler, answering, read_head, scripted_server
from tests.left_behind import Leftovers

PATIENCE_S = 10.0
TLS = Path(__file__).parents[1] / "config" / "tls"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
def leaves_nothing(leftovers: Leftovers) -> None:
    """Assert after each test that no descriptor is left."""


@asynccontextmanager
async def connected(
    handler: Handler, *, method: bytes = b"GET", send: bool = True
) -> AsyncIterator[UpstreamConnection]:
    """Connect to a server that does what `handler` says, and send it a request."""
    with trio.fail_after(PATIENCE_S):
        async with scripted_server(handler) as address:
            connection = await open_upstream(address)
            try:
                if send:
                    await connection.send_head(method, b"/x", [(b"Host", b"h")])
                    await connection.send_end()
                yield connection
            finally:
                connection.close()


async def read_all(connection: UpstreamConnection) -> bytes:
    """Read a body to its proper end."""
    body = b""
    while data := await connection.receive_data():
        body += data
    return body


# -- bodies ----------------------------------------------------------------------------------------

WHOLE = {
    "chunked": CHUNKED + b"3\r\nabc\r\n3;x=y\r\ndef\r\n0\r\nTrailer: t\r\n\r\n",
    "length": OK + b"Content-Length: 6\r\n\r\nabcdef",
    "to the close": OK + b"Connection: close\r\n\r\nabcdef",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nabcdef",
    "after 1xx": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    + OK
    + b"Content-Length: 6\r\n\r\nabcdef",
}


@pytest.mark.parametrize("data", WHOLE.values(), ids=WHOLE.keys())
@pytest.mark.parametrize("cut", [False, True], ids=["at once", "byte by byte"])
async def test_body_in_any_framing_arrives_whole(data: bytes, cut: bool) -> None:
    """However it is framed and split, the bytes are the same, then comes the end."""
    pieces = [data[i : i + 1] for i in range(len(data))] if cut else [data]
    async with connected(answering(*pieces)) as connection:
        assert (await connection.receive_head()).status == 200
        assert await read_all(connection) == b"abcdef"
        assert await connection.receive_data() == b""


async def test_body_is_handed_on_as_it_comes() -> None:
    """The first event is not held back for the second."""
    async with connected(answering(CHUNKED + b"3\r\nabc\r\n", stay=True)) as connection:
        await connection.receive_head()
        assert await connection.receive_data() == b"abc"


async def test_chunks_that_came_together_are_handed_on_together() -> None:
    """One read, one write."""
    async with connected(answering(CHUNKED + b"1\r\na\r\n1\r\nb\r\n", stay=True)) as connection:
        await connection.receive_head()
        assert await connection.receive_data() == b"ab"


async def test_head_request_has_no_body() -> None:
    """The length is that of what GET would have got."""
    answer = OK + b"Content-Length: 6\r\n\r\n"
    async with connected(answering(answer, stay=True), method=b"HEAD") as connection:
        head = await connection.receive_head()
        assert head.headers == ((b"Content-Length", b"6"),)
        assert await connection.receive_data() == b""


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
async def test_status_without_body_ends_with_its_head(status: bytes) -> None:
    """RFC 9112 section 6.3."""
    answer = b"HTTP/1.1 " + status + b"\r\n\r\n"
    async with connected(answering(answer, stay=True)) as connection:
        await connection.receive_head()
        assert await connection.receive_data() == b""


async def test_head_keeps_spelling_order_and_reason() -> None:
    """What llama-server said is what the client gets."""
    answer = b"HTTP/1.1 299 So So\r\nX-B: 1\r\nx-a: 2\r\nX-B:  3 \r\nContent-Length: 0\r\n\r\n"
    async with connected(answering(answer)) as connection:
        assert await connection.receive_head() == ResponseHead(
            299,
            b"So So",
            ((b"X-B", b"1"), (b"x-a", b"2"), (b"X-B", b"3"), (b"Content-Length", b"0")),
        )


async def test_bytes_after_the_answer_are_nobodys() -> None:
    """One connection carries one answer."""
    data = OK + b"Content-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb"
    async with connected(answering(data)) as connection:
        await connection.receive_head()
        assert await read_all(connection) == b"a"


# -- the request -----------------------------------------------------------------------------------


async def test_request_is_sent_as_it_was_given() -> None:
    """Method, target, fields and body."""
    arrived = bytearray()

    async def keep(stream: trio.abc.Stream) -> None:
        arrived.extend(await read_head(stream))
        while not arrived.endswith(b"0\r\n\r\n"):
            arrived.extend(await stream.receive_some())
        await stream.send_all(OK + b"Content-Length: 0\r\n\r\n")

    async with connected(keep, send=False) as connection:
        fields = [(b"Host", b"h"), (b"X-Spelled", b"a"), (b"Transfer-Encoding", b"chunked")]
        await connection.send_head(b"PATCH", b"/a%2Fb?c", fields)
        await connection.send_data(b"abc")
        await connection.send_end()
        await connection.receive_head()
    assert bytes(arrived) == (
        b"PATCH /a%2Fb?c HTTP/1.1\r\nHost: h\r\nX-Spelled: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n0\r\n\r\n"
    )


async def test_answer_before_the_whole_request_is_read() -> None:
    """An upstream may refuse early; its answer counts though the body was not sent."""

    async def refuse(stream: trio.abc.Stream) -> None:
        await read_head(stream)
        await stream.send_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await trio.sleep_forever()

    async with connected(refuse, send=False) as connection:
        await connection.send_head(b"POST", b"/", [(b"Host", b"h"), (b"Content-Length", b"9")])
        assert (await connection.receive_head()).status == 413
        assert await connection.receive_data() == b""


async def test_request_to_an_upstream_that_stopped_reading_fails() -> None:
    """A reset while we send is a broken exchange, in our words."""
    async with connected(answering(reset=True), send=False) as connection:
        fields = [(b"Host", b"h"), (b"Content-Length", b"1000000000")]
        await connection.send_head(b"POST", b"/", fields)

        async def send_without_end() -> None:
            while True:
                await connection.send_data(bytes(65536))

        with pytest.raises(UpstreamFailed, match=BROKEN):
            await send_without_end()


# -- ends that are none ----------------------------------------------------------------------------

EARLY_ENDS = {
    "before the head": b"",
    "in the head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "after 1xx": b"HTTP/1.1 100 Continue\r\n\r\n",
}


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("data", EARLY_ENDS.values(), ids=EARLY_ENDS.keys())
async def test_connection_that_ends_before_a_head_fails(data: bytes, reset: bool) -> None:
    """Half a head is no answer."""
    async with connected(answering(data, reset=reset)) as connection:
        with pytest.raises(UpstreamFailed, match=BROKEN):
            await connection.receive_head()


CUT_BODIES = {
    "length": OK + b"Content-Length: 9\r\n\r\nabc",
    "between chunks": CHUNKED + b"3\r\nabc\r\n",
    "mid-chunk": CHUNKED + b"9\r\nabc",
    "in the last chunk": CHUNKED + b"3\r\nabc\r\n0\r\n",
}


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("data", CUT_BODIES.values(), ids=CUT_BODIES.keys())
async def test_body_that_is_cut_is_handed_on_and_then_fails(data: bytes, reset: bool) -> None:
    """What came is the client's; the end is not a proper one, however often it is asked for."""
    async with connected(answering(data, reset=reset)) as connection:
        await connection.receive_head()
        assert await connection.receive_data() == b"abc"
        for _ in range(2):
            with pytest.raises(UpstreamFailed, match=BROKEN):
                await connection.receive_data()


async def test_body_to_the_close_that_is_reset_fails() -> None:
    """There the close is the end; a reset is none."""
    data = OK + b"Connection: close\r\n\r\nabc"
    async with connected(answering(data, reset=True)) as connection:
        await connection.receive_head()
        assert await connection.receive_data() == b"abc"
        with pytest.raises(UpstreamFailed, match=BROKEN):
            await connection.receive_data()


GARBAGE = {
    "no HTTP": b"SSH-2.0-OpenSSH_9\r\n\r\n",
    "a broken field": OK + b"no colon\r\n\r\n",
    "an endless head": OK + b"X: " + b"x" * 2 * MAX_RESPONSE_HEAD,
    "an upgrade that nobody asked for": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE.keys())
async def test_answer_that_is_not_http_fails(data: bytes) -> None:
    """Told apart from a connection that ended."""
    async with connected(answering(data, stay=True)) as connection:
        with pytest.raises(UpstreamFailed, match=MALFORMED):
            await connection.receive_head()


async def test_chunk_that_is_none_is_malformed_after_what_was_good() -> None:
    """The bytes before it are handed on first."""
    data = CHUNKED + b"3\r\nabc\r\nzz\r\n"
    async with connected(answering(data, stay=True)) as connection:
        await connection.receive_head()
        assert await connection.receive_data() == b"abc"
        with pytest.raises(UpstreamFailed, match=MALFORMED):
            await connection.receive_data()


# -- closing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("reading", ["head", "body"])
async def test_close_wakes_who_reads(reading: str) -> None:
    """Whoever waits gets an error in our words, not a hang."""
    pieces = [CHUNKED] if reading == "body" else []
    async with connected(answering(*pieces, stay=True)) as connection:
        if reading == "body":
            await connection.receive_head()

        async def read() -> None:
            wait = connection.receive_data if reading == "body" else connection.receive_head
            with pytest.raises(UpstreamFailed):
                await wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked(0.01)
            connection.close()
            connection.close()


async def test_use_after_close_fails() -> None:
    """In our words, too."""
    async with connected(answering(stay=True), send=False) as connection:
        connection.close()
        with pytest.raises(UpstreamFailed, match=BROKEN):
            await connection.send_head(b"GET", b"/", [(b"Host", b"h")])
        with pytest.raises(UpstreamFailed, match=BROKEN):
            await connection.receive_head()


async def test_close_is_seen_by_the_upstream_at_once() -> None:
    """It is what frees llama-server's slot."""
    seen = trio.Event()

    async def wait_end(stream: trio.abc.Stream) -> None:
        await read_head(stream)
        assert await stream.receive_some() == b""
        seen.set()

    async with connected(wait_end) as connection:
        connection.close()
        await seen.wait()


# -- connecting ------------------------------------------------------------------------------------


async def test_open_upstream_unix_socket() -> None:
    """The private socket is how we reach a llama-server of ours."""
    with tempfile.TemporaryDirectory() as folder, trio.fail_after(PATIENCE_S):
        path = f"{folder}/s.sock"
        sock = trio.socket.socket(trio.socket.AF_UNIX)
        await sock.bind(path)
        sock.listen()
        listener = trio.SocketListener(sock)

        async def serve(stream: trio.SocketStream) -> None:
            async with stream:
                await answering(OK + b"Content-Length: 1\r\n\r\na")(stream)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, serve, [listener])
            connection = await open_upstream(Address(uds=path))
            await connection.send_head(b"GET", b"/", [(b"Host", b"h")])
            await connection.send_end()
            await connection.receive_head()
            assert await read_all(connection) == b"a"
            connection.close()
            nursery.cancel_scope.cancel()


NOBODY = {
    "no socket": Address(uds="/no/such/place/s.sock"),
    "nobody listens": Address(host="127.0.0.1", port=1),
    "no such name": Address(host="name.invalid", port=80),
}


@pytest.mark.parametrize("address", NOBODY.values(), ids=NOBODY.keys())
async def test_open_upstream_where_nobody_is_fails(address: Address) -> None:
    """One error for all of them, without the system's words."""
    with trio.fail_after(PATIENCE_S), pytest.raises(UpstreamFailed, match=UNREACHABLE):
        await open_upstream(address)


# -- TLS -------------------------------------------------------------------------------------------


def server_tls() -> ssl.SSLContext:
    """Return the context of a server that is called `localhost`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(TLS / "one.pem", TLS / "one.key")
    return context


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the tests' certificate as an operator would trust a private one."""
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "one.pem"))


async def test_tls_upstream_answers_whole(trusted: None) -> None:
    """The same exchange, over TLS; closing it ends the upstream's connection."""
    ended = trio.Event()

    async def serve(stream: trio.abc.Stream) -> None:
        await answering(CHUNKED + b"3\r\nabc\r\n", b"0\r\n\r\n")(stream)
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        ended.set()

    with trio.fail_after(PATIENCE_S):
        async with scripted_server(serve, tls=server_tls()) as address:
            connection = await open_upstream(address)
            await connection.send_head(b"GET", b"/", [(b"Host", b"h")])
            await connection.send_end()
            assert (await connection.receive_head()).status == 200
            assert await read_all(connection) == b"abc"
            connection.close()
            await ended.wait()


async def test_tls_upstream_nobody_vouches_for_fails() -> None:
    """An unknown certificate is no llama-server of ours; the connection is closed."""

    async def handshake(stream: trio.abc.Stream) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()

    with trio.fail_after(PATIENCE_S):
        async with scripted_server(handshake, tls=server_tls()) as address:
            with pytest.raises(UpstreamFailed, match=UNREACHABLE):
                await open_upstream(address)


async def test_tls_upstream_of_another_name_fails(trusted: None) -> None:
    """A certificate vouches for its own name alone."""

    async def handshake(stream: trio.abc.Stream) -> None:
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()

    with trio.fail_after(PATIENCE_S):
        async with scripted_server(handshake, tls=server_tls()) as address:
            elsewhere = Address(host="127.0.0.1", port=address.port, tls=True)
            with pytest.raises(UpstreamFailed, match=UNREACHABLE):
                await open_upstream(elsewhere)


async def test_tls_handshake_that_is_cancelled_leaves_nothing_open() -> None:
    """An upstream that accepts and says nothing is given up; `leftovers` looks."""
    async with scripted_server(answering(stay=True)) as address:
        silent = Address(host="127.0.0.1", port=address.port, tls=True)
        with trio.move_on_after(0.05) as patience:
            await open_upstream(silent)
        assert patience.cancelled_caught
