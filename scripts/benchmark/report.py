"""From samples to figures: medians over the rounds, differences and ratios within each round.

A difference to direct and a ratio to a peer are taken within a round, where both ran within seconds
of each other, and only then is the median taken. Owns the JSON document; the tables are in
`tables`.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict

from benchmark.machine import share_processors
from benchmark.measure import Sample
from benchmark.peers import BASELINE, DIRECT, NGINX, PEERS
from benchmark.plan import EVENTS_PER_S, Load, Run, all_loads
from benchmark.wire import EVENT_BYTES

Figure = Callable[[Sample], float | None]
Row = dict[str, object]


def cpu_us_per_event(sample: Sample) -> float | None:
    """Return the peer's processor time for each event, in microseconds; None for no peer."""
    if sample.peer == DIRECT or not sample.seen or not sample.seen.events:
        return None
    return sample.seen.cpu_s / sample.seen.events * 1e6


def waited_share(sample: Sample) -> float | None:
    """Return for which share of the window the peer had to wait for its processor."""
    if sample.peer == DIRECT or not sample.seen or not sample.seen.events:
        return None
    return sample.seen.waited_s / sample.seen.window_s


def load_cpu_us_per_event(sample: Sample) -> float | None:
    """Return what the load itself took for each event, in microseconds."""
    if not sample.seen or not sample.seen.events:
        return None
    return sample.seen.own_cpu_s / sample.seen.events * 1e6


def upstream_cpu_us_per_event(sample: Sample) -> float | None:
    """Return what the upstream took for each event, in microseconds."""
    if not sample.seen or not sample.seen.events:
        return None
    return sample.seen.upstream_cpu_s / sample.seen.events * 1e6


def instruments_share(sample: Sample) -> float | None:
    """Return the share of their processors that load and upstream used; 1 where they limit."""
    if not sample.seen or not sample.seen.events:
        return None
    processors = len(share_processors(os.sched_getaffinity(0)).others)
    used = sample.seen.own_cpu_s + sample.seen.upstream_cpu_s
    return used / sample.seen.window_s / processors


def events_per_s(sample: Sample) -> float | None:
    """Return how many events reached the clients in a second; None where none was to."""
    return sample.seen.events / sample.seen.window_s if sample.seen and sample.streams else None


def first_byte_ms(sample: Sample) -> float | None:
    """Return the median time to the first byte, in milliseconds."""
    found = sample.seen and sample.seen.first_byte
    return found.p50 * 1e3 if found else None


def first_byte_p99_ms(sample: Sample) -> float | None:
    """Return the 99th percentile of the time to the first byte, in milliseconds."""
    found = sample.seen and sample.seen.first_byte
    return found.p99 * 1e3 if found else None


def gap_p99_ms(sample: Sample) -> float | None:
    """Return the 99th percentile of the times between events, in milliseconds."""
    found = sample.seen and sample.seen.gaps
    return found.p99 * 1e3 if found else None


def jitter_ms(sample: Sample) -> float | None:
    """Return the standard deviation of the times between events, in milliseconds."""
    found = sample.seen and sample.seen.gaps
    return found.jitter * 1e3 if found else None


def _delay_ms(edge: str, percentile: str) -> Figure:
    """Return the figure of how late events were at one edge of the window, in milliseconds."""

    def figure(sample: Sample) -> float | None:
        found = sample.seen and sample.seen.delays
        return float(getattr(getattr(found, edge), percentile)) * 1e3 if found else None

    return figure


def rss_mib(sample: Sample) -> float | None:
    """Return the peer's resident set under load, in MiB."""
    return sample.seen.rss_bytes / 2**20 if sample.seen and sample.seen.rss_bytes else None


def rss_kib_per_stream(sample: Sample) -> float | None:
    """Return by how much each stream has made it larger than it was when idle, in KiB."""
    if not sample.seen or not sample.seen.rss_bytes or not sample.streams:
        return None
    return (sample.seen.rss_bytes - sample.idle_rss_bytes) / 1024 / sample.streams


