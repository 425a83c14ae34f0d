"""What times of arrival say: percentiles, the gaps between events, and how late events are.

Owns the arithmetic and no clock. All times that come in are nanoseconds, all that go out seconds.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

_S_PER_NS = 1e-9
# At the start and at the end of a window, each: long enough for a percentile, and short enough that
# a delay which grows shows.
_EDGE_SHARE = 0.25

Arrival = tuple[int, int]
"""When an event was due and when it came."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Two percentiles of some times, in seconds."""

    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Gaps:
    """The times between one event and the next of the same stream, in seconds.

    Attributes:
        p99: Their 99th percentile.
        jitter: Their standard deviation: 0 for a stream as even as a clock.
    """

    p99: float
    jitter: float


@dataclass(frozen=True, slots=True)
class Delays:
    """How late events were, in the first and in the last quarter of a window."""

    start: Spread
    end: Spread


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of all are not above.

    Args:
        values: At least one.
        share: From 0 to 1.
    """
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(values: Sequence[float]) -> Spread | None:
    """Return the two percentiles; None without values."""
    return Spread(statistics.median(values), percentile(values, 0.99)) if values else None


def gaps(streams: Iterable[Sequence[Arrival]]) -> Gaps | None:
    """Return what the gaps of several streams are like; None when no stream has two events.

    Events that come together have gaps of 0 between them: that is what a client sees.
    """
    found = [
        (later - earlier) * _S_PER_NS
        for arrivals in streams
        for (_, earlier), (_, later) in pairwise(arrivals)
    ]
    return Gaps(percentile(found, 0.99), statistics.pstdev(found)) if found else None


def delays(streams: Iterable[Sequence[Arrival]], began_ns: int, ended_ns: int) -> Delays | None:
    """Return how late the events of a window were; None when one of its quarters has none.

    Args:
        streams: The arrivals of each.
        began_ns: Where the window begins.
        ended_ns: Where it ends.
    """
    edge_ns = (ended_ns - began_ns) * _EDGE_SHARE
    first: list[float] = []
    last: list[float] = []
    for arrivals in streams:
        for due, came in arrivals:
            if came < began_ns + edge_ns:
                first.append((came - due) * _S_PER_NS)
            elif came >= ended_ns - edge_ns:
                last.append((came - due) * _S_PER_NS)
    start, end = spread(first), spread(last)
    return Delays(start, end) if start and end else None
