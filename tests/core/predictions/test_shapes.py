"""JSON as Cog writes it."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.predictions.shapes import to_json

# With lone surrogates, which Hypothesis leaves out by itself.
ANY_TEXT = st.text(st.characters(exclude_categories=()))
ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | ANY_TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner),
    max_leaves=10,
)


def test_to_json_is_compact_sorted_and_not_escaped() -> None:
    """Cog's form, at every level."""
    value = {"b": [1, {"z": None, "a": "é 😀"}], "a": 1.5}
    assert to_json(value) == '{"a":1.5,"b":[1,{"a":"é 😀","z":null}]}'.encode()


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]])
def test_to_json_not_finite_is_an_error(value: object) -> None:
    """JSON has no word for it, and Python's is not JSON."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(value)


@given(ANY_JSON)
def test_to_json_any_value_is_one_line_of_utf8(value: object) -> None:
    """So it is one data line of a frame, whatever it is."""
    line = to_json(value)
    json.loads(line.decode())
    assert b"\n" not in line
    assert b"\r" not in line
