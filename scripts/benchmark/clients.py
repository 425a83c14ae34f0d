"""The load's connections: one epoll, plain sockets, and as little as can be done with what comes.

Owns the sockets. A `Stream` counts its events; a `SampledStream` also notes when each was due and
when it came, which is why only some are; an `EngineStream` counts what a real llama-server sends,
and can ask again.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable

from benchmark.timing import Arrival
from benchmark.wire import LAST_CHUNK, MARK, STAMP, STAMP_DIGITS

# For a connection, and for the first event of a stream.
START_TIMEOUT_S = 10.0
# One for all: what is read is looked at before anything else is read.
_BUFFER = bytearray(256 * 1024)
_EVENT_START = b"\ndata: "


def connect(port: int) -> socket.socket:
    """Return a connection to 127.0.0.1."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=START_TIMEOUT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def received(size: int) -> bytes:
    """Return what was read last, in whole."""
    return bytes(_BUFFER[:size])


class Connection:
    """A connection with one request after the other; `take` sees what comes.

    Attributes:
        ended: Whether the other side has ended it.
        complete: Whether the answer is there in whole, for those who look at that.
    """

    def __init__(self, port: int, request: bytes) -> None:
        self.open(port, request)

    def open(self, port: int, request: bytes) -> None:
        """Connect and ask."""
        self.ended = self.complete = False
        self._sock = connect(port)
        self._sock.sendall(request)
        self._sock.setblocking(False)

    @property
    def fd(self) -> int:
        """Its descriptor."""
        return self._sock.fileno()

    def read(self) -> None:
        """Read what there is."""
        try:
            size = self._sock.recv_into(_BUFFER)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if size:
            self.take(size)
        else:
            self.ended = True

    def close(self) -> None:
        """Leave."""
        self._sock.close()

    def take(self, size: int) -> None:
        """Look at the `size` bytes that were read."""
        raise NotImplementedError


class Stream(Connection):
    """A stream of the paced upstream whose events are counted."""

    events = 0

    def take(self, size: int) -> None:
        """Count one byte that every event has once."""
        self.events += _BUFFER.count(MARK, 0, size)


class SampledStream(Stream):
    """A stream whose events' times are noted as well."""

    def __init__(self, port: int, request: bytes) -> None:
        super().__init__(port, request)
        self.arrivals: list[Arrival] = []
        self._cut = b""

    def take(self, size: int) -> None:
        """Count, and note each stamp with the time; one that is cut comes with the next read."""
        now_ns = time.monotonic_ns()
        super().take(size)
        data = self._cut + received(size)
        self.arrivals += [(int(stamp), now_ns) for stamp in STAMP.findall(data)]
        last = data.rfind(MARK)
        self._cut = data[last:] if last >= 0 and len(data) - last <= STAMP_DIGITS else b""


class EngineStream(Connection):
    """Answers of a real llama-server, one after the other, whose events are counted.

    Each on a connection of its own: llama-server ends it after a stream, whatever its head says.
    """

    def __init__(self, port: int, request: bytes) -> None:
        self.events = 0
        # Answers that were no stream, or broke off.
        self.failures = 0
        self._port = port
        self._request = request
        self._tail = b""
        super().__init__(port, request)

    def take(self, size: int) -> None:
        """Count where events begin, and see the end of the answer."""
        data = self._tail + received(size)
        self.events += data.count(_EVENT_START)
        self.complete = data.endswith(b"\r\n" + LAST_CHUNK)
        # One byte less than what is counted: nothing is counted twice.
        self._tail = data[-len(_EVENT_START) + 1 :]
        # Whether or not the connection is kept.
        self.ended = self.complete or data.startswith(b"HTTP/1.1 5")

    def ask_again(self) -> None:
        """Ask once more, after the end."""
        self.failures += not self.complete
        self._tail = b""
        self.close()
        self.open(self._port, self._request)


class Probe(Connection):
    """A kept connection on which short answers are asked for, one at a time."""

    def __init__(self, port: int, request: bytes) -> None:
        self.first_byte_s: float | None = None
        self.asked_at = time.monotonic()
        self._tail = b""
        self._request = request
        super().__init__(port, request)

    def ask(self) -> None:
        """Ask once more."""
        self._tail, self.first_byte_s, self.complete = b"", None, False
        self.asked_at = time.monotonic()
        self._sock.sendall(self._request)

    def take(self, size: int) -> None:
        """The head is no first byte, the event is."""
        if self.first_byte_s is None and _BUFFER.find(MARK, 0, size) >= 0:
            self.first_byte_s = time.monotonic() - self.asked_at
        self._tail = (self._tail + received(size))[-len(LAST_CHUNK) :]
        self.complete = self._tail == LAST_CHUNK


class Loop:
    """Reads whatever can be read.

    Args:
        on_end: Called with a connection that has ended and is no longer read from.
    """

    def __init__(self, on_end: Callable[[Connection], None] = lambda _: None) -> None:
        self._on_end = on_end
        self._epoll = select.epoll()
        self._connections: dict[int, Connection] = {}

    def add(self, connection: Connection) -> None:
        """Read from it from now on."""
        self._connections[connection.fd] = connection
        self._epoll.register(connection.fd, select.EPOLLIN)

    def remove(self, connection: Connection) -> None:
        """Leave it and read no more from it; it may have ended."""
        self._forget(connection)
        connection.close()

    def _forget(self, connection: Connection) -> None:
        if self._connections.pop(connection.fd, None) is not None:
            self._epoll.unregister(connection.fd)

    def run_until(self, when: float, done: Callable[[], bool] = lambda: False) -> None:
        """Read until the time `when`, or until `done` says so after a turn."""
        while not done() and (left := when - time.monotonic()) > 0:
            for fd, _ in self._epoll.poll(left):
                connection = self._connections[fd]
                connection.read()
                if connection.ended:
                    self._forget(connection)
                    self._on_end(connection)
