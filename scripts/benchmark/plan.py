"""What one run measures: which loads, and in which order.

Owns the kinds of loads and the parts of a run that can be asked for alone. Starts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# llama-server on a good graphics card, for each of several people.
EVENTS_PER_S = 50.0
# A warm-up, and streams that only carry the short answers, are watched no longer than this.
_SHORT_S = 0.5


class Part(StrEnum):
    """A part of a run, by what it finds out."""

    FIRST_BYTE = "first-byte"
    PACED = "paced"
    UNPACED = "unpaced"
    TEARDOWN = "teardown"
    ENGINE = "engine"


class Kind(StrEnum):
    """What a load is made of."""

    IDLE = "idle"
    """Short answers and nothing beside them."""
    PACED = "paced"
    UNPACED = "unpaced"
    ENGINE = "engine"
    """Streams of a real engine."""
    TEARDOWN = "teardown"
    ENGINE_TEARDOWN = "engine teardown"


@dataclass(frozen=True, slots=True)
class Load:
    """One load under which all peers are measured.

    Attributes:
        kind: What it is made of.
        streams: How many there are; of a teardown, how many are closed.
        seconds: The length of the window.
        probes: How many short answers are asked for.
    """

    kind: Kind
    streams: int
    seconds: float = 0.0
    probes: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """What is measured.

    Attributes:
        peers: Names from `PEERS`.
        parts: Which parts.
        streams: The numbers of paced streams.
        engine_streams: The numbers of streams of the real engine.
        rounds: How often.
        seconds: The length of each window.
        probes: Short answers for each time to the first byte.
        saturation_streams: Streams of the unpaced load; 0 to leave it out.
        teardowns: How many streams are closed to see how long they last.
    """

    peers: tuple[str, ...]
    parts: frozenset[Part]
    streams: tuple[int, ...]
    engine_streams: tuple[int, ...]
    rounds: int
    seconds: float
    probes: int
    saturation_streams: int
    teardowns: int


def warm_up(run: Run) -> Load:
    """Return the load before anything is counted: code is loaded, caches are filled."""
    return Load(Kind.PACED, streams=4, seconds=min(run.seconds, _SHORT_S), probes=20)


def engine_warm_up(run: Run) -> Load:
    """Return the same for the real engine."""
    return Load(Kind.ENGINE, streams=1, seconds=min(run.seconds, _SHORT_S))


def paced_loads(run: Run) -> list[Load]:
    """Return the loads of the paced upstream, the lightest first: memory only grows."""
    loads = []
    if Part.FIRST_BYTE in run.parts:
        loads.append(Load(Kind.IDLE, 0, probes=run.probes))
    if Part.TEARDOWN in run.parts:
        loads.append(Load(Kind.TEARDOWN, run.teardowns))
    if {Part.FIRST_BYTE, Part.PACED} & run.parts:
        seconds = run.seconds if Part.PACED in run.parts else min(run.seconds, _SHORT_S)
        probes = run.probes if Part.FIRST_BYTE in run.parts else 0
        loads += [Load(Kind.PACED, streams, seconds, probes) for streams in sorted(run.streams)]
    if Part.UNPACED in run.parts and run.saturation_streams:
        loads.append(Load(Kind.UNPACED, run.saturation_streams, run.seconds))
    return loads


def engine_loads(run: Run) -> list[Load]:
    """Return the loads of the real engine."""
    loads = []
    if Part.ENGINE in run.parts:
        loads += [Load(Kind.ENGINE, each, run.seconds) for each in sorted(run.engine_streams)]
        if Part.TEARDOWN in run.parts:
            loads.append(Load(Kind.ENGINE_TEARDOWN, run.teardowns))
    return loads


def all_loads(run: Run) -> list[Load]:
    """Return every load, in the order in which they are measured."""
    return paced_loads(run) + engine_loads(run)
