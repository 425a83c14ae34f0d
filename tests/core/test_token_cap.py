"""How many tokens an answer may have at most: by route, and by what the client wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.generation import upstream_body
from proxy.core.routes import GENERATING_PATHS
from proxy.core.token_cap import capped_members

BOUND = 100
NAMES = {
    "/completion": "n_predict",
    "/completions": "n_predict",
    "/infill": "n_predict",
    "/v1/completions": "max_tokens",
    "/chat/completions": "max_tokens",
    "/v1/chat/completions": "max_tokens",
    "/v1/messages": "max_tokens",
    "/responses": "max_output_tokens",
    "/v1/responses": "max_output_tokens",
}
ALL_NAMES = ["max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"]


def test_every_generating_route_is_in_the_table() -> None:
    """A new one has to be thought of."""
    assert NAMES.keys() == GENERATING_PATHS


@pytest.mark.parametrize(("label", "name"), NAMES.items(), ids=NAMES.keys())
def test_bound_of_a_body_without_one_has_the_routes_name(label: str, name: str) -> None:
    """The one that llama-server reads there."""
    assert capped_members(label, {"prompt": "a"}, BOUND) == {name: BOUND}


@pytest.mark.parametrize("label", NAMES)
def test_no_bound_changes_nothing(label: str) -> None:
    """Whatever the client wrote."""
    assert capped_members(label, {"n_predict": -1, "max_tokens": 7}, None) == {}


@pytest.mark.parametrize("name", ALL_NAMES)
@pytest.mark.parametrize("label", ["/completion", "/v1/chat/completions", "/v1/responses"])
@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (7, 7),
        (BOUND, BOUND),
        (BOUND + 1, BOUND),
        (10**30, BOUND),
        # Larger than any float, and JSON has it.
        pytest.param(10**400, BOUND, id="10**400"),
        (0, 0),
        # No bound, to llama-server.
        (-1, BOUND),
        (-2, BOUND),
        # No number.
        (None, BOUND),
        (True, BOUND),
        (False, BOUND),
        ("7", BOUND),
        (7.0, 7),
        (7.9, 7),
        (float("inf"), BOUND),
        (float("nan"), BOUND),
        ([7], BOUND),
        ({}, BOUND),
    ],
    ids=repr,
)
def test_bound_of_a_body_with_one(label: str, name: str, asked: Any, found: int) -> None:
    """Fewer stay as they are; more, none, or what is no number becomes the bound, by each name."""
    assert capped_members(label, {name: asked}, BOUND) == {NAMES[label]: found, name: found}


def test_lowest_of_several_names_counts() -> None:
    """Which of them llama-server would read is then the same."""
    fields = {"max_tokens": 30, "max_completion_tokens": 20, "n_predict": -1, "prompt": "a"}
    assert capped_members("/v1/chat/completions", fields, BOUND) == {
        "max_tokens": 20,
        "max_completion_tokens": 20,
        "n_predict": 20,
    }


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2)


@given(
    st.sampled_from(sorted(NAMES)),
    st.dictionaries(st.sampled_from([*ALL_NAMES, "prompt", "n"]), VALUES),
    st.integers(0, 1000),
)
@settings(deadline=None)
def test_no_body_gets_past_the_bound(label: str, fields: dict[str, object], bound: int) -> None:
    """In what llama-server is sent every name of it says no more, the route's among them."""
    original = json.dumps(fields).encode()
    members = capped_members(label, fields, bound)
    sent = json.loads(upstream_body(label, fields, original, members))
    found = {name: sent[name] for name in ALL_NAMES if name in sent}
    assert NAMES[label] in found
    assert all(type(value) is int and 0 <= value <= bound for value in found.values())
