"""One run: every load in every round, and under each load every peer in turn.

Owns the order of a run. Peers under one load follow each other within seconds, so that a machine
which gets slower does so for all of them, and each round begins with another one. All peers of a
round run all the time: one that is not asked costs nothing, and nobody is started while another one
is measured.
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
            tell(f"round {number} of {run.rounds}")
            samples += _measure_round(run, number, port, Path(scratch), tell)
    return samples


def _rotated(peers: Sequence[str], by: int) -> list[str]:
    start = by % len(peers)
    return [*peers[start:], *peers[:start]]


def _measure_round(
    run: Run, number: int, upstream_port: int, scratch: Path, tell: Callable[[str], None]
) -> list[Sample]:
    samples = []
    with Children() as children:
        peers = {name: PEERS[name](children, upstream_port, scratch) for name in run.peers}
        for peer in peers.values():
            _load(peer, _WARM_UP_STREAMS, EVENTS_PER_S, _WARM_UP_S, _WARM_UP_PROBES)
        idle = {name: _resident(peer) for name, peer in peers.items()}
        for streams, pace, probes in _loads(run):
            for name in _rotated(run.peers, number - 1):
                tell(f"{streams} streams{'' if pace else ', unpaced'}: {name}")
                seen = _load(peers[name], streams, pace, run.seconds, probes)
                samples.append(Sample(name, number, streams, pace > 0, idle[name], seen))
    return samples


def _loads(run: Run) -> list[tuple[int, float, int]]:
    """Return streams, pace and probes of each load, the lightest first: memory only grows."""
    loads = [(streams, EVENTS_PER_S, run.probes) for streams in sorted(run.streams)]
    if run.saturation_streams:
        loads.append((run.saturation_streams, 0.0, 0))
    return loads


def _resident(peer: Listening) -> int:
    return sum(map(resident_bytes, peer.pids))


def _load(peer: Listening, streams: int, pace: float, seconds: float, probes: int) -> LoadResult:
    plan = LoadPlan(peer.port, peer.pids, streams, pace, seconds, probes)
    with Children() as children:
        child = children.start("the load", ["-m", "benchmark.load", json.dumps(asdict(plan))])
        return LoadResult(**json.loads(child.read_all()))
