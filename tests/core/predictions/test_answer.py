"""llama-server's stream as the output of a prediction."""

from __future__ import annotations

import json

import pytest

from proxy.core.errors import UpstreamFailed
from proxy.core.predictions.answer import AnswerReader, Output, Thought
from proxy.core.predictions.inputs import CHAT_PATH, NATIVE_PATH
from proxy.core.sse import MAX_EVENT_BYTES

TIMINGS = {"cache_n": 3, "prompt_n": 2, "predicted_n": 4, "predicted_per_second": 81.5}
DONE = b"data: [DONE]\n\n"


def event(found: object) -> bytes:
    """Return one event with this JSON."""
    return b"data: " + json.dumps(found).encode() + b"\n\n"


def native(content: object, *, stop: bool = False, **more: object) -> bytes:
    """Return an event of `/completion`."""
    return event({"content": content, "stop": stop, **more})


def chat(**delta: object) -> bytes:
    """Return an event of a chat."""
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


def test_native_content_is_output() -> None:
    """One piece for each event."""
    reader = AnswerReader(NATIVE_PATH)
    assert reader.feed(native("a") + native("b")) == [Output("a"), Output("b")]


def test_native_event_with_stop_is_the_end() -> None:
    """It may have the last text; nothing after it is read."""
    reader = AnswerReader(NATIVE_PATH)
    assert reader.feed(native("a", stop=True) + native("b")) == [Output("a")]
    assert reader.whole


def test_native_answer_without_stop_is_not_whole() -> None:
    """Its text may have ended in the middle."""
    reader = AnswerReader(NATIVE_PATH)
    reader.feed(native("a"))
    assert not reader.whole


def test_chat_content_is_output() -> None:
    """The first event tells the role and no content."""
    reader = AnswerReader(CHAT_PATH)
    assert reader.feed(chat(role="assistant", content=None) + chat(content="a")) == [Output("a")]


def test_chat_reasoning_is_a_thought() -> None:
    """It is no part of the answer."""
    reader = AnswerReader(CHAT_PATH)
    assert reader.feed(chat(reasoning_content="why", content="so")) == [
        Thought("why"),
        Output("so"),
    ]


def test_chat_is_whole_with_done_alone() -> None:
    """The event with the usage names no choice and is not the end."""
    reader = AnswerReader(CHAT_PATH)
    reader.feed(chat() + event({"choices": [], "usage": {}}))
    assert not reader.whole
    reader.feed(DONE)
    assert reader.whole


def test_feed_with_an_event_in_pieces_waits_for_its_end() -> None:
    """However it is cut."""
    reader = AnswerReader(NATIVE_PATH)
    data = native("aé")
    found = [piece for byte in data for piece in reader.feed(bytes([byte]))]
    assert found == [Output("aé")]


def test_progress_is_no_output() -> None:
    """It tells of the prompt."""
    reader = AnswerReader(NATIVE_PATH)
    assert reader.feed(native("x", prompt_progress={"total": 1})) == []


@pytest.mark.parametrize("path", [NATIVE_PATH, CHAT_PATH])
def test_error_event_is_kept_as_the_error(path: str) -> None:
    """The answer is not whole then, and what follows is not read."""
    reader = AnswerReader(path)
    reader.feed(event({"error": {"code": 500, "message": "no memory", "type": "x"}}) + DONE)
    assert (reader.error, reader.whole) == ("no memory", False)


@pytest.mark.parametrize(
    ("path", "data"),
    [
        (NATIVE_PATH, b"data: {\n\n"),
        (NATIVE_PATH, event([])),
        (NATIVE_PATH, event({"stop": False})),
        (NATIVE_PATH, native(5)),
        (CHAT_PATH, event({"choices": [{}]})),
        (CHAT_PATH, event({"choices": [5]})),
        (CHAT_PATH, event({"choices": [{"delta": None}]})),
    ],
)
def test_event_that_is_malformed_is_llama_servers_failure(path: str, data: bytes) -> None:
    """No part of it is guessed."""
    with pytest.raises(UpstreamFailed, match="not understood"):
        AnswerReader(path).feed(data)


def test_event_that_is_too_large_is_llama_servers_failure() -> None:
    """At most one event is held."""
    reader = AnswerReader(CHAT_PATH)
    with pytest.raises(UpstreamFailed, match="too large"):
        reader.feed(b"data: " + bytes(MAX_EVENT_BYTES))


def test_metrics_are_those_of_the_timings() -> None:
    """Tokens of the prompt that were cached are tokens of the prompt."""
    reader = AnswerReader(NATIVE_PATH)
    reader.feed(native("", stop=True, timings=TIMINGS))
    assert reader.timings == TIMINGS
    assert reader.metrics() == {
        "prompt_tokens": 5,
        "completion_tokens": 4,
        "tokens_per_second": 81.5,
    }


def test_metrics_without_timings_are_those_of_the_usage() -> None:
    """Another server than llama-server tells nothing else."""
    reader = AnswerReader(CHAT_PATH)
    usage = {"prompt_tokens": 5, "completion_tokens": 4}
    reader.feed(event({"choices": [], "usage": usage}))
    assert reader.metrics() == usage


def test_metrics_before_any_were_told_are_none() -> None:
    """Nothing is made up."""
    assert AnswerReader(CHAT_PATH).metrics() == {}


def test_metrics_leave_out_a_speed_that_is_none() -> None:
    """llama-server writes null for what is not finite."""
    reader = AnswerReader(NATIVE_PATH)
    reader.feed(native("", timings={**TIMINGS, "predicted_per_second": None}))
    assert "tokens_per_second" not in reader.metrics()
