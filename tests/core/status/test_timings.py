"""What an answer took: where each dialect tells it, and the rates."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.status.timings import Timings, find_timings

TOLD = {
    "cache_n": 5,
    "prompt_n": 7,
    "prompt_ms": 70.0,
    "predicted_n": 20,
    "predicted_ms": 400.5,
    "draft_n": 16,
    "draft_n_accepted": 12,
}
FOUND = Timings(7, 5, 70.0, 20, 400.5, 16, 12)


def compact(value: object) -> bytes:
    """As llama-server writes it."""
    return json.dumps(value, separators=(",", ":")).encode()


def test_timings_are_found_with_all_their_members() -> None:
    """They are in the last event of a stream."""
    tail = b"data: " + compact({"choices": [], "timings": TOLD}) + b"\n\ndata: [DONE]\n\n"
    assert find_timings(tail) == FOUND


def test_timings_without_times_have_no_rates() -> None:
    """Zeros stand for counts that are not told."""
    found = find_timings(compact({"timings": {"predicted_n": 2}}))
    assert found == Timings(completion_tokens=2)
    assert found is not None
    assert found.decode_tokens_per_second is None


def test_last_timings_that_are_whole_count() -> None:
    """With `timings_per_token` each event has some, and the last may be cut off."""
    first, last = compact({"timings": {"predicted_n": 1}}), compact({"timings": TOLD})
    assert find_timings(first + last) == FOUND
    assert find_timings(first + last[:-9]) == Timings(completion_tokens=1)


def test_timings_go_before_usage() -> None:
    """They have times, and count what was cached."""
    assert find_timings(compact({"timings": TOLD, "usage": {"prompt_tokens": 1}})) == FOUND


@pytest.mark.parametrize(
    ("usage", "timings"),
    [
        pytest.param(
            {"completion_tokens": 3, "prompt_tokens": 9},
            Timings(prompt_tokens=9, completion_tokens=3),
            id="of OpenAI",
        ),
        pytest.param(
            {
                "completion_tokens": 3,
                "prompt_tokens": 9,
                "prompt_tokens_details": {"cached_tokens": 4},
            },
            Timings(prompt_tokens=5, cached_tokens=4, completion_tokens=3),
            id="of OpenAI, cached",
        ),
        pytest.param(
            {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 3},
            Timings(prompt_tokens=5, cached_tokens=4, completion_tokens=3),
            id="of a response",
        ),
        pytest.param(
            {"cache_read_input_tokens": 4, "input_tokens": 5, "output_tokens": 3},
            Timings(prompt_tokens=5, cached_tokens=4, completion_tokens=3),
            id="of a message",
        ),
        pytest.param({"prompt_tokens": "9"}, Timings(), id="no numbers"),
    ],
)
def test_usage_stands_in_where_there_are_no_timings(
    usage: dict[str, object], timings: Timings
) -> None:
    """OpenAI counts cached tokens among the prompt's, Anthropic beside them."""
    assert find_timings(compact({"usage": usage})) == timings


def test_message_tells_in_two_places() -> None:
    """What its start told is not forgotten at its end, and what its end tells goes before."""
    start = {"cache_read_input_tokens": 4, "input_tokens": 5, "output_tokens": 0}
    tail = compact({"message": {"usage": start}}) + compact({"usage": {"output_tokens": 3}})
    assert find_timings(tail) == Timings(prompt_tokens=5, cached_tokens=4, completion_tokens=3)


@pytest.mark.parametrize("tail", [b"", b"data: [DONE]\n\n", b'{"timings":{"prompt', b'"usage":{}'])
def test_nothing_is_found_where_nothing_is_told(tail: bytes) -> None:
    """None, and not zeros, which would be figures."""
    assert find_timings(tail) is None


@given(st.binary())
def test_any_bytes_are_searched_without_an_error(data: bytes) -> None:
    """It is about figures, not about answers."""
    found = find_timings(b'"timings":{' + data)
    assert found is None or found.prompt_tokens >= 0


def test_rates_are_of_what_was_really_done() -> None:
    """Cached tokens are not prefilled."""
    assert FOUND.prefill_tokens_per_second == pytest.approx(100.0)
    assert FOUND.decode_tokens_per_second == pytest.approx(49.94, abs=0.01)
    assert FOUND.acceptance == 0.75


@pytest.mark.parametrize("prompt_ms", [0, 0.0, 3.5])
def test_full_cache_hit_prefills_at_zero(prompt_ms: float) -> None:
    """Nothing was prefilled, in whatever time."""
    assert Timings(0, 900, prompt_ms).prefill_tokens_per_second == 0.0


@pytest.mark.parametrize("milliseconds", [0, 0.0, -1.0])
def test_tokens_in_no_time_have_no_rate(milliseconds: float) -> None:
    """A rate is never infinite."""
    timings = Timings(prompt_tokens=3, prompt_ms=milliseconds, completion_tokens=2)
    assert timings.prefill_tokens_per_second is None
    assert Timings(completion_tokens=2, decode_ms=milliseconds).decode_tokens_per_second is None


def test_single_token_has_no_decode_rate() -> None:
    """It is prefill's, and the time after it is next to nothing."""
    assert Timings(completion_tokens=1, decode_ms=0.001).decode_tokens_per_second is None


def test_acceptance_is_a_part() -> None:
    """None without drafts; never more than all of them."""
    assert Timings().acceptance is None
    assert Timings(draft_tokens=2, accepted_tokens=3).acceptance == 1.0
    assert Timings(draft_tokens=2).acceptance == 0.0
