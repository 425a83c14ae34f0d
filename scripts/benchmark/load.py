"""The load: clients that read streams and count, in one process of their own.

`python -m benchmark.load '{"port": ...}'` prints what it saw as one JSON object. It opens the
streams, waits until all of them run, watches one steady window, and then asks for short answers one
after the other, beside the streams, to see how long a first byte takes. It reads the processor time
of the peer's processes itself, at the very edges of the window in which it counts.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from benchmark.clients import (
    START_TIMEOUT_S,
    Connection,
    EngineStream,
    Loop,
    Probe,
    SampledStream,
    Stream,
)
from benchmark.processes import cpu_seconds, resident_bytes, waited_seconds
from benchmark.timing import Delays, Gaps, Spread, delays, gaps, spread
from benchmark.wire import Order, engine_request, paced_request

# Streams begin spread over some time, so that their events come evenly and not all at once: each
# within one period, hundreds of them within this.
_PERIOD_S = 0.02
_SPREAD_S = 0.4
# Then they run for so long, or as long as the window, before it begins.
_SETTLE_S = 0.4
# Between two short answers: the peer has gone back to its streams.
_PROBE_PAUSE_S = 0.005
# For all of them together: a peer that is asked for more than it can do may take seconds for each.
_PROBING_S = 5.0
# How many streams are timed: the load must cost less than what it measures.
_SAMPLED = 32
# Long enough that an answer's beginning and end are nothing beside its events, and short enough
# that the context does not fill: an engine gets slower as it does.
_ENGINE_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What one load does.

    Attributes:
        port: Of the peer, on 127.0.0.1.
        pids: The peer's processes.
        upstream_pids: The upstream's.
        streams: How many streams there are at once.
        events_per_s: The pace of each; 0 for unpaced; None for a real engine, which has its own.
        seconds: How long the window is; 0 for none.
        probes: How many short answers are asked for afterwards.
    """

    port: int
    pids: tuple[int, ...]
    upstream_pids: tuple[int, ...]
    streams: int
    events_per_s: float | None
    seconds: float
    probes: int


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What one load saw; times in seconds.

    Attributes:
        window_s: How long the window really was.
        events: How many events came in it.
        cpu_s: The peer's processor time in it.
        waited_s: How long the peer had to wait for its processor: others were at work there.
        own_cpu_s: The load's own, to see that it was not what limits.
        upstream_cpu_s: The upstream's.
        rss_bytes: The peer's resident set at its end.
        gaps: Between the events of paced streams.
        delays: Of the events of paced streams.
        first_byte: Of the short answers; None without any.
        not_begun: Streams that had no event in time.
        ended_early: Streams that the peer ended; of a real engine, answers that failed.
    """

    window_s: float
    events: int
    cpu_s: float
    waited_s: float
    own_cpu_s: float
    upstream_cpu_s: float
    rss_bytes: int
    gaps: Gaps | None
    delays: Delays | None
    first_byte: Spread | None
    not_begun: int
    ended_early: int


def load_result(printed: str) -> LoadResult:
    """Return what a load printed."""
    fields = json.loads(printed)
    if fields["gaps"]:
        fields["gaps"] = Gaps(**fields["gaps"])
    if fields["delays"]:
        fields["delays"] = Delays(*(Spread(**fields["delays"][key]) for key in ("start", "end")))
    if fields["first_byte"]:
        fields["first_byte"] = Spread(**fields["first_byte"])
    return LoadResult(**fields)


class Clients:
    """The clients; one use."""

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._loop = Loop(self._at_end)
        self._streams: list[Stream | EngineStream] = []

    def run(self) -> LoadResult:
        """Carry the plan out."""
        not_begun = self._open_streams()
        self._loop.run_until(time.monotonic() + min(_SETTLE_S, self._plan.seconds))
        self._forget_arrivals()
        events, cpu, began_ns = self._events(), self._processor_times(), time.monotonic_ns()
        self._loop.run_until(began_ns * 1e-9 + self._plan.seconds)
        ended_ns, used = time.monotonic_ns(), self._processor_times()
        counted, rss = self._events() - events, sum(map(resident_bytes, self._plan.pids))
        sampled = [each.arrivals for each in self._sampled()]
        # Before the short answers, during which the streams go on.
        seen_gaps, seen_delays = gaps(sampled), delays(sampled, began_ns, ended_ns)
        return LoadResult(
            window_s=(ended_ns - began_ns) * 1e-9,
            events=counted,
            cpu_s=used[0] - cpu[0],
            waited_s=used[1] - cpu[1],
            own_cpu_s=used[2] - cpu[2],
            upstream_cpu_s=used[3] - cpu[3],
            rss_bytes=rss,
            gaps=seen_gaps,
            delays=seen_delays,
            first_byte=self._probe_first_bytes(not_begun),
            not_begun=not_begun,
            ended_early=sum(map(_failures, self._streams)),
        )

    def _at_end(self, connection: Connection) -> None:
        if isinstance(connection, EngineStream):
            connection.ask_again()
            self._loop.add(connection)

    def _processor_times(self) -> tuple[float, float, float, float]:
        """Return the peer's and its waiting, our own and the upstream's."""
        peer, upstream = self._plan.pids, self._plan.upstream_pids
        return (
            sum(map(cpu_seconds, peer)),
            sum(map(waited_seconds, peer)),
            time.process_time(),
            sum(map(cpu_seconds, upstream)),
        )

    def _events(self) -> int:
        return sum(each.events for each in self._streams)

    def _sampled(self) -> list[SampledStream]:
        return [each for each in self._streams if isinstance(each, SampledStream)]

    def _forget_arrivals(self) -> None:
        for each in self._sampled():
            each.arrivals.clear()

    def _open_streams(self) -> int:
        """Open all, and return how many had no event in time."""
        open_stream, streams = self._opener(), self._plan.streams
        began, spread_s = time.monotonic(), min(_SPREAD_S, _PERIOD_S * streams)
        for number in range(streams):
            stream = open_stream(number)
            self._streams.append(stream)
            self._loop.add(stream)
            self._loop.run_until(began + spread_s * (number + 1) / streams)
        waiting = set(self._streams)

        def all_run() -> bool:
            waiting.difference_update([each for each in waiting if each.events or each.ended])
            return not waiting

        self._loop.run_until(began + START_TIMEOUT_S, all_run)
        return len(waiting) + sum(not each.events for each in self._streams if each.ended)

    def _opener(self) -> Callable[[int], Stream | EngineStream]:
        plan = self._plan
        authority = f"127.0.0.1:{plan.port}"
        if plan.events_per_s is None:
            asked = engine_request(authority, _ENGINE_TOKENS)
            return lambda _: EngineStream(plan.port, asked)
        ordered = paced_request(authority, Order(plan.events_per_s))
        # Unpaced events come in batches with one stamp for all: there is nothing to time.
        every = -(-plan.streams // _SAMPLED) if plan.events_per_s else plan.streams + 1

        def open_paced(number: int) -> Stream:
            return (Stream if (number + 1) % every else SampledStream)(plan.port, ordered)

        return open_paced

    def _probe_first_bytes(self, not_begun: int) -> Spread | None:
        plan = self._plan
        if not plan.probes or not_begun:
            return None
        order = Order(events_per_s=0, events=1)
        # One connection for all, as clients keep theirs.
        probe = Probe(plan.port, paced_request(f"127.0.0.1:{plan.port}", order))
        self._loop.add(probe)
        give_up_at = time.monotonic() + _PROBING_S
        # The first answer warms the connection and is not counted, unless there is no other.
        times = [self._await(probe, give_up_at)]
        while len(times) <= plan.probes and time.monotonic() < give_up_at:
            self._loop.run_until(time.monotonic() + _PROBE_PAUSE_S)
            probe.ask()
            times.append(self._await(probe, give_up_at))
        self._loop.remove(probe)
        return spread(times[1:] or times)

    def _await(self, probe: Probe, give_up_at: float) -> float:
        """Return the time to the first byte; where it did not come, how long it was waited for."""
        self._loop.run_until(give_up_at, lambda: probe.complete or probe.ended)
        if probe.ended:
            sys.exit("the connection of the short answers was closed")
        return probe.first_byte_s or time.monotonic() - probe.asked_at


def _failures(stream: Stream | EngineStream) -> int:
    return stream.failures if isinstance(stream, EngineStream) else int(stream.ended)


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    print(json.dumps(asdict(Clients(LoadPlan(**asked)).run())))
