"""The metrics of one prediction."""

from __future__ import annotations

import math

import pytest

from proxy.core.predictions.metrics import MetricMode, Metrics, Scalar

REPLACE, INCREMENT, APPEND = MetricMode


def metrics_of(*steps: tuple[str, Scalar, MetricMode]) -> dict[str, object]:
    """Return the object after these steps, each of which changes something."""
    metrics = Metrics()
    assert all(metrics.add(*step) for step in steps)
    return metrics.as_object()


def test_add_replace_has_the_last_value() -> None:
    """Whatever was there, also of another type."""
    found = metrics_of(("a", 1, REPLACE), ("a", "x", APPEND), ("a", 2.5, REPLACE))
    assert found == {"a": 2.5}


def test_add_increment_adds_up() -> None:
    """From nothing it begins at 0."""
    assert metrics_of(("a", 1, INCREMENT), ("a", 1.5, INCREMENT)) == {"a": 2.5}


def test_add_append_makes_a_list() -> None:
    """Also of the one value that was there."""
    found = metrics_of(("a", "x", APPEND), ("b", 1, REPLACE), ("b", 2, APPEND), ("a", "y", APPEND))
    assert found == {"a": ["x", "y"], "b": [1, 2]}


def test_add_dots_nest() -> None:
    """`a.b` is the member `b` of `a`."""
    found = metrics_of(("a.b", 1, REPLACE), ("a.c.d", 2, REPLACE), ("e", 3, REPLACE))
    assert found == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}


@pytest.mark.parametrize(
    ("names", "found"),
    [(["a", "a.b"], {"a": {"b": 1}}), (["a.b", "a"], {"a": 1})],
    ids=["inner", "outer"],
)
def test_as_object_newer_of_two_names_that_clash_wins(names: list[str], found: object) -> None:
    """A member cannot be a number and an object."""
    assert metrics_of(*[(name, 1, REPLACE) for name in names]) == found


@pytest.mark.parametrize("mode", MetricMode)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2**64, -(2**64)])
def test_add_number_without_a_word_in_json_is_refused(mode: MetricMode, value: float) -> None:
    """It changes nothing, and nothing is made for it."""
    metrics = Metrics()
    assert not metrics.add("a", value, mode)
    assert metrics.as_object() == {}


@pytest.mark.parametrize("value", [2**64 - 1, -(2**64) + 1, 1e308, True])
def test_add_number_at_its_bound_is_kept(value: float) -> None:
    """64 bits, and every finite float."""
    assert metrics_of(("a", value, REPLACE)) == {"a": value}


@pytest.mark.parametrize(
    ("present", "value"),
    [("x", 1), (1, "x"), (1e308, 1e308), (2**64 - 1, 1)],
    ids=["to_text", "by_text", "overflow", "too_long"],
)
def test_add_increment_that_does_not_fit_changes_nothing(present: Scalar, value: Scalar) -> None:
    """Texts do not add up, and a sum has the bounds of a value."""
    metrics = Metrics()
    metrics.add("a", present, REPLACE)
    assert not metrics.add("a", value, INCREMENT)
    assert metrics.as_object() == {"a": present}


def test_add_increment_of_a_list_changes_nothing() -> None:
    """A list is no number."""
    metrics = Metrics()
    metrics.add("a", 1, APPEND)
    assert not metrics.add("a", 1, INCREMENT)
    assert metrics.as_object() == {"a": [1]}


def test_add_texts_are_made_sound() -> None:
    """A name and a value may have lone surrogates."""
    assert metrics_of(("a\ud800", "\udc00", REPLACE)) == {"a\ufffd": "\ufffd"}


def test_as_object_is_a_copy() -> None:
    """Who has it sees no later change, and makes none."""
    metrics = Metrics()
    metrics.add("a", 1, APPEND)
    found = metrics.as_object()
    metrics.add("a", 2, APPEND)
    assert found == {"a": [1]}
