"""The upstream: a program that streams one event again and again, at a pace or as fast as it can.

`python -m benchmark.paced_upstream` listens on a free port of 127.0.0.1, prints it and serves until
it is killed. It answers as llama-server does where a proxy looks: `/health`, `/props`, and a
chunked event stream for every POST. It must never be what limits a figure: one epoll, no parsing
beyond the request's head and its order, every event the same prepared bytes around its stamp.

Events are due on whole milliseconds of CLOCK_MONOTONIC and carry that time. A stream whose reader
does not keep up gets what it missed as soon as there is room again, each event with the time at
which it was due. The streams' first events, and so their phases, are spread by the load.

`GET /ends` is for the load: a line with name and time for every named stream whose connection was
seen to end, as it happens.
"""

from __future__ import annotations

import json
import re
import select
import socket
import time
from contextlib import suppress
from urllib.parse import urlsplit

from benchmark.agenda import Agenda, next_tick
from benchmark.wire import ENDING, Order, event_chunk, read_order

TOTAL_SLOTS = 4096
ENDS_PATH = "/ends"
_BACKLOG = 4096
_NS_PER_S = 1_000_000_000
# Unpaced, one write carries several events: a system call for each would make this the bottleneck.
_BATCH = 16
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_ENDS_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_DOCUMENTS: dict[str, dict[str, object]] = {
    "/health": {"status": "ok"},
    "/props": {"total_slots": TOTAL_SLOTS, "model_path": "benchmark", "model_alias": "benchmark"},
}


class _Client:
    """One connection: its request so far, and what it is still to be sent."""

    __slots__ = ("due_ns", "left", "name", "period_ns", "received", "sock", "unsent", "wants_room")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""
        self.unsent = b""
        # Of the stream; 0 for an unpaced one.
        self.period_ns = 0
        self.due_ns = 0
        # How many events are still to come; negative for a stream without an end.
        self.left = 0
        self.name = ""
        self.wants_room = False

    def take_request(self) -> tuple[bytes, bytes] | None:
        """Take one whole request out of what was received; its head and body, or None."""
        head, blank, rest = self.received.partition(b"\r\n\r\n")
        if not blank:
            return None
        length = _CONTENT_LENGTH.search(head + b"\r\n")
        size = int(length[1]) if length else 0
        if len(rest) < size:
            return None
        self.received = rest[size:]
        return head, rest[:size]

    def begin(self, order: Order, now_ns: int) -> None:
        """Begin the stream that `order` asks for."""
        self.period_ns = int(_NS_PER_S / order.events_per_s) if order.events_per_s else 0
        self.due_ns = next_tick(now_ns)
        self.left = order.events or -1
        self.name = order.name
        self.unsent += _STREAM_HEAD

    def add_due(self, now_ns: int) -> None:
        """Add every event that is due, also those that there was no room for in time."""
        while self.left and self.due_ns <= now_ns:
            self.unsent += event_chunk(self.due_ns)
            self.due_ns += self.period_ns
            self._count(1)

    def add_batch(self, now_ns: int) -> None:
        """Add some events at once, those of an unpaced stream."""
        events = min(_BATCH, self.left) if self.left > 0 else _BATCH
        self.unsent += event_chunk(now_ns) * events
        self._count(events)

    def _count(self, events: int) -> None:
        if self.left > 0:
            self.left -= events
            if not self.left:
                self.unsent += ENDING


