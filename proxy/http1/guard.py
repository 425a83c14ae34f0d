"""The guard: our own accept loop in front of everything that a client can do to a server.

Owns the listening sockets and the set of client connections. Each connection runs in a task of its
own; what goes wrong in it stays in it. Draining ends: idle connections close at once, busy ones
after their response, and what is left when the owner's patience ends is reset.

It knows nothing of HTTP; `connection` does.
"""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress

import trio

from proxy.http1.connection import ClientConnection, ServerContext
from proxy.http1.transport import ClientTransport, HangupWatch

logger = logging.getLogger("proxy.guard")

# Running out of descriptors or memory passes when connections end; until then accepting again at
# once would spin (Trio's own serve_listeners waits 100 ms for the same reason).
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_EXHAUSTED_PAUSE_S = 0.1

# The kernel takes up to some megabytes for a client that reads nothing. This bounds what it takes
# beyond the client's window (promise P4), and is a hundred tokens' events: a client that reads is
# not slowed.
_MAX_UNSENT = 64 * 1024
_NOTSENT_LOWAT: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)


class Guard:
    """Accepts and keeps the client connections of one server.

    Args:
        context: The application and the limits of every connection.
        sockets: Listening sockets, non-blocking; the guard closes them.
        send_timeout_s: How long a client may take no byte before it is cut off, in seconds.
        max_connections: More are closed as they come.
        tls: The TLS context, or None for plain HTTP.
        hangups: The watch for clients that leave.
    """

    def __init__(
        self,
        context: ServerContext,
        sockets: Sequence[socket.socket],
        *,
        send_timeout_s: float,
        max_connections: int = 4096,
        tls: ssl.SSLContext | None = None,
        hangups: HangupWatch | None = None,
    ) -> None:
        self._context = context
        self._sockets = tuple(sockets)
        self._send_timeout_s = send_timeout_s
        self._max_connections = max_connections
        self._tls = tls
        self._hangups = HangupWatch() if hangups is None else hangups
        self._accepting = trio.CancelScope()
        self._connections: set[ClientConnection] = set()
        self._none_left = trio.Event()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept and serve until drained or cancelled.

        Cancellation: every connection is reset, every socket closed.
        """
        try:
            async with trio.open_nursery() as watching:
                watching.start_soon(self._hangups.run)
                async with trio.open_nursery() as serving:
                    task_status.started()
                    with self._accepting:
                        async with trio.open_nursery() as accepting:
                            for sock in self._sockets:
                                accepting.start_soon(self._accept, sock, serving)
                    self._close_listeners()
                watching.cancel_scope.cancel()
        finally:
            self._close_listeners()

    async def drain(self) -> None:
        """Stop accepting, close what is idle, and wait until every connection is gone.

        Cancellation: draining goes on, only the wait ends; `abort` cuts what is left.
        """
        self._accepting.cancel()
        self._context.draining = True
        for connection in tuple(self._connections):
            connection.close_when_idle()
        while self._connections:
            # Several may wait: each event is everybody's.
            if self._none_left.is_set():
                self._none_left = trio.Event()
            await self._none_left.wait()

    def abort(self) -> None:
        """Reset every connection that is left."""
        for connection in tuple(self._connections):
            connection.abort()

    def _close_listeners(self) -> None:
        for sock in self._sockets:
            sock.close()

    async def _accept(self, listener: socket.socket, serving: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                # Any other error is of the connection that was being accepted (accept(2)).
                if error.errno in _EXHAUSTED:
                    logger.warning("cannot accept a connection: %s", error.strerror)
                    await trio.sleep(_EXHAUSTED_PAUSE_S)
                continue
            if len(self._connections) >= self._max_connections:
                logger.warning("too many connections; one was closed")
                sock.close()
                continue
            # Known from here on, so that a drain in this very step waits for it.
            connection = self._connection_on(sock)
            self._connections.add(connection)
            serving.start_soon(self._serve, connection, name="client connection")

    def _connection_on(self, sock: socket.socket) -> ClientConnection:
        sock.setblocking(False)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            # Tokens are small and each is wanted now. macOS refuses options for a connection that
            # the client has reset.
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if _NOTSENT_LOWAT is not None:
                    sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, _MAX_UNSENT)
        transport = ClientTransport(
            sock, send_timeout_s=self._send_timeout_s, hangups=self._hangups
        )
        return ClientConnection(transport, self._context, self._tls)

    async def _serve(self, connection: ClientConnection) -> None:
        try:
            await connection.run()
        finally:
            self._connections.discard(connection)
            if not self._connections:
                self._none_left.set()
