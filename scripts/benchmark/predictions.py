"""Predictions: what it costs to deliver one prediction's events to those who follow it.

One prediction before the paced upstream, followed by many: `llama-proxy serve` gets each event once
and sends it to all of them. In each round and for each number of followers both are started anew.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmark.followers import FollowersPlan, FollowersResult, followers_result
from benchmark.machine import allow_descriptors, share_processors
from benchmark.measure import wait_until_quiet
from benchmark.peers.llama_proxy import start_main
from benchmark.plan import EVENTS_PER_S
from benchmark.processes import Children

Row = dict[str, object]

_COLUMNS = {
    "followers": "followers",
    "events_per_s": "events/s, to all",
    "cpu_us_per_event": "CPU µs/event",
    "cpu_us_per_event_min_max": "min-max",
    "delay_ms": "delay ms",
    "delay_p99_ms": "99% ms",
    "rss_before_mib": "RSS MiB before",
    "rss_followed_mib": "followed",
    "rss_after_mib": "after",
    "rss_kib_per_follower": "KiB/follower",
    "trouble": "trouble",
}
# A peer that had to wait for its processor has the work of others in its figures.
_WAITED_SHARE = 0.05


def measure_predictions(
    followers: Sequence[int], rounds: int, seconds: float, tell: Callable[[str], None]
) -> Row:
    """Measure each number of followers in each round.

    Raises:
        BenchmarkError: When a process of the benchmark fails.
    """
    allow_descriptors(max(followers))
    samples: dict[int, list[FollowersResult]] = {count: [] for count in followers}
    for number in range(1, rounds + 1):
        for count in followers:
            tell(f"round {number} of {rounds}: {count} followers")
            samples[count].append(_measure_one(count, seconds))
    return {
        "rounds": rounds,
        "seconds": seconds,
        "events_per_s": EVENTS_PER_S,
        "figures": [figures(count, seen) for count, seen in samples.items()],
        "samples": {str(count): [asdict(each) for each in seen] for count, seen in samples.items()},
    }


def _measure_one(followers: int, seconds: float) -> FollowersResult:
    processors = share_processors(os.sched_getaffinity(0))
    with (
        Children(processors=processors.others) as others,
        Children(processors=processors.peer) as peers,
        tempfile.TemporaryDirectory(prefix="benchmark-") as folder,
    ):
        upstream = others.start("the upstream", ["-m", "benchmark.paced_upstream"])
        peer = start_main(peers, int(upstream.read_line()), Path(folder))
        # It goes on importing what its first clients may want: that is not the prediction's memory.
        wait_until_quiet(peer.pids)
        plan = FollowersPlan(peer.port, peer.pids, followers, EVENTS_PER_S, seconds)
        arguments = ["-m", "benchmark.followers", json.dumps(asdict(plan))]
        return followers_result(others.start("the load", arguments).read_all())


def figures(followers: int, samples: Sequence[FollowersResult]) -> Row:
    """Return the row of a number of followers: the medians over the rounds.

    Args:
        followers: How many.
        samples: One for each round.
    """
    costs = [each.cpu_s * 1e6 / each.events for each in samples if each.events]
    late = [each.delays.end for each in samples if each.delays is not None]
    return {
        "followers": followers,
        "events_per_s": _median(each.events / each.window_s for each in samples),
        "cpu_us_per_event": _median(costs),
        "cpu_us_per_event_min_max": (min(costs), max(costs)) if costs else None,
        "load_cpu_us_per_event": _median(
            each.own_cpu_s * 1e6 / each.events for each in samples if each.events
        ),
        "delay_ms": _median(each.p50 * 1e3 for each in late),
        "delay_p99_ms": _median(each.p99 * 1e3 for each in late),
        "rss_before_mib": _median(each.rss_before / 2**20 for each in samples),
        "rss_followed_mib": _median(each.rss_followed / 2**20 for each in samples),
        "rss_after_mib": _median(each.rss_after / 2**20 for each in samples),
        "rss_kib_per_follower": _median(
            (each.rss_followed - each.rss_before) / 2**10 / followers for each in samples
        ),
        "trouble": _trouble(samples),
    }


def _trouble(samples: Sequence[FollowersResult]) -> str:
    found = {
        "not begun": sum(each.not_begun for each in samples),
        "ended early": sum(each.ended_early for each in samples),
    }
    told = [f"{count} {what}" for what, count in found.items() if count]
    waited = statistics.median(each.waited_s / each.window_s for each in samples)
    if waited > _WAITED_SHARE:
        told.append(f"waited {waited:.0%} of the time for its processor")
    return ", ".join(told)


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return statistics.median(found) if found else None


def predictions_markdown(found: Row) -> str:
    """Return the figures as a table in Markdown."""
    rows = found["figures"]
    assert isinstance(rows, list)  # noqa: S101  # made above
    lines = [list(_COLUMNS.values()), ["---"] * len(_COLUMNS)]
    lines += [[_cell(row[key]) for key in _COLUMNS] for row in rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cell(value: object) -> str:
    if isinstance(value, tuple | list):
        return "-".join(map(_cell, value))
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 1000 else f"{value:.1f}"
    return "" if value is None else str(value)
