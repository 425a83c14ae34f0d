"""One run: every load in every round, and under each load every peer in turn.

Owns the order of a run. Peers under one load follow each other within seconds, so that a machine
which gets slower does so for all of them, and each round begins with another one. All peers of a
round run all the time: one that is not asked costs nothing, nobody is started while another one is
measured, and the next one is measured only when the last one is quiet again. One that a load was
too much for is started anew, and spared heavier ones in that round.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmark.engine import start_engine
from benchmark.load import LoadPlan, LoadResult, load_result
from benchmark.machine import Processors, allow_descriptors, share_processors
from benchmark.peers import PEERS, Listening
from benchmark.plan import (
    EVENTS_PER_S,
    Kind,
    Load,
    Run,
    all_loads,
    engine_loads,
    engine_warm_up,
    paced_loads,
    warm_up,
)
from benchmark.processes import Children, cpu_seconds, resident_bytes
from benchmark.teardown import TeardownPlan, TeardownResult

# A peer that was asked for more than it can do goes on for a while after its clients have left.
_QUIET_SHARE = 0.05
_QUIET_LOOK_S = 0.1
_QUIET_LIMIT_S = 20.0
_PACES = {Kind.IDLE: EVENTS_PER_S, Kind.PACED: EVENTS_PER_S, Kind.UNPACED: 0.0, Kind.ENGINE: None}

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sample:
    """One peer under one load in one round.

    Attributes:
        peer: Its name.
        round: From 1.
        kind: Of the load.
        streams: How many.
        idle_rss_bytes: The peer's resident set before any of the loads.
        seen: What the load saw; None for a teardown.
        ends: What came of a teardown.
    """

    peer: str
    round: int
    kind: Kind
    streams: int
    idle_rss_bytes: int
    seen: LoadResult | None = None
    ends: TeardownResult | None = None


def measure(run: Run, tell: Tell) -> list[Sample]:
    """Carry out `run`; `tell` is called with what comes next.

    Raises:
        BenchmarkError: When a process of the benchmark fails, or something is not installed.
    """
    allow_descriptors(max((load.streams for load in all_loads(run)), default=0))
    for name in run.peers:
        PEERS[name].prepare(tell)
    processors = share_processors(os.sched_getaffinity(0))
    samples: list[Sample] = []
    for number in range(1, run.rounds + 1):
        tell(f"round {number} of {run.rounds}")
        for loads, warming, start in (
            (paced_loads(run), warm_up(run), _start_paced_upstream),
            (engine_loads(run), engine_warm_up(run), start_engine),
        ):
            if loads:
                with (
                    Children(processors=processors.others) as children,
                    _Bench(start(children), processors) as bench,
                ):
                    samples += bench.measure(run.peers, number, loads, warming, tell)
    return samples


def _start_paced_upstream(children: Children) -> Listening:
    child = children.start("the upstream", ["-m", "benchmark.paced_upstream"])
    return Listening(int(child.read_line()), (child.pid,))


def rotated(peers: Sequence[str], by: int) -> list[str]:
    """Return the peers beginning with another one for each `by`."""
    start = by % len(peers)
    return [*peers[start:], *peers[:start]]


class _Bench:
    """One upstream, and the peers before it; a block that ends them."""

    def __init__(self, upstream: Listening, processors: Processors) -> None:
        self._upstream = upstream
        self._processors = processors
        self._stack = ExitStack()
        self._peers: dict[str, Listening] = {}
        self._children: dict[str, Children] = {}
        # Those whom a load was too much for: a heavier one would tell nothing.
        self._overwhelmed: set[str] = set()

    def __enter__(self) -> Self:
        self._stack.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def measure(
        self, names: Sequence[str], number: int, loads: Sequence[Load], warming: Load, tell: Tell
    ) -> list[Sample]:
        """Return what was seen under each load, of each peer that was up to it."""
        samples = []
        for name in names:
            self._start(name)
        for name in names:
            self._load(self._peers[name], warming)
        idle = {name: _resident(self._peers[name]) for name in names}
        for load in loads:
            for name in rotated(names, number - 1):
                if load.kind is Kind.PACED and name in self._overwhelmed:
                    tell(f"{load.kind}, {load.streams} streams: not {name}, less was too much")
                    continue
                tell(f"{load.kind}, {load.streams} streams: {name}")
                seen, ends = self._put_under(self._peers[name], load)
                samples.append(
                    Sample(name, number, load.kind, load.streams, idle[name], seen=seen, ends=ends)
                )
                if seen is not None and load.kind is Kind.PACED and is_too_much(seen, load):
                    self._overwhelmed.add(name)
                    self._start(name)
                    self._load(self._peers[name], warming)
                wait_until_quiet(self._peers[name].pids)
        return samples

    def _start(self, name: str) -> None:
        """Start a peer, in place of the one that there was."""
        if name in self._children:
            self._children[name].stop()
        children = self._stack.enter_context(Children(processors=self._processors.peer))
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-"))
        self._children[name] = children
        self._peers[name] = PEERS[name].start(children, self._upstream.port, Path(folder))

    def _put_under(
        self, peer: Listening, load: Load
    ) -> tuple[LoadResult | None, TeardownResult | None]:
        if load.kind in {Kind.TEARDOWN, Kind.ENGINE_TEARDOWN}:
            return None, self._tear_down(peer, load)
        return self._load(peer, load), None

    def _load(self, peer: Listening, load: Load) -> LoadResult:
        plan = LoadPlan(
            port=peer.port,
            pids=peer.pids,
            upstream_pids=self._upstream.pids,
            streams=load.streams,
            events_per_s=_PACES[load.kind],
            seconds=load.seconds,
            probes=load.probes,
        )
        return load_result(self._run("benchmark.load", asdict(plan)))

    def _tear_down(self, peer: Listening, load: Load) -> TeardownResult:
        pace = EVENTS_PER_S if load.kind is Kind.TEARDOWN else None
        plan = TeardownPlan(peer.port, self._upstream.port, pace, load.streams)
        return TeardownResult(**json.loads(self._run("benchmark.teardown", asdict(plan))))

    def _run(self, module: str, plan: dict[str, object]) -> str:
        with Children(processors=self._processors.others) as children:
            return children.start("the load", ["-m", module, json.dumps(plan)]).read_all()


def is_too_much(seen: LoadResult, load: Load) -> bool:
    """Say whether a peer fell far behind: streams did not begin, or half of the events are late."""
    return seen.not_begun > 0 or seen.events < load.streams * EVENTS_PER_S * seen.window_s / 2


def _resident(peer: Listening) -> int:
    return sum(map(resident_bytes, peer.pids))


def wait_until_quiet(pids: Sequence[int]) -> None:
    """Wait until the peer has nothing left to do, or for some time."""
    give_up_at = time.monotonic() + _QUIET_LIMIT_S
    while time.monotonic() < give_up_at:
        used, began = sum(map(cpu_seconds, pids)), time.monotonic()
        time.sleep(_QUIET_LOOK_S)  # noqa: TID251 - nothing here is asynchronous
        share = (sum(map(cpu_seconds, pids)) - used) / (time.monotonic() - began)
        if share < _QUIET_SHARE:
            return