_MEDIANS: dict[str, Figure] = {
    "cpu_us_per_event": cpu_us_per_event,
    "waited_share": waited_share,
    "events_per_s": events_per_s,
    "first_byte_ms": first_byte_ms,
    "first_byte_p99_ms": first_byte_p99_ms,
    "gap_p99_ms": gap_p99_ms,
    "jitter_ms": jitter_ms,
    "delay_start_ms": _delay_ms("start", "p50"),
    "delay_start_p99_ms": _delay_ms("start", "p99"),
    "delay_end_ms": _delay_ms("end", "p50"),
    "delay_end_p99_ms": _delay_ms("end", "p99"),
    "rss_mib": rss_mib,
    "rss_kib_per_stream": rss_kib_per_stream,
    "load_cpu_us_per_event": load_cpu_us_per_event,
    "upstream_cpu_us_per_event": upstream_cpu_us_per_event,
    "instruments_share": instruments_share,
}


def figures(run: Run, samples: Iterable[Sample]) -> list[Row]:
    """Return one row for each load and peer, in the order of `run`."""
    samples = list(samples)
    return [_row(peer, load, samples) for load in all_loads(run) for peer in run.peers]


def _row(peer: str, load: Load, samples: Sequence[Sample]) -> Row:
    def of(name: str) -> list[Sample]:
        key = name, load.kind, load.streams
        return [each for each in samples if (each.peer, each.kind, each.streams) == key]

    own, direct, baseline, nginx = of(peer), of(DIRECT), of(BASELINE), of(NGINX)
    return {
        "peer": peer,
        "kind": str(load.kind),
        "streams": load.streams,
        "rounds": len(own),
        **{name: _median(map(figure, own)) for name, figure in _MEDIANS.items()},
        "cpu_us_per_event_min_max": _min_max(map(cpu_us_per_event, own)),
        "cpu_ratio": _median(_pairs(cpu_us_per_event, own, baseline, _ratio)),
        "cpu_ratio_to_nginx": _median(_pairs(cpu_us_per_event, own, nginx, _ratio)),
        "events_per_s_ratio": _median(_pairs(events_per_s, own, baseline, _ratio)),
        "added_first_byte_ms": _median(_pairs(first_byte_ms, own, direct, _difference)),
        "added_first_byte_p99_ms": _median(_pairs(first_byte_p99_ms, own, direct, _difference)),
        "streams_not_begun": max((each.seen.not_begun for each in own if each.seen), default=0),
        "streams_ended_early": sum(each.seen.ended_early for each in own if each.seen),
        **_teardown(own),
    }


def _teardown(own: Sequence[Sample]) -> Row:
    """Return what all rounds together say: a median, and the one that took longest."""
    times_ms = [time * 1e3 for each in own if each.ends for time in each.ends.times_s]
    return {
        "teardown_ms": _median(times_ms),
        "teardown_worst_ms": round(max(times_ms), 4) if times_ms else None,
        "teardown_went_on": sum(each.ends.went_on for each in own if each.ends),
    }


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 4) if known else None


def _min_max(values: Iterable[float | None]) -> tuple[float, float] | None:
    known = [value for value in values if value is not None]
    return (round(min(known), 4), round(max(known), 4)) if known else None


def _pairs(
    figure: Figure,
    own: Sequence[Sample],
    other: Sequence[Sample],
    combine: Callable[[float, float], float],
) -> list[float]:
    by_round = {each.round: figure(each) for each in other}
    pairs = [(figure(each), by_round.get(each.round)) for each in own]
    return [combine(a, b) for a, b in pairs if a is not None and b]


def _ratio(own: float, other: float) -> float:
    return own / other


def _difference(own: float, other: float) -> float:
    return own - other


def document(run: Run, samples: Sequence[Sample], about: Row) -> Row:
    """Return everything as one JSON-ready object."""
    return {
        "machine": about,
        "run": {
            **asdict(run),
            "parts": sorted(run.parts),
            "peers_left_out": [name for name in PEERS if name not in run.peers],
            "events_per_s": EVENTS_PER_S,
            "event_bytes": EVENT_BYTES,
        },
        "figures": figures(run, samples),
        "samples": [asdict(each) for each in samples],
    }
