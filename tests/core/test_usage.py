"""Tokens found at an answer's end: where each dialect tells them, cut anywhere."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.usage import Usage, find_usage

TIMINGS = '"timings":{"cache_n":5,"prompt_n":7,"prompt_ms":0.6,"predicted_n":20}'


@pytest.mark.parametrize(
    ("tail", "usage"),
    [
        pytest.param("data: {" + TIMINGS + "}\n\ndata: [DONE]\n\n", Usage(12, 20), id="stream"),
        pytest.param('{"content":"x",' + TIMINGS + "}", Usage(12, 20), id="answer"),
        pytest.param(
            '{"usage":{"completion_tokens":3,"prompt_tokens":4,"details":{"a":1}}}',
            Usage(4, 3),
            id="usage of OpenAI",
        ),
        pytest.param(
            '{"usage":{"input_tokens":4,"output_tokens":3}}', Usage(4, 3), id="of Anthropic"
        ),
        pytest.param(
            '{"usage":{"cache_read_input_tokens":5,"input_tokens":4,"output_tokens":3}}',
            Usage(9, 3),
            id="of Anthropic, cached",
        ),
        pytest.param('{"usage":{"input_tokens":1}} {' + TIMINGS + "}", Usage(12, 20), id="timings"),
        pytest.param('{"timings":{"prompt_n":', Usage(), id="cut off"),
        pytest.param('{"timings":{"prompt_n":"7","predicted_n":-1}}', Usage(), id="no numbers"),
        pytest.param("", Usage(), id="nothing"),
    ],
)
def test_usage_is_found_where_it_is_told(tail: str, usage: Usage) -> None:
    """Timings come first, for they count what was cached; zeros stand for what is not told."""
    assert find_usage(tail.encode()) == usage


def test_last_timings_count() -> None:
    """With `timings_per_token` each event has some."""
    first = json.dumps({"timings": {"prompt_n": 1, "predicted_n": 1}}, separators=(",", ":"))
    assert find_usage(f"{first}\n\n{{{TIMINGS}}}".encode()) == Usage(12, 20)


@given(st.binary())
def test_any_bytes_give_some_usage(tail: bytes) -> None:
    """It never fails: it is about figures, not about answers."""
    assert find_usage(tail).prompt_tokens >= 0
