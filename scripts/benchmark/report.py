"""From samples to figures: medians over the rounds, differences and ratios within each round.

A difference to direct and a ratio to the baseline are taken within a round, where both ran within
seconds of each other, and only then is the median taken. Owns the JSON document and the tables.
"""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from benchmark.measure import EVENTS_PER_S, Run, Sample
from benchmark.peers import BASELINE, DIRECT, TITLES
from benchmark.wire import EVENT

_PACKAGES = ("trio", "hypercorn", "h11", "httpx", "fastapi", "uvicorn", "uvloop", "httptools")
_Figure = Callable[[Sample], float | None]
Row = dict[str, object]


def cpu_us_per_event(sample: Sample) -> float | None:
    """Return the peer's processor time for each event, in microseconds; None for no peer."""
    if sample.peer == DIRECT or not sample.seen.events:
        return None
    return sample.seen.cpu_s / sample.seen.events * 1e6


def events_per_s(sample: Sample) -> float:
    """Return how many events reached the clients in a second."""
    return sample.seen.events / sample.seen.window_s


def first_byte_ms(sample: Sample) -> float | None:
    """Return the median time to the first byte, in milliseconds."""
    return sample.seen.first_byte_s[0] * 1e3 if sample.seen.first_byte_s else None


def first_byte_p99_ms(sample: Sample) -> float | None:
    """Return the 99th percentile of the time to the first byte, in milliseconds."""
    return sample.seen.first_byte_s[1] * 1e3 if sample.seen.first_byte_s else None


def rss_mib(sample: Sample) -> float | None:
    """Return the peer's resident set under load, in MiB."""
    return sample.seen.rss_bytes / 2**20 if sample.seen.rss_bytes else None


def rss_kib_per_stream(sample: Sample) -> float | None:
    """Return by how much each stream has made it larger than it was when idle, in KiB."""
    if not sample.seen.rss_bytes:
        return None
    return (sample.seen.rss_bytes - sample.idle_rss_bytes) / 1024 / sample.streams


def figures(run: Run, samples: Iterable[Sample]) -> list[Row]:
    """Return one row for each peer and load, in the order of `run`."""
    samples = list(samples)
    loads = [(streams, True) for streams in sorted(run.streams)]
    if run.saturation_streams:
        loads.append((run.saturation_streams, False))
    return [
        _row(peer, streams, samples, paced=paced) for streams, paced in loads for peer in run.peers
    ]


def _row(peer: str, streams: int, samples: list[Sample], *, paced: bool) -> Row:
    def of(name: str) -> list[Sample]:
        return [each for each in samples if (each.peer, each.streams, each.paced) == key(name)]

    def key(name: str) -> tuple[str, int, bool]:
        return name, streams, paced

    own, direct, baseline = of(peer), of(DIRECT), of(BASELINE)
    return {
        "peer": peer,
        "streams": streams,
        "paced": paced,
        "cpu_us_per_event": _median(map(cpu_us_per_event, own)),
        "cpu_us_per_event_min_max": _min_max(map(cpu_us_per_event, own)),
        "cpu_ratio": _median(_pairs(cpu_us_per_event, own, baseline, _ratio)),
        "events_per_s": _median(map(events_per_s, own)),
        "events_per_s_ratio": _median(_pairs(events_per_s, own, baseline, _ratio)),
        "first_byte_ms": _median(map(first_byte_ms, own)),
        "added_first_byte_ms": _median(_pairs(first_byte_ms, own, direct, _difference)),
        "added_first_byte_p99_ms": _median(_pairs(first_byte_p99_ms, own, direct, _difference)),
        "rss_mib": _median(map(rss_mib, own)),
        "rss_kib_per_stream": _median(map(rss_kib_per_stream, own)),
        "streams_ended_early": sum(each.seen.ended_early for each in own),
    }


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 4) if known else None


def _min_max(values: Iterable[float | None]) -> tuple[float, float] | None:
    known = [value for value in values if value is not None]
    return (round(min(known), 4), round(max(known), 4)) if known else None


def _pairs(
    figure: _Figure,
    own: list[Sample],
    other: list[Sample],
    combine: Callable[[float, float], float],
) -> list[float]:
    by_round = {each.round: figure(each) for each in other}
    pairs = [(figure(each), by_round.get(each.round)) for each in own]
    return [combine(a, b) for a, b in pairs if a is not None and b]


def _ratio(own: float, other: float) -> float:
    return own / other


def _difference(own: float, other: float) -> float:
    return own - other


def machine() -> Row:
    """Describe what the figures were measured on."""
    return {
        "system": platform.platform(),
        "processors": len(os.sched_getaffinity(0)),
        "processor": _processor_name(),
        "python": platform.python_version(),
        "load_average": [round(each, 2) for each in os.getloadavg()],
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _processor_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def document(run: Run, samples: list[Sample], about: Row) -> Row:
    """Return everything as one JSON-ready object."""
    return {
        "machine": about,
        "run": {**asdict(run), "events_per_s": EVENTS_PER_S, "event_bytes": len(EVENT)},
        "figures": figures(run, samples),
        "samples": [asdict(each) for each in samples],
    }


def markdown(found: list[Row]) -> str:
    """Return the figures as two tables in Markdown."""
    paced = [_paced_cells(row) for row in found if row["paced"]]
    unpaced = [_unpaced_cells(row) for row in found if not row["paced"]]
    tables = [_table(_PACED_HEAD, paced)]
    if unpaced:
        tables.append(_table(_UNPACED_HEAD, unpaced))
    return "\n".join(tables)


_PACED_HEAD = (
    "streams", "peer", "CPU µs/event", "min-max", "ratio", "events/s",
    "added first byte, median ms", "p99 ms", "RSS MiB", "RSS KiB/stream",
)  # fmt: skip
_UNPACED_HEAD = ("streams, unpaced", "peer", "events/s", "ratio", "CPU µs/event")


def _paced_cells(row: Row) -> list[str]:
    spread = row["cpu_us_per_event_min_max"]
    is_direct = row["peer"] == DIRECT
    return [
        str(row["streams"]),
        TITLES[str(row["peer"])],
        _number(row["cpu_us_per_event"], 1),
        f"{spread[0]:.1f}-{spread[1]:.1f}" if isinstance(spread, tuple) else "",
        _number(row["cpu_ratio"], 2),
        _number(row["events_per_s"], 0),
        "" if is_direct else _number(row["added_first_byte_ms"], 2),
        "" if is_direct else _number(row["added_first_byte_p99_ms"], 2),
        _number(row["rss_mib"], 1),
        _number(row["rss_kib_per_stream"], 0),
    ]


def _unpaced_cells(row: Row) -> list[str]:
    return [
        str(row["streams"]),
        TITLES[str(row["peer"])],
        _number(row["events_per_s"], 0),
        _number(row["events_per_s_ratio"], 2),
        _number(row["cpu_us_per_event"], 1),
    ]


def _number(value: object, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) else ""


def _table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)
