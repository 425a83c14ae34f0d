"""The client's socket, over real sockets: hang-ups, bounded writes, aborts."""

from __future__ import annotations

import errno
import select
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest
import trio
import trio.testing

from proxy.http1.transport import ClientTransport, HangupWatch, WriteStalled
from tests.left_behind import Leftovers

PATIENCE_S = 10.0
# More than all buffers of a loopback connection hold.
MUCH = bytes(16 * 1024 * 1024)


@pytest.fixture(autouse=True)
def leaves_nothing(leftovers: Leftovers) -> None:
    """Assert after each test that no descriptor is left."""


@contextmanager
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give an accepted socket, non-blocking, and its client."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    accepted.setblocking(False)
    with client, accepted:
        yield accepted, client


@asynccontextmanager
async def transports(
    send_timeout_s: float = PATIENCE_S,
) -> AsyncIterator[tuple[ClientTransport, socket.socket]]:
    """Give a watched transport and its client, a blocking socket."""
    hangups = HangupWatch()
    with trio.fail_after(PATIENCE_S), tcp_pair() as (accepted, client):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hangups.run)
            transport = ClientTransport(accepted, send_timeout_s=send_timeout_s, hangups=hangups)
            yield transport, client
            transport.close()
            nursery.cancel_scope.cancel()


def reset(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def is_reset(client: socket.socket) -> bool:
    """Read what is there; return whether it ends with RST rather than FIN."""
    client.settimeout(PATIENCE_S)
    try:
        while client.recv(1 << 20):
            pass
    except ConnectionResetError:
        return True
    return False


async def send_without_end(transport: ClientTransport) -> None:
    """Send until it fails."""
    while True:
        await transport.send_all(MUCH)


async def take_what_is_there(client: socket.socket) -> None:
    """Read as much as a few times its buffer, so that the other side can go on."""
    for _ in range(5):
        with suppress(BlockingIOError):
            while client.recv(1 << 20):
                pass
        await trio.testing.wait_all_tasks_blocked(0.002)


# -- hang-ups --------------------------------------------------------------------------------------

LEAVING: dict[str, Callable[[socket.socket], None]] = {
    "fin": socket.socket.close,
    "rst": reset,
    "half-close": lambda sock: sock.shutdown(socket.SHUT_WR),
}


@pytest.mark.parametrize("unread", [b"", b"x" * 100_000], ids=["nothing unread", "bytes unread"])
@pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING.keys())
async def test_hangup_is_told_once_whether_or_not_anybody_reads(
    leave: Callable[[socket.socket], None], unread: bytes
) -> None:
    """Bytes that wait to be read hide no FIN and no RST."""
    told = list[int]()
    async with transports() as (transport, client):
        heard = trio.Event()

        def note() -> None:
            told.append(1)
            heard.set()

        client.sendall(unread)
        transport.on_hangup(note)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert told == []
        leave(client)
        await heard.wait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert told == [1]


async def test_hangup_that_came_before_is_told_too() -> None:
    """A client may leave before anybody watches."""
    async with transports() as (transport, client):
        client.close()
        heard = trio.Event()
        transport.on_hangup(heard.set)
        await heard.wait()


async def test_hangup_of_a_connection_that_was_closed_is_not_told() -> None:
    """The watch forgets it with the close."""
    told = list[str]()
    async with transports() as (transport, client):
        transport.on_hangup(lambda: told.append("hung up"))
        client.close()
        transport.close()
        await trio.testing.wait_all_tasks_blocked(0.01)
    assert told == []


async def test_hangup_that_closes_another_of_the_same_batch_is_the_last_word() -> None:
    """The other's is not told any more: its owner has closed it."""
    told = list[str]()
    hangups = HangupWatch()
    with tcp_pair() as (one, one_client), tcp_pair() as (two, two_client):
        first, second = (
            ClientTransport(sock, send_timeout_s=1, hangups=hangups) for sock in (one, two)
        )

        def end(name: str) -> None:
            told.append(name)
            first.close()
            second.close()

        first.on_hangup(lambda: end("first"))
        second.on_hangup(lambda: end("second"))
        one_client.close()
        two_client.close()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hangups.run)
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
    assert len(told) == 1


