"""What a request asks for, by the names of each route; wrong types left out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.routes import GENERATING_PATHS
from proxy.core.status.about import RequestAbout, describe_request

CHAT = "/v1/chat/completions"
NATIVE = "/completion"
TEXT = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"

USER = {"role": "user", "content": "Hello!"}


def about(label: str = CHAT, fields: dict[str, Any] | None = None, **told: Any) -> RequestAbout:
    """What a request asks for."""
    usual = {"session": None, "fast_path": False, "prediction": False, "content": True}
    return describe_request(label, fields or {}, **(usual | told))


def test_empty_request_asks_for_nothing() -> None:
    """Each parameter has its key all the same."""
    assert about() == RequestAbout(
        parameters={
            "stream": False,
            "max_tokens": None,
            "temperature": None,
            "top_p": None,
            "top_k": None,
            "tools": 0,
            "response_format": None,
        }
    )


def test_request_is_described() -> None:
    """Its model, its parameters, whose it is."""
    fields = {
        "model": "tiny",
        "stream": True,
        "max_tokens": 64,
        "temperature": 0.5,
        "top_p": 1,
        "top_k": 40,
        "tools": [{}, {}],
        "response_format": {"type": "json_object"},
        "messages": [USER],
    }
    assert about(CHAT, fields, session="s1", fast_path=True) == RequestAbout(
        model="tiny",
        parameters={
            "stream": True,
            "max_tokens": 64,
            "temperature": 0.5,
            "top_p": 1,
            "top_k": 40,
            "tools": 2,
            "response_format": "json_object",
        },
        session="s1",
        tags=("stream", "fast_path", "tools"),
        prompt="Hello!",
    )


@pytest.mark.parametrize(
    ("label", "name"),
    [
        (CHAT, "max_tokens"),
        (CHAT, "max_completion_tokens"),
        (CHAT, "n_predict"),
        (TEXT, "max_tokens"),
        (NATIVE, "n_predict"),
        ("/infill", "n_predict"),
        (RESPONSES, "max_output_tokens"),
        (MESSAGES, "max_tokens"),
    ],
)
def test_bound_is_read_under_the_routes_name(label: str, name: str) -> None:
    """-1 is no bound."""
    assert about(label, {name: 64}).parameters["max_tokens"] == 64
    assert about(label, {name: -1}).parameters["max_tokens"] is None


@pytest.mark.parametrize(
    ("label", "fields", "name"),
    [
        (CHAT, {"response_format": {"type": "json_schema", "json_schema": {}}}, "json_schema"),
        (RESPONSES, {"text": {"format": {"type": "json_schema"}}}, "json_schema"),
        (NATIVE, {"json_schema": {"type": "object"}}, "json_schema"),
        (NATIVE, {"grammar": "root ::= [a-z]"}, "grammar"),
        (RESPONSES, {"text": "json"}, None),
        (CHAT, {"response_format": "json"}, None),
    ],
)
def test_response_format_has_its_name(label: str, fields: dict[str, Any], name: str) -> None:
    """Wherever the route has it."""
    assert about(label, fields).parameters["response_format"] == name


@pytest.mark.parametrize(
    ("label", "fields", "thinks"),
    [
        (CHAT, {"chat_template_kwargs": {"enable_thinking": True}}, True),
        (CHAT, {"chat_template_kwargs": {"enable_thinking": False}, "reasoning": {"a": 1}}, False),
        (CHAT, {"chat_template_kwargs": {"enable_thinking": "yes"}}, False),
        (CHAT, {"reasoning_effort": "low"}, True),
        (CHAT, {"reasoning_effort": "none"}, False),
        (CHAT, {"reasoning_effort": 3}, False),
        (RESPONSES, {"reasoning": {"effort": "high"}}, True),
        (RESPONSES, {"reasoning": {"effort": "none"}}, False),
        (RESPONSES, {"reasoning": {"summary": "auto"}}, True),
        (RESPONSES, {"reasoning": {}}, False),
        (MESSAGES, {"thinking": {"type": "enabled", "budget_tokens": 1024}}, True),
        (MESSAGES, {"thinking": {"type": "adaptive"}}, True),
        (MESSAGES, {"thinking": {"type": "disabled"}}, False),
    ],
)
def test_thinking_is_what_the_request_tells(
    label: str, fields: dict[str, Any], thinks: bool
) -> None:
    """Not what the model does unasked."""
    assert ("thinking" in about(label, fields).tags) == thinks


def test_prediction_has_its_tag() -> None:
    """Whoever watches sees that nobody may be waiting for it."""
    assert about(prediction=True).tags == ("prediction",)


@pytest.mark.parametrize(
    ("label", "fields", "prompt"),
    [
        pytest.param(CHAT, {"messages": [USER]}, "Hello!", id="chat"),
        pytest.param(
            CHAT,
            {"messages": [{"role": "user", "content": "no"}, USER, {"role": "assistant"}]},
            "Hello!",
            id="the last of a user",
        ),
        pytest.param(
            CHAT,
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "See"},
                            {"type": "image_url"},
                            {"type": "text", "text": "this"},
                        ],
                    }
                ]
            },
            "See\nthis",
            id="parts",
        ),
        pytest.param(
            MESSAGES,
            {"messages": [USER, {"role": "user", "content": [{"type": "tool_result"}]}]},
            "Hello!",
            id="result of a tool",
        ),
        pytest.param(RESPONSES, {"input": "Hello!"}, "Hello!", id="response"),
        pytest.param(
            RESPONSES,
            {"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]},
            "Hi",
            id="response, items",
        ),
        pytest.param(TEXT, {"prompt": "Once"}, "Once", id="text"),
        pytest.param(TEXT, {"prompt": ["One", "Two"]}, "Two", id="several"),
        pytest.param(NATIVE, {"prompt": [1, 2, 3]}, None, id="tokens"),
        pytest.param(NATIVE, {"prompt": [1, "mixed", 3]}, "mixed", id="mixed"),
        pytest.param(NATIVE, {"prompt": {"prompt_string": "See"}}, "See", id="with media"),
        pytest.param("/infill", {"input_prefix": "def f("}, "def f(", id="infill"),
        pytest.param(
            "/infill", {"input_prefix": "def f(", "prompt": ""}, "def f(", id="infill, no prompt"
        ),
        pytest.param(CHAT, {"messages": [{"role": "system", "content": "x"}]}, None, id="nobody"),
    ],
)
def test_prompt_is_the_last_text_of_a_user(
    label: str, fields: dict[str, Any], prompt: str | None
) -> None:
    """Wherever the route has it."""
    assert about(label, fields).prompt == prompt


def test_prompt_is_not_read_where_texts_are_not_shown() -> None:
    """What is not there cannot get out."""
    assert about(CHAT, {"messages": [USER]}, content=False).prompt is None


def test_prompt_is_bounded_on_a_character() -> None:
    """2,000 of them, and each is whole."""
    assert about(TEXT, {"prompt": "😀" * 3000}).prompt == "😀" * 2000


def test_half_a_character_becomes_a_replacement() -> None:
    """JSON may have it, UTF-8 has no form of it."""
    fields = {"model": "a\ud83d", "prompt": "\ude00b"}
    found = about(TEXT, fields, session="\ud83d")
    assert (found.model, found.prompt, found.session) == ("a\ufffd", "\ufffdb", "\ufffd")


WRONG = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "type", "text", "format", "effort", "prompt_string"]
            )
            | st.text(max_size=3),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
NAMES = [
    *("model", "stream", "max_tokens", "n_predict", "max_output_tokens", "temperature", "top_k"),
    *("tools", "response_format", "text", "json_schema", "grammar", "chat_template_kwargs"),
    *("thinking", "reasoning", "reasoning_effort", "messages", "input", "prompt", "input_prefix"),
]


@given(
    label=st.sampled_from(sorted(GENERATING_PATHS)),
    fields=st.dictionaries(st.sampled_from(NAMES), WRONG, max_size=6),
)
def test_member_of_a_wrong_type_is_never_an_error(label: str, fields: dict[str, Any]) -> None:
    """Whether a request is right is llama-server's to say."""
    found = about(label, fields)
    assert found.model is None or isinstance(found.model, str)
    assert found.prompt is None or isinstance(found.prompt, str)
    for name in ("max_tokens", "temperature", "top_k"):
        assert found.parameters[name] is None or isinstance(found.parameters[name], int | float)
