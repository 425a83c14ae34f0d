"""What the events of a completion add up to, beyond what they say."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.core.assembly.generated import Asked, Generated, choose

LAST = {"index": 0, "content": "", "tokens": [], "stop": True, "stop_type": "limit"}
PROBABILITY = {"id": 7, "token": "a", "logprob": -0.5, "top_logprobs": []}


def part(content: str, token: int = 7, count: int = 1, **rest: object) -> dict[str, Any]:
    """Return the event of one token, the `count`th."""
    return {
        "index": 0,
        "content": content,
        "tokens": [token],
        "stop": False,
        "tokens_predicted": count,
        **rest,
    }


def generated(*events: dict[str, Any], **fields: object) -> Generated:
    """Return the result of `events`, for a request of `fields`."""
    result = Generated(_keep, Asked.of(fields))
    for event in events:
        result.take(event)
    return result


def _keep(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else data


def answers(result: Generated, **answer: object) -> list[tuple[str, dict[str, Any] | None]]:
    """Answer every question of `result` with `answer`; return what was asked."""
    asked = []
    for question in result.questions():
        asked.append((question.path, question.fields))
        question.learn(answer)
    return asked


def test_text_cut_within_a_character_has_a_replacement_for_it() -> None:
    """Its tokens are counted in the last event and were never told."""
    assert generated(part("a"), {**LAST, "tokens_predicted": 3}).text() == "a\ufffd"


def test_text_cut_between_characters_has_none() -> None:
    """Every token was told."""
    assert generated(part("a"), {**LAST, "tokens_predicted": 1}).text() == "a"


HELD = (
    part("a"),
    part("", 8, 2),
    part("", 9, 3),
    {**LAST, "tokens_predicted": 3, "generation_settings": {"stop": ["xyz"]}},
)


def test_text_held_back_at_the_limit_is_asked_for_by_its_tokens() -> None:
    """It was the beginning of a stop string, of which the rest never came."""
    result = generated(*HELD, model="m")
    assert answers(result, content="..xy") == [("/detokenize", {"tokens": [8, 9], "model": "m"})]
    assert result.text() == "a..xy"


@pytest.mark.parametrize("content", ["<|im_end|>", "xyz"])
def test_text_of_tokens_that_are_never_shown_is_not_added(content: str) -> None:
    """It does not end as a stop string begins."""
    result = generated(*HELD)
    answers(result, content=content)
    assert result.text() == "a"


def test_text_is_what_was_sent_when_the_question_is_answered_with_an_error() -> None:
    """It is less exact then, and whole all the same."""
    result = generated(*HELD)
    answers(result, error={"code": 500})
    assert result.text() == "a"


@pytest.mark.parametrize(
    "events",
    [
        (*HELD[:3], part("b", 10, 4), {**HELD[3], "tokens_predicted": 4}),
        (*HELD[:3], {**HELD[3], "stop_type": "eos"}),
        (*HELD[:3], {**HELD[3], "generation_settings": {"stop": []}}),
    ],
    ids=["sent later", "not at the limit", "no stop strings"],
)
def test_text_that_is_not_held_back_is_not_asked_for(events: tuple[dict[str, Any], ...]) -> None:
    """Most answers ask nothing."""
    assert answers(generated(*events)) == []


def test_probabilities_of_the_stop_word_are_left_out_by_its_count_of_tokens() -> None:
    """The count is llama-server's, of the word by itself."""
    events = [part("a", count=i, completion_probabilities=[PROBABILITY]) for i in range(5)]
    result = generated(
        *events,
        {**LAST, "stop_type": "word", "stopping_word": " in", "tokens_predicted": 4},
        n_probs=1,
    )
    asked = answers(result, tokens=[1, 2])
    assert asked == [
        ("/tokenize", {"content": " in", "add_special": False, "parse_special": False})
    ]
    probabilities = result.probabilities()
    assert probabilities is not None
    assert probabilities.text.count(b'"id":7') == 3


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, b'{"id":7,"token":"\xc3\xa9","bytes":[195,169],"logprob":0.0,"top_logprobs":[]}'),
        (
            {"post_sampling_probs": True},
            b'{"id":7,"token":"\xc3\xa9","bytes":[195,169],"prob":1.0,"top_probs":[]}',
        ),
    ],
)
def test_probabilities_of_a_drafted_token_are_empty(
    fields: dict[str, object], expected: bytes
) -> None:
    """A stream tells none, an answer in one piece has these."""
    probabilities = generated(part("é"), LAST, n_probs=2, **fields).probabilities()
    assert probabilities is not None
    assert probabilities.text == b"[%b]" % expected


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"n_probs": 2}, True),
        ({"logprobs": 2}, True),
        ({"n_probs": 0, "logprobs": 2}, False),
        ({"n_probs": None, "logprobs": 2}, True),
        ({"logprobs": False}, False),
        ({"n_probs": "2"}, False),
        ({}, False),
    ],
)
def test_probabilities_are_asked_for_by_either_name(
    fields: dict[str, object], wanted: bool
) -> None:
    """`n_probs` counts where there are both."""
    assert Asked.of(fields).probabilities is wanted


@pytest.mark.parametrize("paths", ["content", ["content", 3], None])
def test_response_fields_that_are_no_list_of_texts_are_ignored(paths: object) -> None:
    """As in llama-server."""
    assert not Asked.of({"response_fields": paths}).response_fields


def test_choose_names_each_member_by_its_path_and_leaves_out_what_is_not_there() -> None:
    """In the order of the paths."""
    found = {"a": {"b": 1, "c": [2]}, "d": 3}
    chosen = choose(found, ["d", "a/b", "a/x", "a/c/0", "e", "a"])
    assert list(chosen.items()) == [("d", 3), ("a/b", 1), ("a", {"b": 1, "c": [2]})]
