"""How fast something counts up at the moment.

Owns the window that "at the moment" is: two seconds, so that a pause shows soon and single tokens
do not jump. It must never read a clock.
"""

from __future__ import annotations

from collections import deque

_WINDOW_S = 2.0
_LEAST_GAP_S = 0.25
# A timer of that period comes a little early in floating point.
_SLACK_S = 1e-6


class LiveRate:
    """A count's growth per second over the last two seconds. At most ten samples are kept."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now: float, count: int) -> None:
        """Take a sample; one that follows the last by less than a quarter of a second is left out.

        Args:
            now: When, in seconds of a clock that does not jump.
            count: The count so far.
        """
        samples = self._samples
        if samples and now - samples[-1][0] < _LEAST_GAP_S - _SLACK_S:
            return
        samples.append((now, count))
        while len(samples) > 2 and now - samples[0][0] > _WINDOW_S + _SLACK_S:
            samples.popleft()

    @property
    def per_second(self) -> float | None:
        """The rate; None before there are two samples."""
        if len(self._samples) < 2:
            return None
        (start, first), (end, last) = self._samples[0], self._samples[-1]
        return max(0, last - first) / (end - start)
