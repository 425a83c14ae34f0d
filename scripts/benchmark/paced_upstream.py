"""The upstream: a program that streams one event again and again, at a pace or as fast as it can.

`python -m benchmark.paced_upstream` listens on a free port of 127.0.0.1, prints it and serves until
it is killed. It answers as llama-server does where a proxy looks: `/health`, `/props`, and a
chunked event stream for every POST. It must never be what limits a figure: one epoll, no parsing
beyond the request's head, every event the same prepared bytes.

Due times are rounded up to a millisecond, which is what epoll can wait for. The streams' first
events, and so their phases, are spread by the load.
"""

from __future__ import annotations

import heapq
import json
import math
import re
import select
import socket
import time
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

from benchmark.wire import CHUNK, LAST_CHUNK

TOTAL_SLOTS = 4096
_BACKLOG = 4096
# Unpaced, one write carries several events: a system call for each would make this the bottleneck.
_BATCH = 16
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_DOCUMENTS: dict[str, dict[str, object]] = {
    "/health": {"status": "ok"},
    "/props": {"total_slots": TOTAL_SLOTS, "model_path": "benchmark", "model_alias": "benchmark"},
}


class _Client:
    """One connection: its request so far, and what it is still to be sent."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""
        self.unsent = b""
        self.period_s = 0.0
        self.left = 0.0
        self.due = math.inf
        self.wants_room = False

    @property
    def streaming(self) -> bool:
        return self.left > 0

    def take_request(self) -> bytes | None:
        """Take one whole request out of what was received; its head, or None."""
        head, blank, rest = self.received.partition(b"\r\n\r\n")
        if not blank:
            return None
        length = _CONTENT_LENGTH.search(head + b"\r\n")
        size = int(length[1]) if length else 0
        if len(rest) < size:
            return None
        self.received = rest[size:]
        return head


class PacedUpstream:
    """The server; `run` never returns."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self._listener.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._clients: dict[int, _Client] = {}
        # (when, file descriptor, client): the client tells a descriptor that was used again.
        self._due: list[tuple[float, int, _Client]] = []

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._listener.getsockname()[1])

    def run(self) -> None:
        """Serve until the process is ended."""
        while True:
            for fd, events in self._epoll.poll(self._wait_s()):
                if fd == self._listener.fileno():
                    self._accept()
                else:
                    self._serve(self._clients[fd], events)
            self._send_due(time.monotonic())

    def _wait_s(self) -> float | None:
        return max(0.0, self._due[0][0] - time.monotonic()) if self._due else None

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._clients[sock.fileno()] = _Client(sock)
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _serve(self, client: _Client, events: int) -> None:
        try:
            if events & ~select.EPOLLOUT:
                self._read(client)
            if events & select.EPOLLOUT and client.sock.fileno() in self._clients:
                self._write(client)
        except OSError:
            self._drop(client)

    def _read(self, client: _Client) -> None:
        data = client.sock.recv(65536)
        if not data:
            self._drop(client)
            return
        client.received += data
        while not client.streaming and (head := client.take_request()) is not None:
            self._answer(client, head)

    def _answer(self, client: _Client, head: bytes) -> None:
        method, target, _ = head.split(b"\r\n", 1)[0].decode("ascii").split(" ")
        parts = urlsplit(target)
        if method == "POST":
            asked = parse_qs(parts.query)
            pace = float(asked.get("events_per_s", ["0"])[0])
            client.period_s = 1 / pace if pace else 0.0
            client.left = float(asked.get("events", ["0"])[0]) or math.inf
            client.unsent += _STREAM_HEAD
            self._send_events(client, time.monotonic())
        else:
            client.unsent += _document(_DOCUMENTS.get(parts.path))
            self._write(client)

    def _send_due(self, now: float) -> None:
        while self._due and self._due[0][0] <= now:
            _, fd, client = heapq.heappop(self._due)
            if self._clients.get(fd) is client:
                try:
                    self._send_events(client, now)
                except OSError:
                    self._drop(client)

    def _send_events(self, client: _Client, now: float) -> None:
        """Add what is due; a paced one for each period, also for those it was late for."""
        if not client.period_s:
            self._add(client, _BATCH)
        else:
            if client.due == math.inf:
                client.due = now
            while client.due <= now and client.streaming:
                self._add(client, 1)
                client.due += client.period_s
            if client.streaming:
                heapq.heappush(self._due, (client.due, client.sock.fileno(), client))
        self._write(client)

    @staticmethod
    def _add(client: _Client, events: int) -> None:
        count = int(min(events, client.left))
        client.left -= count
        client.unsent += CHUNK * count
        if not client.streaming:
            client.unsent += LAST_CHUNK
            client.due = math.inf

    def _write(self, client: _Client) -> None:
        """Write what there is; an unpaced stream goes on when there is room again."""
        if client.unsent:
            with suppress(BlockingIOError):
                client.unsent = client.unsent[client.sock.send(client.unsent) :]
        unpaced = client.streaming and not client.period_s
        if unpaced and not client.unsent:
            self._add(client, _BATCH)
        self._want_room(client, wanted=bool(client.unsent))

    def _want_room(self, client: _Client, *, wanted: bool) -> None:
        if wanted != client.wants_room:
            client.wants_room = wanted
            interest = select.EPOLLIN | (select.EPOLLOUT if wanted else 0)
            self._epoll.modify(client.sock.fileno(), interest)

    def _drop(self, client: _Client) -> None:
        if self._clients.pop(client.sock.fileno(), None) is not None:
            self._epoll.unregister(client.sock.fileno())
            client.sock.close()


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
