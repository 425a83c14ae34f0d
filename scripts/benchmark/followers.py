"""The load of one prediction: clients that follow it and count, in one process of their own.

`python -m benchmark.followers '{"port": ...}'` prints what it saw as one JSON object. The first
client makes the prediction, the others join it; when all of them get its events, one steady window
is watched, as `load` does it. Then all leave, which ends the prediction.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass

from benchmark.clients import START_TIMEOUT_S, Connection, Loop, SampledStream, Stream
from benchmark.processes import cpu_seconds, resident_bytes, waited_seconds
from benchmark.timing import Delays, Spread, delays
from benchmark.wire import Order

_ID = "followed"
_WARM_UP = Order(events_per_s=0, events=200)
# Clients come spread over some time, as they do.
_BETWEEN_S = 0.002
_SETTLE_S = 0.5
# By then the peer has noticed that all have left, and has given back what it will.
_AFTERWARDS_S = 1.0
# How many are timed: the load must cost less than what it measures.
_SAMPLED = 20


@dataclass(frozen=True, slots=True)
class FollowersPlan:
    """What one load does.

    Attributes:
        port: Of the peer, on 127.0.0.1.
        pids: The peer's processes.
        followers: How many follow the prediction.
        events_per_s: How many events it has.
        seconds: How long the window is.
    """

    port: int
    pids: tuple[int, ...]
    followers: int
    events_per_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class FollowersResult:
    """What one load saw; times in seconds.

    Attributes:
        window_s: How long the window really was.
        events: How many events came in it, to all together.
        cpu_s: The peer's processor time in it.
        waited_s: How long the peer had to wait for its processor: others were at work there.
        own_cpu_s: The load's own.
        rss_before: The peer's resident set before the prediction, in bytes.
        rss_followed: At the end of the window.
        rss_after: After all have left.
        delays: Of the events, from when each was due; None where nothing came.
        not_begun: Followers that had no event in time.
        ended_early: Followers that the peer ended.
    """

    window_s: float
    events: int
    cpu_s: float
    waited_s: float
    own_cpu_s: float
    rss_before: int
    rss_followed: int
    rss_after: int
    delays: Delays | None
    not_begun: int
    ended_early: int


def followers_result(printed: str) -> FollowersResult:
    """Return what a load printed."""
    fields = json.loads(printed)
    if fields["delays"]:
        fields["delays"] = Delays(*(Spread(**fields["delays"][key]) for key in ("start", "end")))
    return FollowersResult(**fields)


def follow_request(authority: str, order: Order | None, name: str = _ID) -> bytes:
    """Return the request for a prediction's events.

    Args:
        authority: Whom is asked.
        order: What is ordered of the upstream, in a new prediction; None to join one.
        name: The prediction's id.
    """
    body = b""
    lines = [f"PUT /predictions/{name} HTTP/1.1", f"Host: {authority}", "Accept: text/event-stream"]
    if order is not None:
        message = {"role": "user", "content": str(order)}
        body = json.dumps({"input": {"messages": [message]}}).encode()
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Followers:
    """The clients; one use."""

    def __init__(self, plan: FollowersPlan) -> None:
        self._plan = plan
        self._authority = f"127.0.0.1:{plan.port}"
        self._loop = Loop()
        self._streams: list[Stream] = []

    def run(self) -> FollowersResult:
        """Carry the plan out."""
        self._warm_up()
        rss_before = self._resident()
        not_begun = self._follow()
        self._loop.run_until(time.monotonic() + _SETTLE_S)
        self._forget_arrivals()
        events, used, began_ns = self._events(), self._processor_times(), time.monotonic_ns()
        self._loop.run_until(began_ns * 1e-9 + self._plan.seconds)
        ended_ns, used_then = time.monotonic_ns(), self._processor_times()
        cpu, waited, own = (then - now for then, now in zip(used_then, used, strict=True))
        counted, rss_followed = self._events() - events, self._resident()
        sampled = [each.arrivals for each in self._sampled()]
        ended_early = sum(each.ended for each in self._streams)
        self._leave()
        return FollowersResult(
            window_s=(ended_ns - began_ns) * 1e-9,
            events=counted,
            cpu_s=cpu,
            waited_s=waited,
            own_cpu_s=own,
            rss_before=rss_before,
            rss_followed=rss_followed,
            rss_after=self._resident(),
            delays=delays(sampled, began_ns, ended_ns),
            not_begun=not_begun,
            ended_early=ended_early,
        )

    def _warm_up(self) -> None:
        """Have a short prediction made: what the first one costs is not what is asked."""
        stream = Stream(self._plan.port, follow_request(self._authority, _WARM_UP, "warm-up"))
        self._loop.add(stream)
        give_up_at = time.monotonic() + START_TIMEOUT_S
        self._loop.run_until(give_up_at, lambda: stream.events >= _WARM_UP.events)
        self._loop.remove(stream)
        self._loop.run_until(time.monotonic() + _SETTLE_S)

    def _follow(self) -> int:
        """Make the prediction and join it; return how many had no event in time."""
        plan = self._plan
        every = -(-plan.followers // _SAMPLED)
        for number in range(plan.followers):
            order = None if number else Order(plan.events_per_s)
            kind = Stream if number % every else SampledStream
            stream = kind(plan.port, follow_request(self._authority, order))
            self._streams.append(stream)
            self._loop.add(stream)
            self._loop.run_until(time.monotonic() + _BETWEEN_S)
            if not number:
                self._await_events([stream])
        return self._await_events(self._streams)

    def _await_events(self, streams: list[Stream]) -> int:
        """Wait until all had an event; return how many had none."""
        waiting: set[Connection] = set(streams)

        def all_run() -> bool:
            waiting.difference_update([each for each in streams if each.events or each.ended])
            return not waiting

        self._loop.run_until(time.monotonic() + START_TIMEOUT_S, all_run)
        return sum(not each.events for each in streams)

    def _leave(self) -> None:
        for each in self._streams:
            self._loop.remove(each)
        self._loop.run_until(time.monotonic() + _AFTERWARDS_S)

    def _events(self) -> int:
        return sum(each.events for each in self._streams)

    def _sampled(self) -> list[SampledStream]:
        return [each for each in self._streams if isinstance(each, SampledStream)]

    def _forget_arrivals(self) -> None:
        for each in self._sampled():
            each.arrivals.clear()

    def _resident(self) -> int:
        return sum(map(resident_bytes, self._plan.pids))

    def _processor_times(self) -> tuple[float, float, float]:
        """Return the peer's, its waiting, and our own."""
        pids = self._plan.pids
        return (
            sum(map(cpu_seconds, pids)),
            sum(map(waited_seconds, pids)),
            time.process_time(),
        )


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(asdict(Followers(FollowersPlan(**asked)).run())))
