"""The input of a prediction, and what llama-server is asked for it."""

from __future__ import annotations

import json

import pytest

from proxy.core.predictions.inputs import (
    CHAT_PATH,
    MEMBERS,
    NATIVE_PATH,
    UpstreamRequest,
    upstream_request,
)
from proxy.core.predictions.refusals import InvalidPrediction

CHAT = [{"role": "user", "content": "Hello"}]
ASKED = {"stream": True, "return_progress": True}
ASKED_OF_CHAT = {**ASKED, "stream_options": {"include_usage": True}}
ASKED_OF_NATIVE = {**ASKED, "response_fields": ["content", "stop", "timings"]}

PICTURE = [
    {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": "http://10.0.0.1/"}}],
    }
]


def problems(**given: object) -> list[tuple[str, str]]:
    """Return what is wrong with an input: which member, and in what words."""
    with pytest.raises(InvalidPrediction) as found:
        upstream_request(given)
    detail = found.value.detail
    assert all(problem.loc[:2] == ("body", "input") for problem in detail)
    return [(problem.loc[2], problem.msg) for problem in detail]


def wrong(**given: object) -> list[str]:
    """Return which members of an input with a prompt are wrong."""
    return [name for name, _ in problems(**{"prompt": "x", **given})]


# -- what llama-server is asked --------------------------------------------------------------------


def test_prompt_is_asked_of_the_native_route() -> None:
    """As a stream, whose last event does not repeat the prompt."""
    assert upstream_request({"prompt": "x"}) == UpstreamRequest(
        NATIVE_PATH, {"prompt": "x", **ASKED_OF_NATIVE}
    )


def test_messages_are_asked_of_the_chat_route() -> None:
    """As a stream that tells its usage."""
    assert upstream_request({"messages": CHAT}) == UpstreamRequest(
        CHAT_PATH, {"messages": CHAT, **ASKED_OF_CHAT}
    )


def test_prompt_with_a_system_prompt_is_a_chat() -> None:
    """Of both, and without the members that it was made of."""
    found = upstream_request({"prompt": "Hello", "system_prompt": "Be brief."})
    assert found == UpstreamRequest(
        CHAT_PATH,
        {"messages": [{"role": "system", "content": "Be brief."}, *CHAT], **ASKED_OF_CHAT},
    )


def test_prompt_that_is_empty_is_a_prompt() -> None:
    """The model begins by itself."""
    assert upstream_request({"prompt": "", "system_prompt": ""}).path == NATIVE_PATH


@pytest.mark.parametrize("empty", [{"prompt": ""}, {"system_prompt": ""}])
def test_member_that_is_empty_beside_messages_is_left_out(empty: dict[str, object]) -> None:
    """A form sends its empty fields too."""
    assert upstream_request({"messages": CHAT, **empty}).fields == {
        "messages": CHAT,
        **ASKED_OF_CHAT,
    }


def test_messages_that_are_empty_beside_a_prompt_are_left_out() -> None:
    """The same the other way round."""
    found = upstream_request({"messages": [], "prompt": "x"})
    assert found.fields == {"prompt": "x", **ASKED_OF_NATIVE}


def test_member_that_is_not_in_the_table_goes_to_llama_server() -> None:
    """So that each of its parameters can be used."""
    found = upstream_request({"prompt": "x", "mirostat": 2, "logit_bias": None})
    assert found.fields["mirostat"] == 2
    assert "logit_bias" in found.fields


@pytest.mark.parametrize(
    ("name", "value"),
    [("stream", False), ("return_progress", False), ("response_fields", []), ("stream_options", 5)],
)
def test_member_that_is_ours_is_ignored(name: str, value: object) -> None:
    """How llama-server is asked is no part of the input."""
    assert upstream_request({"prompt": "x", name: value}) == upstream_request({"prompt": "x"})


def test_request_as_body_is_json_with_the_text_as_it_is() -> None:
    """In UTF-8, and the numbers as they were read."""
    body = UpstreamRequest(NATIVE_PATH, {"prompt": "é", "n": 1.0}).as_body()
    assert body == '{"prompt":"é","n":1.0}'.encode()


# -- what is wrong ---------------------------------------------------------------------------------


def test_input_without_prompt_and_messages_lacks_the_prompt() -> None:
    """In Cog's words, with Cog's type."""
    with pytest.raises(InvalidPrediction) as found:
        upstream_request({})
    assert json.loads(found.value.as_body()) == {
        "detail": [
            {
                "loc": ["body", "input", "prompt"],
                "msg": "Field required",
                "type": "value_error.missing",
            }
        ]
    }


