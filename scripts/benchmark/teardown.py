"""How long a stream outlives its client: from the client's close until the upstream is free of it.

`python -m benchmark.teardown '{"port": ...}'` prints the times as one JSON object. With the paced
upstream, which reports the end of each connection, streams run side by side and leave one after the
other. A real llama-server tells of its slots only when asked: there one stream at a time runs and
leaves, and the engine is asked, past the peer, until its slot is idle.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmark.clients import (
    START_TIMEOUT_S,
    Connection,
    EngineStream,
    Loop,
    Stream,
    connect,
    received,
)
from benchmark.paced_upstream import ENDS_PATH
from benchmark.wire import Order, engine_request, paced_request

# Between one stream's begin and the next one's, and between their ends.
_BETWEEN_S = 0.02
# So many run at once: teardown is not to be measured under more load than a peer can bear.
_SIDE_BY_SIDE = 12
# After so long a stream is said to go on; whether it would end later is not waited for.
_GIVE_UP_S = 5.0
# The stream is in the middle of its answer when its client leaves, far from its end.
_EVENTS_BEFORE = 20
_ENGINE_TOKENS = 30_000
_LOOK_INTERVAL_S = 0.001
# By then the answer has come to its end without anybody.
_IDLE_AT_LAST_S = 30.0
# A peer that does not free slots shows it at once; each attempt takes until the answer's end.
_STUCK_LIMIT = 3


@dataclass(frozen=True, slots=True)
class TeardownPlan:
    """What is closed.

    Attributes:
        port: Of the peer, on 127.0.0.1.
        upstream_port: Of the upstream.
        events_per_s: The pace of each stream; None for a real engine.
        streams: How many there are.
    """

    port: int
    upstream_port: int
    events_per_s: float | None
    streams: int


@dataclass(frozen=True, slots=True)
class TeardownResult:
    """What came of it.

    Attributes:
        times_s: From close to end, of each stream that ended.
        went_on: How many had not ended after 5 s.
    """

    times_s: list[float]
    went_on: int


class _Ends(Connection):
    """The upstream's reports: when it saw which stream's connection end."""

    def __init__(self, port: int) -> None:
        self.times_ns: dict[str, int] = {}
        self._tail = ""
        super().__init__(port, f"GET {ENDS_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())

    def take(self, size: int) -> None:
        *lines, self._tail = (self._tail + received(size).decode()).split("\n")
        for line in lines:
            name, _, time_ns = line.partition(" ")
            if time_ns.isdigit():
                self.times_ns[name] = int(time_ns)


def tear_down_paced(plan: TeardownPlan) -> TeardownResult:
    """Let streams run side by side, close one after the other, and wait for their ends."""
    loop, ends = Loop(), _Ends(plan.upstream_port)
    loop.add(ends)
    closed_ns: dict[str, int] = {}
    for first in range(0, plan.streams, _SIDE_BY_SIDE):
        numbers = range(first, min(first + _SIDE_BY_SIDE, plan.streams))
        closed_ns |= _open_and_close(plan, loop, [f"s{number}" for number in numbers])
    loop.run_until(time.monotonic() + _GIVE_UP_S, lambda: len(ends.times_ns) == len(closed_ns))
    seen = [(ended_ns - closed_ns[name]) * 1e-9 for name, ended_ns in ends.times_ns.items()]
    return TeardownResult(seen, len(closed_ns) - len(seen))


def _open_and_close(plan: TeardownPlan, loop: Loop, names: Sequence[str]) -> dict[str, int]:
    """Return when each stream was closed, by its name."""
    assert plan.events_per_s is not None  # noqa: S101  # a paced upstream's
    streams = {}
    for name in names:
        order = Order(plan.events_per_s, name=name)
        streams[name] = Stream(plan.port, paced_request(f"127.0.0.1:{plan.port}", order))
        loop.add(streams[name])
        loop.run_until(time.monotonic() + _BETWEEN_S)
    loop.run_until(
        time.monotonic() + START_TIMEOUT_S, lambda: all(each.events for each in streams.values())
    )
    closed_ns = {}
    for name, stream in streams.items():
        closed_ns[name] = time.monotonic_ns()
        loop.remove(stream)
        loop.run_until(time.monotonic() + _BETWEEN_S)
    return closed_ns


def tear_down_engine(plan: TeardownPlan) -> TeardownResult:
    """Let one stream after the other run, close it, and look at the engine's slots."""
    times: list[float] = []
    stuck = 0
    while len(times) + stuck < plan.streams and stuck < _STUCK_LIMIT:
        took = _time_one(plan)
        if took < _GIVE_UP_S:
            times.append(took)
        else:
            stuck += 1
    return TeardownResult(times, stuck)


def _time_one(plan: TeardownPlan) -> float:
    loop = Loop()
    stream = EngineStream(plan.port, engine_request(f"127.0.0.1:{plan.port}", _ENGINE_TOKENS))
    loop.add(stream)
    loop.run_until(time.monotonic() + START_TIMEOUT_S, lambda: stream.events >= _EVENTS_BEFORE)
    closed = time.monotonic()
    loop.remove(stream)
    # Also where it takes too long: the next stream is to find the engine idle.
    while _is_busy(plan.upstream_port) and time.monotonic() < closed + _IDLE_AT_LAST_S:
        time.sleep(_LOOK_INTERVAL_S)  # noqa: TID251 - nothing here is asynchronous
    return time.monotonic() - closed


def _is_busy(engine_port: int) -> bool:
    # A connection for each look: llama-server ends a kept one after some.
    with connect(engine_port) as sock:
        sock.sendall(b"GET /slots HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        answer = b""
        while data := sock.recv(65536):
            answer += data
    return b'"is_processing":true' in answer


if __name__ == "__main__":
    asked = TeardownPlan(**json.loads(sys.argv[1]))
    tear_down = tear_down_engine if asked.events_per_s is None else tear_down_paced
    print(json.dumps(asdict(tear_down(asked))))