async def test_watch_gives_its_epoll_back() -> None:
    """And says from then on that it cannot tell; forgetting and watching are harmless."""
    hangups = HangupWatch()
    before = hangups.available
    with trio.move_on_after(0):
        await hangups.run()
    assert (before, hangups.available) == (True, False)
    with tcp_pair() as (accepted, _):
        hangups.watch(accepted, lambda: None)
        hangups.forget(accepted)


async def test_watch_without_epoll_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the platform has none it runs and stays silent."""
    monkeypatch.setattr(sys, "platform", "darwin")
    hangups, told = HangupWatch(), list[str]()
    with tcp_pair() as (accepted, client):
        transport = ClientTransport(accepted, send_timeout_s=1, hangups=hangups)
        assert not transport.tells_hangup
        transport.on_hangup(lambda: told.append("hung up"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hangups.run)
            client.close()
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        transport.close()
    assert told == []


# -- reading ---------------------------------------------------------------------------------------


async def test_receive_returns_what_came_and_then_the_end() -> None:
    """Waiting when nothing is there; b"" at FIN."""
    async with transports() as (transport, client), trio.open_nursery() as nursery:

        async def read() -> None:
            assert await transport.receive_some(2) == b"ab"
            assert await transport.receive_some() == b"c"
            assert await transport.receive_some() == b""

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        client.sendall(b"abc")
        client.shutdown(socket.SHUT_WR)


async def test_receive_after_rst_is_broken() -> None:
    """Told apart from FIN."""
    async with transports() as (transport, client):
        reset(client)
        with pytest.raises(trio.BrokenResourceError):
            await transport.receive_some()


async def test_receive_that_is_cancelled_loses_nothing() -> None:
    """What comes later is still there."""
    async with transports() as (transport, client):
        with trio.move_on_after(0.01):
            await transport.receive_some()
        client.sendall(b"a")
        assert await transport.receive_some() == b"a"


async def test_close_wakes_who_reads() -> None:
    """With the error that says that it was our side."""
    async with transports() as (transport, _), trio.open_nursery() as nursery:

        async def read() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await transport.receive_some()

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        transport.close()


# -- writing ---------------------------------------------------------------------------------------


async def test_send_all_arrives_whole() -> None:
    """However slowly the client takes it, as long as it takes some."""
    async with transports() as (transport, client):
        received = bytearray()

        def take() -> None:
            while len(received) < len(MUCH):
                received.extend(client.recv(1 << 20))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, take)
            await transport.send_all(MUCH)
    assert received == MUCH


async def test_send_to_a_client_that_takes_nothing_stalls_and_resets_it() -> None:
    """After the send timeout: half a message cannot be taken back."""
    async with transports(send_timeout_s=0.05) as (transport, client):
        with pytest.raises(WriteStalled):
            await transport.send_all(MUCH)
        assert transport.closed
        assert is_reset(client)


async def test_send_timeout_begins_anew_with_every_byte_taken(
    mock_clock: trio.testing.MockClock,
) -> None:
    """A slow client is not a stalled one."""
    async with transports(send_timeout_s=1) as (transport, client):
        client.setblocking(False)
        stalled = trio.Event()

        async def send() -> None:
            with pytest.raises(WriteStalled):
                await send_without_end(transport)
            stalled.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for _ in range(3):
                await trio.testing.wait_all_tasks_blocked(0.01)
                mock_clock.jump(0.9)
                await take_what_is_there(client)
            assert not stalled.is_set()
            mock_clock.jump(1)
        assert is_reset(client)


async def test_send_that_is_cancelled_while_blocked_resets_the_client() -> None:
    """It must not take a half for a whole."""
    async with transports() as (transport, client):
        with trio.move_on_after(0.05) as scope:
            await transport.send_all(MUCH)
        assert scope.cancelled_caught
        assert transport.closed
        assert is_reset(client)


async def test_send_after_the_client_reset_is_broken() -> None:
    """As soon as the kernel knows."""
    async with transports() as (transport, client):
        reset(client)
        with pytest.raises(trio.BrokenResourceError):
            await send_without_end(transport)


async def test_abort_breaks_a_blocked_send() -> None:
    """From another task; the client sees RST."""
    async with transports() as (transport, client):
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await transport.send_all(MUCH)

            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked(0.01)
            transport.abort()
            transport.abort()
        assert is_reset(client)


async def test_close_delivers_what_was_sent() -> None:
    """An orderly end: FIN behind the last byte; twice is harmless."""
    async with transports() as (transport, client):
        await transport.send_all(b"last words")
        await transport.aclose()
        await transport.aclose()
        assert client.recv(100) == b"last words"
        assert not is_reset(client)


async def test_send_eof_leaves_reading_open() -> None:
    """The client sees the end, and may still send."""
    async with transports() as (transport, client):
        await transport.send_eof()
        assert client.recv(1) == b""
        client.sendall(b"still here")
        assert await transport.receive_some() == b"still here"


async def test_send_eof_to_a_client_that_reset_is_broken() -> None:
    """There is nobody to tell."""
    async with transports() as (transport, client):
        reset(client)
        await trio.lowlevel.wait_readable(transport.socket)
        with pytest.raises(trio.BrokenResourceError):
            await transport.send_eof()


async def test_wait_send_all_might_not_block_waits_for_room() -> None:
    """TLS asks for it."""
    async with transports() as (transport, client):
        await transport.wait_send_all_might_not_block()
        while select.select([], [transport.socket], [], 0)[1]:
            transport.socket.send(MUCH)
        with trio.move_on_after(0.02) as scope:
            await transport.wait_send_all_might_not_block()
        assert scope.cancelled_caught
        client.setblocking(False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(transport.wait_send_all_might_not_block)
            for _ in range(200):
                try:
                    client.recv(1 << 20)
                except BlockingIOError:
                    break


USES: dict[str, Callable[[ClientTransport], object]] = {
    "receive": lambda transport: transport.receive_some(),
    "send": lambda transport: transport.send_all(b"x"),
    "eof": lambda transport: transport.send_eof(),
    "wait": lambda transport: transport.wait_send_all_might_not_block(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
async def test_use_after_close_says_so(use: Callable[[ClientTransport], object]) -> None:
    """Never an error of the system's: its descriptor may be another's by now."""
    async with transports() as (transport, _):
        transport.close()
        found = use(transport)
        with pytest.raises(trio.ClosedResourceError):
            await found  # type: ignore[misc]


class _DisconnectedSocket(socket.socket):
    """Refuses options as macOS does for a socket whose peer has reset it."""

    def setsockopt(self, *_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")


async def test_abort_of_a_socket_that_takes_no_options_closes_it() -> None:
    """As macOS does so for a connection that is gone: it has to be closed all the same."""
    ours, theirs = socket.socketpair()
    odd, hangups = _DisconnectedSocket(fileno=ours.detach()), HangupWatch()
    with theirs:
        transport = ClientTransport(odd, send_timeout_s=1, hangups=hangups)
        transport.abort()
        transport.abort()
        assert theirs.recv(1) == b""
    with trio.move_on_after(0):
        await hangups.run()


async def test_addresses_are_the_clients_and_ours() -> None:
    """Host and port of either."""
    async with transports() as (transport, client):
        assert transport.addresses() == (client.getsockname(), client.getpeername())


async def test_addresses_of_a_client_that_reset_are_broken() -> None:
    """The kernel has forgotten them; that is no defect of ours to be logged."""
    async with transports() as (transport, client):
        reset(client)
        await trio.lowlevel.wait_readable(transport.socket)
        with pytest.raises(trio.BrokenResourceError):
            transport.addresses()
