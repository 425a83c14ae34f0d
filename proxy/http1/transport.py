"""The client's socket: reads, bounded writes, an abort that breaks them, and notice of a hang-up.

Owns one accepted TCP socket each (`ClientTransport`), and the one watch over all of them
(`HangupWatch`). It is a Trio stream, so TLS is put on top of it and not beneath. It knows nothing
of HTTP.

A hang-up (FIN or RST) is told by the kernel through a private epoll with `EPOLLRDHUP`, whether or
not anybody reads: unread bytes, a full queue or a paused parser cannot hide it. A half-closed
connection counts as hung up: a FIN cannot say which of the two it is, and a client that is gone
must free its slot.

Source: epoll_ctl(2), socket(7) for `SO_LINGER`.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress

import trio

from proxy.runtime.kernel_events import HANGUP, ONCE, make_epoll

# Linger for zero seconds: close() then sends RST and forgets unsent bytes.
_LINGER_ZERO = struct.pack("ii", 1, 0)
READ_SIZE = 64 * 1024
# How many hang-ups one wake-up handles before others run.
_EVENTS_PER_WAKE = 256


class WriteStalled(trio.BrokenResourceError):
    """The client took no byte for the send timeout; its connection has been aborted."""


class ClientTransport(trio.abc.HalfCloseableStream):
    """A client's connection.

    Args:
        sock: The accepted socket, non-blocking.
        send_timeout_s: How long the client may take no byte at all while we have some for it, in
            seconds.
        hangups: The watch that tells of its hang-up.

    Cancellation: cancelling a write that waits for the client aborts the connection, for what was
    already handed over cannot be taken back. Cancelling a read changes nothing.
    """

    def __init__(self, sock: socket.socket, *, send_timeout_s: float, hangups: HangupWatch) -> None:
        self._socket = sock
        self.send_timeout_s = send_timeout_s
        self._hangups = hangups
        self.closed = False

    @property
    def socket(self) -> socket.socket:
        """The plain socket, for its addresses and its file descriptor."""
        return self._socket

    def addresses(self) -> tuple[tuple[str, int], tuple[str, int]]:
        """Return the client's address and port, and those that it connected to.

        Raises:
            trio.BrokenResourceError: When the client has reset the connection.
        """
        try:
            return self._socket.getpeername()[:2], self._socket.getsockname()[:2]
        except OSError as error:
            raise trio.BrokenResourceError from error

    @property
    def tells_hangup(self) -> bool:
        """Whether `on_hangup` works on this platform."""
        return self._hangups.available

    def on_hangup(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the client hangs up, unless the connection is closed before."""
        self._hangups.watch(self._socket, callback)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what the client sent next, `b""` at its FIN.

        Raises:
            trio.BrokenResourceError: On a reset.
            trio.ClosedResourceError: When the connection was aborted or closed on our side.
        """
        # No checkpoint where something is here already: who reads a request waits for other things.
        while True:  # noqa: ASYNC913 - it waits, or has something to return
            self._check_open()
            try:
                return self._socket.recv(max_bytes or READ_SIZE)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
            except OSError as error:
                raise trio.BrokenResourceError from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Hand all of `data` to the client; waits while the client's window is full.

        Raises:
            WriteStalled: When the client takes nothing for the send timeout.
            trio.BrokenResourceError: On a reset.
            trio.ClosedResourceError: When the connection was aborted or closed on our side.
        """
        view = memoryview(data)
        while view:
            self._check_open()
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                await self._wait_room()
            except OSError as error:
                raise trio.BrokenResourceError from error

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the client's window has room."""
        self._check_open()
        await trio.lowlevel.wait_writable(self._socket)

    async def _wait_room(self) -> None:
        try:
            with trio.move_on_after(self.send_timeout_s) as limit:
                await trio.lowlevel.wait_writable(self._socket)
        except trio.Cancelled:
            self.abort()
            raise
        if limit.cancelled_caught:
            self.abort()
            raise WriteStalled

    async def send_eof(self) -> None:
        """Send FIN; the client's bytes can still be read."""
        await trio.lowlevel.checkpoint()
        self._check_open()
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise trio.BrokenResourceError from error

    async def aclose(self) -> None:
        """Close in order: bytes already handed over are still delivered by the kernel."""
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close at once without waiting; idempotent; who waits on it gets `ClosedResourceError`."""
        if not self.closed:
            self.closed = True
            self._hangups.forget(self._socket)
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def abort(self) -> None:
        """Reset the connection: unsent bytes are dropped, blocked writes end; idempotent."""
        if not self.closed:
            # macOS refuses options for a connection that the client has reset.
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
            self.close()

    def _check_open(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError


class HangupWatch:
    """Tells when clients hang up, by one epoll for all of them.

    Where the platform has no epoll, `available` is False and nothing is ever told: the guard then
    learns of a FIN only by reading, which it does ahead.
    """

    def __init__(self) -> None:
        self._epoll = make_epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}

    @property
    def available(self) -> bool:
        """Whether the platform can tell."""
        return self._epoll is not None

    def watch(self, sock: socket.socket, on_hangup: Callable[[], None]) -> None:
        """Call `on_hangup` once when `sock`'s peer hangs up; `forget` comes before its close."""
        if self._epoll is not None:
            self._callbacks[sock.fileno()] = on_hangup
            self._epoll.register(sock.fileno(), HANGUP | ONCE)

    def forget(self, sock: socket.socket) -> None:
        """Stop watching; harmless for a socket that is closed or was never watched."""
        if self._epoll is not None and self._callbacks.pop(sock.fileno(), None) is not None:
            self._epoll.unregister(sock.fileno())

    async def run(self) -> None:
        """Serve the callbacks until cancelled, then give the epoll back."""
        if self._epoll is None:
            await trio.sleep_forever()
        try:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                for fd, _ in self._epoll.poll(0, _EVENTS_PER_WAKE):
                    # One hang-up may close other connections that are in the same batch.
                    if fd in self._callbacks:
                        self._callbacks[fd]()
        finally:
            trio.lowlevel.notify_closing(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None
