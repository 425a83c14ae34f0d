"""Counts and distributions of what the proxy did, without any exporter's types.

Owns plain numbers: they are added to as exchanges end and read when somebody asks. Label values
come from closed sets (route labels, end causes, phases), so their number is bounded whatever
clients send.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

# Seconds: from a fast first token of a small model to a long answer of a large one on a CPU.
SECONDS_BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Distribution:
    """How often values fell into each bucket, and their sum.

    Args:
        bounds: The buckets' upper bounds, ascending; one more has no bound.
    """

    def __init__(self, bounds: tuple[float, ...] = SECONDS_BUCKETS) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count `value`."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, int]]:
        """Return how many values are at most each bound, the last one being `+Inf`."""
        names = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        found, so_far = [], 0
        for name, count in zip(names, self._counts, strict=True):
            so_far += count
            found.append((name, so_far))
        return found


@dataclass(slots=True)
class Measures:
    """What a backend has done since it began.

    Attributes:
        exchanges: Ended exchanges by route label and end cause.
        phase_seconds: Time spent in each phase.
        first_token_seconds: From accepted to llama-server's first byte of body, by route label.
        bytes_sent: Bytes of body sent to clients.
        tokens: Tokens by kind, `prompt` or `completion`.
    """

    exchanges: Counter[tuple[str, str]] = field(default_factory=Counter)
    phase_seconds: dict[str, Distribution] = field(default_factory=dict)
    first_token_seconds: dict[str, Distribution] = field(default_factory=dict)
    bytes_sent: int = 0
    tokens: Counter[str] = field(default_factory=Counter)

    def count_phase(self, phase: str, seconds: float) -> None:
        """Count that an exchange spent `seconds` in `phase`."""
        self.phase_seconds.setdefault(phase, Distribution()).add(seconds)

    def count_first_token(self, route: str, seconds: float) -> None:
        """Count the time to the first token of an exchange."""
        self.first_token_seconds.setdefault(route, Distribution()).add(seconds)
