"""The status page: what it costs that somebody watches.

Paced streams and streams of the real engine at full speed through the fast path, without viewers
and with some. In each round all numbers of viewers follow each other on the same proxy, and each
round begins with another one. A ratio is within its round: a machine that is slow is so for all.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.request import urlopen

from benchmark.engine import start_engine
from benchmark.load import LoadPlan, LoadResult, load_result
from benchmark.machine import Processors, allow_descriptors, share_processors
from benchmark.measure import rotated, wait_until_quiet
from benchmark.peers.llama_proxy import start_fast
from benchmark.peers.peer import Listening
from benchmark.plan import EVENTS_PER_S, Kind, Load
from benchmark.processes import Children

Row = dict[str, object]
Tell = Callable[[str], None]

_PACED_STREAMS = 32
# As many as the engine has slots.
_ENGINE_STREAMS = 4
_WARM_UP_S = 0.5
_COLUMNS = {
    "kind": "load",
    "streams": "streams",
    "viewers": "viewers",
    "events_per_s": "events/s",
    "events_ratio": "of unwatched",
    "cpu_us_per_event": "CPU µs/event",
    "cpu_us_per_event_min_max": "min-max",
    "cpu_us_more": "more than unwatched",
    "rss_mib": "RSS MiB",
    "trouble": "trouble",
}


@dataclass(frozen=True, slots=True)
class StatusSample:
    """What was seen of one load with some viewers in one round.

    Attributes:
        kind: Of the load.
        streams: How many there were.
        viewers: How many watched.
        lost: How many of them did not watch any more at the end.
        round: From 1.
        seen: What the load saw.
    """

    kind: Kind
    streams: int
    viewers: int
    lost: int
    round: int
    seen: LoadResult


def measure_status(viewers: Sequence[int], rounds: int, seconds: float, tell: Tell) -> Row:
    """Measure both loads, without viewers and with each number of them, in each round.

    Raises:
        BenchmarkError: When a process of the benchmark fails.
    """
    allow_descriptors(_PACED_STREAMS + max(viewers, default=0))
    samples: list[StatusSample] = []
    for number in range(1, rounds + 1):
        for load in (
            Load(Kind.PACED, _PACED_STREAMS, seconds),
            Load(Kind.ENGINE, _ENGINE_STREAMS, seconds),
        ):
            tell(f"round {number} of {rounds}: {load.kind}, {load.streams} streams")
            samples += _measure(load, (0, *viewers), number)
    return {
        "rounds": rounds,
        "seconds": seconds,
        "figures": figures(samples),
        "samples": [asdict(each) for each in samples],
    }


def _measure(load: Load, viewers: Sequence[int], number: int) -> list[StatusSample]:
    """Measure one load with each number of viewers, on one proxy."""
    processors = share_processors(os.sched_getaffinity(0))
    with ExitStack() as stack:
        others = stack.enter_context(Children(processors=processors.others))
        peers = stack.enter_context(Children(processors=processors.peer))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        upstream = _start_upstream(load.kind, others)
        fast = start_fast(peers, upstream.port, folder)
        watched = _main_port(folder)
        _put_under(replace(load, seconds=_WARM_UP_S), fast, upstream, processors)
        samples = []
        for count in rotated(viewers, number - 1):
            with Children(processors=processors.others) as watching:
                if count:
                    arguments = ["-m", "benchmark.viewers", str(watched), str(count)]
                    watching.start("the viewers", arguments).read_line()
                seen = _put_under(load, fast, upstream, processors)
                lost = count - _watching(watched)
            samples.append(StatusSample(load.kind, load.streams, count, lost, number, seen))
            wait_until_quiet(fast.pids)
        return samples


def _start_upstream(kind: Kind, children: Children) -> Listening:
    if kind is Kind.ENGINE:
        return start_engine(children)
    upstream = children.start("the upstream", ["-m", "benchmark.paced_upstream"])
    return Listening(int(upstream.read_line()), (upstream.pid,))


def _main_port(folder: Path) -> int:
    """Return the port at which the proxy is watched, as its ready file says."""
    ready = json.loads((folder / "ready.json").read_text())
    return int(str(ready["url"]).rpartition(":")[2])


def _watching(port: int) -> int:
    """Return how many watch, as the proxy says."""
    with urlopen(f"http://127.0.0.1:{port}/status/json") as answer:  # http it is
        return int(json.load(answer)["proxy"]["viewers"])


def _put_under(
    load: Load, peer: Listening, upstream: Listening, processors: Processors
) -> LoadResult:
    plan = LoadPlan(
        port=peer.port,
        pids=peer.pids,
        upstream_pids=upstream.pids,
        streams=load.streams,
        events_per_s=None if load.kind is Kind.ENGINE else EVENTS_PER_S,
        seconds=load.seconds,
        probes=load.probes,
    )
    with Children(processors=processors.others) as children:
        arguments = ["-m", "benchmark.load", json.dumps(asdict(plan))]
        return load_result(children.start("the load", arguments).read_all())


def figures(samples: Sequence[StatusSample]) -> list[Row]:
    """Return a row for each load and number of viewers: medians over the rounds."""
    groups: dict[tuple[Kind, int, int], list[StatusSample]] = {}
    for each in samples:
        groups.setdefault((each.kind, each.streams, each.viewers), []).append(each)
    return [
        _row(group, groups[kind, streams, 0])
        for (kind, streams, _), group in sorted(groups.items(), key=_by_load)
    ]


def _by_load(item: tuple[tuple[Kind, int, int], list[StatusSample]]) -> tuple[bool, int]:
    (kind, _, viewers), _ = item
    return kind is Kind.ENGINE, viewers


def _row(group: Sequence[StatusSample], unwatched: Sequence[StatusSample]) -> Row:
    alone = {each.round: each.seen for each in unwatched}
    pairs = [(each.seen, alone[each.round]) for each in group]
    costs = [_cost(each.seen) for each in group]
    return {
        "kind": str(group[0].kind),
        "streams": group[0].streams,
        "viewers": group[0].viewers,
        "events_per_s": _median(seen.events / seen.window_s for seen, _ in pairs),
        "events_ratio": _median(
            seen.events * without.window_s / (without.events * seen.window_s)
            for seen, without in pairs
            if without.events
        ),
        "cpu_us_per_event": _median(costs),
        "cpu_us_per_event_min_max": (min(costs), max(costs)),
        "cpu_us_more": _median(_cost(seen) - _cost(without) for seen, without in pairs),
        "rss_mib": _median(seen.rss_bytes / 2**20 for seen, _ in pairs),
        "trouble": _trouble(group),
    }


def _cost(seen: LoadResult) -> float:
    return seen.cpu_s * 1e6 / max(1, seen.events)


def _trouble(group: Sequence[StatusSample]) -> str:
    found = {
        "not begun": sum(each.seen.not_begun for each in group),
        "ended early": sum(each.seen.ended_early for each in group),
        "viewers lost": sum(each.lost for each in group),
    }
    return ", ".join(f"{count} {what}" for what, count in found.items() if count)


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) if found else None


def status_markdown(found: Row) -> str:
    """Return the figures as a table in Markdown."""
    rows = found["figures"]
    assert isinstance(rows, list)  # noqa: S101  # made above
    lines = [list(_COLUMNS.values()), ["---"] * len(_COLUMNS)]
    lines += [[_cell(key, row[key]) for key in _COLUMNS] for row in rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cell(key: str, value: object) -> str:
    if isinstance(value, tuple | list):
        return "-".join(_cell(key, each) for each in value)
    if isinstance(value, float):
        digits = 2 if key == "events_ratio" else 0 if value >= 1000 else 1
        return f"{value:.{digits}f}"
    return "" if value is None else str(value)
