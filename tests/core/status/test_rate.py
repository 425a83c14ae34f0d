"""The live rate: its window, its samples, its bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.status.rate import LiveRate


def rate_of(*samples: tuple[float, int]) -> LiveRate:
    """A rate that has taken these samples."""
    rate = LiveRate()
    for now, count in samples:
        rate.add(now, count)
    return rate


def test_one_sample_gives_no_rate() -> None:
    """Nor does none."""
    assert rate_of().per_second is None
    assert rate_of((10.0, 5)).per_second is None


def test_rate_is_of_the_last_two_seconds() -> None:
    """What was before does not count any more."""
    slow = [(10 + step * 0.25, step) for step in range(9)]
    fast = [(12 + step * 0.25, 8 + 10 * step) for step in range(1, 9)]
    assert rate_of(*slow).per_second == pytest.approx(4.0)
    assert rate_of(*slow, *fast).per_second == pytest.approx(40.0)


def test_sample_that_follows_closely_is_left_out() -> None:
    """A burst of reports does not make the rate jump."""
    assert rate_of((10.0, 0), (10.1, 50)).per_second is None
    assert rate_of((10.0, 0), (10.1, 50), (11.0, 10)).per_second == pytest.approx(10.0)


def test_sample_after_a_long_pause_counts_with_the_one_before() -> None:
    """Two are enough, however far apart; then the pause is forgotten."""
    assert rate_of((10.0, 0), (20.0, 30)).per_second == pytest.approx(3.0)
    assert rate_of((10.0, 0), (20.0, 30), (20.5, 40)).per_second == pytest.approx(20.0)


def test_pause_shows() -> None:
    """A count that stands still brings the rate down to nothing within the window."""
    samples = [(10 + step * 0.25, min(step, 4)) for step in range(14)]
    assert rate_of(*samples).per_second == 0.0


def test_count_that_falls_gives_zero() -> None:
    """llama-server may correct what was seen."""
    assert rate_of((10.0, 9), (11.0, 3)).per_second == 0.0


@given(st.lists(st.floats(min_value=0, max_value=3), max_size=100))
def test_samples_are_bounded(gaps: list[float]) -> None:
    """Two seconds at four samples a second, with both ends."""
    rate, now = LiveRate(), 0.0
    for gap in gaps:
        now += gap
        rate.add(now, 1)
        assert len(rate._samples) <= 10