def test_system_prompt_alone_lacks_the_prompt() -> None:
    """There is nothing to answer."""
    assert problems(system_prompt="x") == [("prompt", "Field required")]


def test_input_with_prompt_and_messages_is_told() -> None:
    """One of them would be lost."""
    assert problems(prompt="x", messages=CHAT) == [
        ("messages", "Send either prompt or messages, not both.")
    ]


@pytest.mark.parametrize("messages", [CHAT, []])
def test_system_prompt_beside_messages_is_told(messages: object) -> None:
    """They have a place for it, also if there are none yet."""
    assert problems(messages=messages, system_prompt="x") == [
        ("system_prompt", "Send it as the first of the messages.")
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"prompt": 5}, '5 is not of type "string"'),
        ({"prompt": ["a"]}, '["a"] is not of type "string"'),
        ({"max_tokens": 1.5}, '1.5 is not of type "integer"'),
        ({"max_tokens": -2}, "-2 is less than the minimum of -1"),
        ({"max_tokens": 2**31}, "2147483648 is greater than the maximum of 2147483647"),
        ({"top_p": 1.5}, "1.5 is greater than the maximum of 1"),
        ({"stop": 5}, '5 is not of types "array", "string"'),
    ],
)
def test_member_of_the_wrong_kind_is_told_in_cogs_words(
    given: dict[str, object], words: str
) -> None:
    """Those of the checker that Cog uses."""
    assert [found for _, found in problems(**{"prompt": "x", **given})] == [words]


def test_member_within_its_bounds_is_taken() -> None:
    """A number with a point too, where one is an integer."""
    given = {"prompt": "x", "top_p": 0.5, "max_tokens": 4.0}
    assert upstream_request(given).fields == {**given, **ASKED_OF_NATIVE}


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
def test_member_that_is_null_is_told(member: object) -> None:
    """As with Cog: whoever does not want one leaves it out."""
    name = getattr(member, "name", "")
    assert name in wrong(**{name: None})


def test_element_of_the_wrong_type_is_told_by_its_place() -> None:
    """Each of them."""
    assert [name for name, _ in problems(messages=[5, {}, 6])] == ["messages/0", "messages/2"]


def test_elements_beyond_a_hundred_are_not_told() -> None:
    """An answer must not be many times as large as its question."""
    assert len(problems(messages=[5] * 1000)) == 100


def test_everything_that_is_wrong_is_told_in_the_order_of_the_alphabet() -> None:
    """What is missing comes last."""
    found = [name for name, _ in problems(top_p=5, max_tokens=True, n=2)]
    assert found == ["max_tokens", "n", "top_p", "prompt"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("n_cmpl", 0),
        ("tools", [{}]),
        ("functions", [{}]),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("n_probs", 3),
        ("return_tokens", True),
    ],
)
def test_member_that_text_cannot_carry_is_told(name: str, value: object) -> None:
    """It would be without effect."""
    assert wrong(**{name: value}) == [name]


@pytest.mark.parametrize(
    ("name", "value"), [("n", 1), ("n", None), ("tools", []), ("logprobs", False), ("n_probs", 0)]
)
def test_member_that_asks_for_nothing_special_is_taken(name: str, value: object) -> None:
    """Clients send their defaults."""
    assert upstream_request({"prompt": "x", name: value}).fields[name] == value


def test_response_format_with_a_prompt_is_told() -> None:
    """llama-server's native route does not read it."""
    assert wrong(response_format={"type": "json_object"}) == ["response_format"]


@pytest.mark.parametrize(
    "given", [{"messages": CHAT}, {"messages": []}, {"prompt": "x", "system_prompt": "y"}]
)
def test_response_format_of_a_chat_is_taken(given: dict[str, object]) -> None:
    """There it is read."""
    found = upstream_request({**given, "response_format": {"type": "json_object"}})
    assert found.fields["response_format"] == {"type": "json_object"}


def test_media_by_a_foreign_url_is_told() -> None:
    """llama-server would fetch it."""
    ((name, words),) = problems(messages=PICTURE)
    assert name == "messages"
    assert "must be a data: URL" in words


def test_media_by_a_foreign_url_is_taken_where_it_is_allowed() -> None:
    """The operator's choice."""
    found = upstream_request({"messages": PICTURE}, allow_remote_media=True)
    assert found.fields["messages"] == PICTURE


def test_member_is_named_once() -> None:
    """The table is an OpenAPI document too."""
    assert len({member.name for member in MEMBERS}) == len(MEMBERS)
