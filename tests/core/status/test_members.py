"""Members of foreign JSON: the right type or nothing."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.status.members import (
    count_in,
    number_in,
    object_in,
    objects_from_end,
    text_in,
)

WRONG = [None, True, "7", [7], {"a": 7}, math.nan, math.inf, -math.inf, 10**400, 2**53 + 1]


@pytest.mark.parametrize("value", WRONG, ids=lambda value: str(value)[:8])
def test_value_that_is_no_number_is_left_out(value: object) -> None:
    """Neither as a number nor as a count; nothing is an error."""
    assert number_in({"a": value}, "a") is None
    assert count_in({"a": value}, "a") is None


def test_number_stays_as_it_was_written() -> None:
    """A temperature of 1 is not 1.0, and a negative one is the client's."""
    assert [number_in({"a": value}, "a") for value in (1, 0.5, -1)] == [1, 0.5, -1]


def test_count_is_whole_and_not_negative() -> None:
    """llama-server has -1 for what has no bound."""
    assert [count_in({"a": value}, "a") for value in (7, 7.9, 0, -1)] == [7, 7, 0, None]


@pytest.mark.parametrize("value", [None, 7, "", ["a"], {}])
def test_value_that_is_no_text_is_left_out(value: object) -> None:
    """An empty one says nothing either."""
    assert text_in({"a": value}, "a", 9) is None


def test_text_is_cut_on_a_character() -> None:
    """Its length is in characters."""
    assert text_in({"a": "😀😀😀"}, "a", 2) == "😀😀"


def test_object_that_is_none_is_empty() -> None:
    """So that it can be asked for its members."""
    assert object_in({"a": []}, "a") == {}
    assert object_in({"a": {"b": 1}}, "a") == {"b": 1}


def test_objects_come_from_the_end() -> None:
    """The last one first; one that is cut off is left out."""
    data = b'{"a":{"n":1}} {"a":{"n":2,"in":{"a":3}}} {"ba":{"n":3}} {"a":[]} {"a":{"n":'
    assert list(objects_from_end(data, "a")) == [{"n": 2, "in": {"a": 3}}, {"n": 1}]


def test_object_inside_of_a_string_does_not_count() -> None:
    """The model may write of it."""
    data = json.dumps({"content": '"a":{"n":1}', "a": {"n": 2}}, separators=(",", ":"))
    assert list(objects_from_end(data.encode(), "a")) == [{"n": 2}]


def test_object_that_is_too_deep_is_left_out() -> None:
    """Nothing is an error."""
    assert list(objects_from_end(b'"a":{"b":' + b"[" * 100_000, "a")) == []


@given(st.binary())
def test_any_bytes_are_searched_without_an_error(data: bytes) -> None:
    """Whatever comes, objects come back."""
    found = list(objects_from_end(b'"a":{' + data, "a"))
    assert all(isinstance(each, dict) for each in found)
