"""A completion in llama-server's own form out of its events."""

from __future__ import annotations

import json
from typing import Any

from proxy.core.assembly.completion import CompletionAssembler

SETTINGS = {"n_predict": 4, "stream": True, "reasoning_in_content": True, "stop": []}
TIMINGS = {"cache_n": 0}


def event(index: int, content: str, **rest: object) -> bytes:
    """Return the event of a token."""
    found = {"index": index, "content": content, "tokens": [7], "stop": False, **rest}
    return f"data: {json.dumps({**found, 'tokens_predicted': 2})}\n\n".encode()


def last(index: int) -> bytes:
    """Return the last event of a result."""
    found = {
        "index": index,
        "content": "",
        "tokens": [],
        "stop": True,
        "tokens_predicted": 2,
        "generation_settings": SETTINGS,
        "stop_type": "eos",
        "timings": TIMINGS,
    }
    return f"data: {json.dumps(found)}\n\n".encode()


PROGRESS = event(0, "", prompt_progress={"total": 3})
WHOLE = {
    "index": 0,
    "content": "ab",
    "tokens": [],
    "stop": True,
    "tokens_predicted": 2,
    "generation_settings": {**SETTINGS, "stream": False, "reasoning_in_content": False},
    "stop_type": "eos",
    "timings": TIMINGS,
}


def assembled(*events: bytes, **fields: object) -> Any:
    """Return the answer that `events` become, for a request of `fields`."""
    assembler = CompletionAssembler(fields)
    for found in events:
        assembler.feed(found)
    return json.loads(assembler.finish().body)


def test_completion_is_its_last_event_with_the_text_of_all() -> None:
    """And with the settings of one that is not streamed."""
    answer = assembled(PROGRESS, event(0, "a"), event(0, "b"), last(0))
    assert list(answer.items()) == list(WHOLE.items())


def test_completion_has_the_probabilities_of_all_its_tokens_last() -> None:
    """Each event tells those of one."""
    events = [event(0, text, completion_probabilities=[{"token": text}]) for text in "ab"]
    answer = assembled(*events, last(0), n_probs=1)
    assert list(answer.items())[-1] == (
        "completion_probabilities",
        [{"token": "a"}, {"token": "b"}],
    )


def test_completion_has_the_fields_that_were_asked_for() -> None:
    """Each by its path."""
    answer = assembled(
        event(0, "a"), last(0), response_fields=["generation_settings/stream", "content", "no"]
    )
    assert list(answer.items()) == [("generation_settings/stream", False), ("content", "a")]


def test_completion_of_several_prompts_is_a_list_in_their_order() -> None:
    """Their events are mixed."""
    answer = assembled(event(1, "b"), PROGRESS, event(0, "a"), last(1), event(0, "b"), last(0))
    assert [(found["index"], found["content"]) for found in answer] == [(0, "ab"), (1, "b")]


def test_completion_of_an_empty_prompt_is_its_only_event() -> None:
    """llama-server generates nothing for it."""
    assert assembled(last(0))["index"] == 0


def test_completion_asks_the_questions_of_all_its_results() -> None:
    """Each may have something held back."""
    assembler = CompletionAssembler({"n_probs": 1})
    for index in (0, 1):
        assembler.feed(event(index, "a"))
        assembler.feed(last(index).replace(b'"eos"', b'"word", "stopping_word": "x"'))
    assert [question.path for question in assembler.questions()] == ["/tokenize"] * 2
