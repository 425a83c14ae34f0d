"""The load: clients that read streams and count, in one process of their own.

`python -m benchmark.load '{"port": ...}'` prints what it saw as one JSON object. It opens the
streams, waits until all of them run, watches one steady window, and then asks for short answers one
after the other, beside the streams, to see how long a first byte takes. It reads the processor time
of the peer's processes itself, at the very edges of the window in which it counts.
"""

from __future__ import annotations

import json
import select
import socket
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from benchmark.processes import cpu_seconds, resident_bytes
from benchmark.wire import LAST_CHUNK, MARK, stream_request

_READ_SIZE = 256 * 1024
# For all streams to have had their first event.
_START_TIMEOUT_S = 30.0
# Streams begin spread over this time: their events then come evenly and not all at once.
_SPREAD_S = 0.4
_SETTLE_S = 0.4
# Between two short answers: the peer has gone back to its streams.
_PROBE_PAUSE_S = 0.005


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What one load does.

    Attributes:
        port: Of the peer, on 127.0.0.1.
        pids: The peer's processes.
        streams: How many streams there are at once.
        events_per_s: The pace of each; 0 for unpaced.
        seconds: How long the window is.
        probes: How many short answers are asked for afterwards.
    """

    port: int
    pids: tuple[int, ...]
    streams: int
    events_per_s: float
    seconds: float
    probes: int


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What one load saw; times in seconds.

    Attributes:
        window_s: How long the window really was.
        events: How many events came in it.
        cpu_s: The peer's processor time in it.
        own_cpu_s: The load's own, to see that it was not what limits.
        rss_bytes: The peer's resident set at its end.
        first_byte_s: Median and 99th percentile of the short answers; None without any.
        ended_early: Streams that the peer ended.
    """

    window_s: float
    events: int
    cpu_s: float
    own_cpu_s: float
    rss_bytes: int
    first_byte_s: tuple[float, float] | None
    ended_early: int


class Load:
    """The clients; one use."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._waiting: set[int] = set()
        self._events = 0
        self._ended_early = 0
        self._probe: _Probe | None = None

    def run(self) -> LoadResult:
        """Carry the plan out."""
        self._open_streams()
        self._until(time.monotonic() + _SETTLE_S)
        events, cpu, own, began = self._events, self._cpu(), time.process_time(), time.monotonic()
        self._until(began + self._plan.seconds)
        ended, cpu_s, rss = time.monotonic(), self._cpu() - cpu, self._rss()
        result = LoadResult(
            window_s=ended - began,
            events=self._events - events,
            cpu_s=cpu_s,
            own_cpu_s=time.process_time() - own,
            rss_bytes=rss,
            first_byte_s=self._probe_first_bytes(),
            ended_early=self._ended_early,
        )
        for sock in self._sockets.values():
            sock.close()
        return result

    def _cpu(self) -> float:
        return sum(map(cpu_seconds, self._plan.pids))

    def _rss(self) -> int:
        return sum(map(resident_bytes, self._plan.pids))

    def _open_streams(self) -> None:
        plan = self._plan
        request = stream_request(f"127.0.0.1:{plan.port}", events_per_s=plan.events_per_s)
        began = time.monotonic()
        for number in range(plan.streams):
            sock = _connect(plan.port)
            sock.sendall(request)
            sock.setblocking(False)
            self._sockets[sock.fileno()] = sock
            self._waiting.add(sock.fileno())
            self._epoll.register(sock.fileno(), select.EPOLLIN)
            self._until(began + _SPREAD_S * (number + 1) / plan.streams)
        give_up_at = began + _START_TIMEOUT_S
        self._until(give_up_at, lambda: not self._waiting)
        if self._waiting:
            sys.exit(f"{len(self._waiting)} of {plan.streams} streams did not begin")

    def _until(self, when: float, done: Callable[[], bool] = lambda: False) -> None:
        while not done() and (left := when - time.monotonic()) > 0:
            for fd, _ in self._epoll.poll(left):
                if self._probe is not None and fd == self._probe.fd:
                    self._probe.read()
                else:
                    self._read(fd)

    def _read(self, fd: int) -> None:
        try:
            data = self._sockets[fd].recv(_READ_SIZE)
        except OSError:
            data = b""
        if not data:
            self._ended_early += 1
            self._epoll.unregister(fd)
            self._waiting.discard(fd)
            return
        count = data.count(MARK)
        self._events += count
        if count:
            self._waiting.discard(fd)

    def _probe_first_bytes(self) -> tuple[float, float] | None:
        if not self._plan.probes:
            return None
        # One connection for all, as clients keep theirs.
        with _connect(self._plan.port) as sock:
            sock.setblocking(False)
            self._probe = _Probe(sock)
            self._epoll.register(sock.fileno(), select.EPOLLIN)
            # The first answer warms the connection and is not counted.
            times = [self._time_first_byte(self._probe) for _ in range(self._plan.probes + 1)][1:]
            self._epoll.unregister(sock.fileno())
            self._probe = None
        return statistics.median(times), _percentile(times, 0.99)

    def _time_first_byte(self, probe: _Probe) -> float:
        self._until(time.monotonic() + _PROBE_PAUSE_S)
        probe.ask(stream_request(f"127.0.0.1:{self._plan.port}", events_per_s=0, events=1))
        self._until(time.monotonic() + _START_TIMEOUT_S, lambda: probe.complete)
        if probe.first_byte_s is None:
            sys.exit("a short answer did not come")
        return probe.first_byte_s


class _Probe:
    """A connection on which short answers are asked for, one at a time."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.fd = sock.fileno()
        self._tail = b""
        self._asked_at = 0.0
        self.first_byte_s: float | None = None
        self.complete = False

    def ask(self, request: bytes) -> None:
        self._tail, self.first_byte_s, self.complete = b"", None, False
        self._asked_at = time.monotonic()
        self._sock.send(request)

    def read(self) -> None:
        """Take what came; the head is no first byte, the event is."""
        data = self._sock.recv(_READ_SIZE)
        if not data:
            sys.exit("the connection of the short answers was closed")
        if self.first_byte_s is None and MARK in data:
            self.first_byte_s = time.monotonic() - self._asked_at
        self._tail = (self._tail + data)[-len(LAST_CHUNK) :]
        self.complete = self._tail == LAST_CHUNK


def _connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=_START_TIMEOUT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(asdict(Load(LoadPlan(**asked)).run())))
