"""One run: every peer in turn, in every round, under every load.

Owns the order of a run. The peers of a round follow each other within seconds, so that a machine
which gets slower does so for all of them, and each round begins with another one.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmark.load import LoadPlan, LoadResult
from benchmark.peers import PEERS, Listening
from benchmark.processes import Children, resident_bytes

# llama-server on a good graphics card, for each of several people.
EVENTS_PER_S = 50.0
# Before anything is counted: code is loaded, caches are filled.
_WARM_UP_S = 0.5
_WARM_UP_STREAMS = 4
_WARM_UP_PROBES = 20


@dataclass(frozen=True, slots=True)
class Run:
    """What is measured.

    Attributes:
        peers: Names from `PEERS`.
        streams: The numbers of streams.
        rounds: How often.
        seconds: The length of each window.
        probes: Short answers for each time to the first byte.
        saturation_streams: Streams of the unpaced load; 0 to leave it out.
    """

    peers: tuple[str, ...]
    streams: tuple[int, ...]
    rounds: int
    seconds: float
    probes: int
    saturation_streams: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One peer under one load in one round.

    Attributes:
        peer: Its name.
        round: From 1.
        streams: How many.
        paced: Whether the upstream was.
        idle_rss_bytes: The peer's resident set before any of these streams.
        seen: What the load saw.
    """

    peer: str
    round: int
    streams: int
    paced: bool
    idle_rss_bytes: int
    seen: LoadResult


def measure(run: Run, tell: Callable[[str], None]) -> list[Sample]:
    """Carry out `run`; `tell` is called with what comes next.

    Raises:
        BenchmarkError: When a process of the benchmark fails.
    """
    samples: list[Sample] = []
    with tempfile.TemporaryDirectory(prefix="benchmark-") as scratch, Children() as children:
        upstream = children.start("the upstream", ["-m", "benchmark.paced_upstream"])
        port = int(upstream.read_line())
        for number in range(1, run.rounds + 1):
            for name in _rotated(run.peers, number - 1):
                tell(f"round {number} of {run.rounds}: {name}")
                samples += _measure_peer(run, name, number, port, Path(scratch))
    return samples


def _rotated(peers: Sequence[str], by: int) -> list[str]:
    start = by % len(peers)
    return [*peers[start:], *peers[:start]]


def _measure_peer(
    run: Run, name: str, number: int, upstream_port: int, scratch: Path
) -> list[Sample]:
    samples = []
    with Children() as children:
        peer = PEERS[name](children, upstream_port, scratch)
        _load(peer, _WARM_UP_STREAMS, EVENTS_PER_S, _WARM_UP_S, _WARM_UP_PROBES)
        idle = sum(map(resident_bytes, peer.pids))
        loads = [(streams, EVENTS_PER_S, run.probes) for streams in sorted(run.streams)]
        if run.saturation_streams:
            loads.append((run.saturation_streams, 0.0, 0))
        for streams, pace, probes in loads:
            seen = _load(peer, streams, pace, run.seconds, probes)
            samples.append(Sample(name, number, streams, pace > 0, idle, seen))
    return samples


def _load(peer: Listening, streams: int, pace: float, seconds: float, probes: int) -> LoadResult:
    plan = LoadPlan(peer.port, peer.pids, streams, pace, seconds, probes)
    with Children() as children:
        child = children.start("the load", ["-m", "benchmark.load", json.dumps(asdict(plan))])
        return LoadResult(**json.loads(child.read_all()))
