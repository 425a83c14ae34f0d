"""Counts and distributions."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.measures import SECONDS_BUCKETS, Distribution, Measures


def test_distribution_value_on_a_bound_belongs_to_it() -> None:
    """A bucket's bound is inclusive, as Prometheus has it."""
    found = Distribution((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        found.add(value)
    assert found.cumulative() == [("1", 2), ("2", 4), ("+Inf", 5)]
    assert found.total == 7.5


def test_distribution_without_values_has_every_bucket() -> None:
    """A reader sees all bounds from the start."""
    found = Distribution((0.005, 10.0)).cumulative()
    assert found == [("0.005", 0), ("10", 0), ("+Inf", 0)]


@given(st.lists(st.floats(0, 1000)))
def test_distribution_counts_every_value_once(values: list[float]) -> None:
    """The counts ascend to the number of values, and the sum is theirs."""
    found = Distribution()
    for value in values:
        found.add(value)
    counts = [count for _, count in found.cumulative()]
    assert counts == sorted(counts)
    assert counts[-1] == len(values)
    assert math.isclose(found.total, math.fsum(values))


def test_seconds_buckets_ascend() -> None:
    """The search for a bucket relies on it."""
    assert list(SECONDS_BUCKETS) == sorted(set(SECONDS_BUCKETS))


def test_measures_keep_phases_apart() -> None:
    """Each phase has a distribution of its own, made when it is first counted."""
    found = Measures()
    assert found.phase_seconds == {}
    found.count_phase("queued", 1.0)
    found.count_phase("queued", 2.0)
    found.count_phase("decode", 4.0)
    totals = {name: distribution.total for name, distribution in found.phase_seconds.items()}
    assert totals == {"queued": 3.0, "decode": 4.0}


def test_measures_keep_first_tokens_by_route() -> None:
    """Routes do not blur each other's times."""
    found = Measures()
    found.count_first_token("/completion", 0.25)
    found.count_first_token("/v1/messages", 0.5)
    totals = {name: distribution.total for name, distribution in found.first_token_seconds.items()}
    assert totals == {"/completion": 0.25, "/v1/messages": 0.5}


def test_measures_are_not_shared() -> None:
    """Two backends count for themselves."""
    Measures().exchanges["a", "finished"] += 1
    Measures().tokens["prompt"] += 1
    assert Measures().exchanges == {}
    assert Measures().tokens == {}
