"""The words for a value of the wrong type, as Cog has them."""

from __future__ import annotations

import pytest

from proxy.core.predictions.json_types import is_type, out_of_bounds, wrong_type

VALUES: dict[str, object] = {
    "array": [],
    "object": {},
    "string": "",
    "integer": 1,
    "number": 1.5,
}


@pytest.mark.parametrize("name", VALUES)
def test_type_has_its_own_values_alone(name: str) -> None:
    """But an integer is a number."""
    found = {other for other, value in VALUES.items() if is_type(value, name)}
    assert found == ({"integer", "number"} if name == "number" else {name})


@pytest.mark.parametrize("value", [True, None])
@pytest.mark.parametrize("name", VALUES)
def test_type_has_no_boolean_and_no_null(name: str, value: object) -> None:
    """Python would take True for 1."""
    assert not is_type(value, name)


def test_integer_with_a_point_is_an_integer() -> None:
    """As JSON schema says."""
    assert is_type(1.0, "integer")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (5, "5"),
        (1.5, "1.5"),
        (None, "null"),
        (True, "true"),
        ("é", '"é"'),
        ({"b": 1, "a": [1, "x"]}, '{"a":[1,"x"],"b":1}'),
    ],
)
def test_wrong_type_shows_the_value_as_json(value: object, shown: str) -> None:
    """As Cog writes it: compact and in order."""
    assert wrong_type(value, "thing") == f'{shown} is not of type "thing"'


def test_wrong_type_with_several_types_names_them_all() -> None:
    """In the plural."""
    assert wrong_type(5, "array", "string") == '5 is not of types "array", "string"'


def test_wrong_type_with_a_long_value_shows_its_beginning() -> None:
    """A prompt can have megabytes."""
    assert wrong_type(["x" * 1000], "string").startswith('["xxx')
    assert len(wrong_type(["x" * 1000], "string")) < 250


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (-2, "-2 is less than the minimum of -1"),
        (1.5, "1.5 is greater than the maximum of 1"),
        (-1, None),
        (1, None),
    ],
)
def test_out_of_bounds_names_the_bound(value: float, words: str | None) -> None:
    """The bound itself is allowed."""
    assert out_of_bounds(value, -1, 1) == words


def test_out_of_bounds_without_bounds_is_never() -> None:
    """Any number will do."""
    assert out_of_bounds(10**400, None, None) is None