class PacedUpstream:
    """The server; `run` never returns."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self._listener.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._clients: dict[int, _Client] = {}
        self._agenda: Agenda[_Client] = Agenda()
        self._watchers: set[_Client] = set()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._listener.getsockname()[1])

    def run(self) -> None:
        """Serve until the process is ended."""
        while True:
            for fd, events in self._wait():
                if fd == self._listener.fileno():
                    self._accept()
                elif (client := self._clients.get(fd)) is not None:
                    self._serve(client, events)
            now_ns = time.monotonic_ns()
            for client in self._agenda.take(now_ns):
                self._send_due(client, now_ns)

    def _wait(self) -> list[tuple[int, int]]:
        """Wait until something can be read or written, or somebody is due.

        Only `select` waits for less than a millisecond; epoll would be late by up to one.
        """
        next_ns = self._agenda.next_ns
        if next_ns is None:
            return self._epoll.poll()
        left_ns = max(0, next_ns - time.monotonic_ns())
        readable, _, _ = select.select([self._epoll], [], [], left_ns / _NS_PER_S)
        return self._epoll.poll(0) if readable else []

    def _accept(self) -> None:
        # All that wait: beside many streams a turn of the loop for each would take long.
        with suppress(BlockingIOError):
            while True:
                sock, _ = self._listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._clients[sock.fileno()] = _Client(sock)
                self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _serve(self, client: _Client, events: int) -> None:
        try:
            if events & ~select.EPOLLOUT:
                self._read(client)
            if events & select.EPOLLOUT and client.sock.fileno() >= 0:
                self._write(client)
        except OSError:
            self._drop(client)

    def _read(self, client: _Client) -> None:
        data = client.sock.recv(65536)
        if not data:
            self._drop(client)
            return
        client.received += data
        while not client.left and (request := client.take_request()) is not None:
            self._answer(client, *request)

    def _answer(self, client: _Client, head: bytes, body: bytes) -> None:
        method, target, _ = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
        path = urlsplit(target).path
        if method == "POST":
            now_ns = time.monotonic_ns()
            client.begin(read_order(body), now_ns)
            if client.period_ns:
                self._agenda.add(client.due_ns, client)
                return
            client.add_batch(now_ns)
        elif path == ENDS_PATH:
            self._watchers.add(client)
            client.unsent += _ENDS_HEAD
        else:
            client.unsent += _document(_DOCUMENTS.get(path))
        self._write(client)

    def _send_due(self, client: _Client, now_ns: int) -> None:
        if client.sock.fileno() < 0:
            return
        client.add_due(now_ns)
        try:
            self._write(client)
        except OSError:
            self._drop(client)

    def _write(self, client: _Client) -> None:
        """Write what there is, and see to it that the stream goes on: at its time, or with room."""
        if client.left and not client.period_ns and not client.unsent:
            client.add_batch(time.monotonic_ns())
        if client.unsent:
            with suppress(BlockingIOError):
                client.unsent = client.unsent[client.sock.send(client.unsent) :]
        waiting = bool(client.unsent)
        if client.left and client.period_ns and not waiting:
            self._agenda.add(client.due_ns, client)
        self._want_room(client, wanted=waiting or (client.left != 0 and not client.period_ns))

    def _want_room(self, client: _Client, *, wanted: bool) -> None:
        if wanted != client.wants_room:
            client.wants_room = wanted
            interest = select.EPOLLIN | (select.EPOLLOUT if wanted else 0)
            self._epoll.modify(client.sock.fileno(), interest)

    def _drop(self, client: _Client) -> None:
        if client.sock.fileno() < 0:
            return
        del self._clients[client.sock.fileno()]
        self._epoll.unregister(client.sock.fileno())
        client.sock.close()
        self._watchers.discard(client)
        if client.name:
            self._report_end(client.name, time.monotonic_ns())

    def _report_end(self, name: str, now_ns: int) -> None:
        for watcher in list(self._watchers):
            watcher.unsent += f"{name} {now_ns}\n".encode()
            try:
                self._write(watcher)
            except OSError:
                self._drop(watcher)


def _document(found: dict[str, object] | None) -> bytes:
    status = b"200 OK" if found is not None else b"404 Not Found"
    body = json.dumps(found if found is not None else {"error": {"code": 404}}).encode()
    return (
        b"HTTP/1.1 %b\r\nServer: llama.cpp\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (status, len(body), body)
    )


if __name__ == "__main__":
    upstream = PacedUpstream()
    print(upstream.port, flush=True)
    upstream.run()
