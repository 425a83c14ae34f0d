"""A message of Anthropic's out of its events."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.core.assembly.messages import MessagesAssembler

START = {
    "type": "message_start",
    "message": {
        "id": "m1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "m",
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"cache_read_input_tokens": 4, "input_tokens": 3, "output_tokens": 0},
    },
}
END = (
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 2},
    },
    {"type": "message_stop"},
)


def begin(index: int, kind: str, **rest: object) -> dict[str, Any]:
    """Return the start of a content block."""
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **rest}}


def tool(index: int, name: str) -> dict[str, Any]:
    """Return the start of a tool call; its id is its name in capitals."""
    return begin(index, "tool_use", id=name.upper(), name=name)


def delta(index: int, kind: str, **rest: str) -> dict[str, Any]:
    """Return a piece of a content block."""
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **rest}}


def arguments(index: int, text: str) -> dict[str, Any]:
    """Return a piece of a tool call's arguments."""
    return delta(index, "input_json_delta", partial_json=text)


def fed(*events: dict[str, Any], **fields: object) -> MessagesAssembler:
    """Return an assembler that has taken `events` and the end."""
    assembler = MessagesAssembler(fields, "r1")
    for event in (*events, *END):
        assembler.feed(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
    return assembler


def content(*events: dict[str, Any]) -> Any:
    """Return the content blocks that `events` become."""
    return json.loads(fed(START, *events).finish().body)["content"]


def test_message_has_the_members_of_an_answer_in_one_piece_in_their_order() -> None:
    """What was read is told at the start, what was generated at the end."""
    assembler = fed(START, begin(0, "text", text=""), delta(0, "text_delta", text="a"))
    assert assembler.questions() == []
    assert list(json.loads(assembler.finish().body).items()) == [
        ("id", "m1"),
        ("type", "message"),
        ("role", "assistant"),
        ("content", [{"type": "text", "text": "a"}]),
        ("model", "m"),
        ("stop_reason", "end_turn"),
        ("stop_sequence", None),
        ("usage", {"cache_read_input_tokens": 4, "input_tokens": 3, "output_tokens": 2}),
    ]


def test_message_has_thinking_then_text_then_tools() -> None:
    """Whatever their indices in the stream."""
    assert content(
        tool(0, "get"),
        arguments(0, "{}"),
        begin(0, "text", text=""),
        delta(0, "text_delta", text="b"),
        begin(0, "thinking", thinking=""),
        delta(0, "thinking_delta", thinking="a"),
        delta(0, "signature_delta", signature=""),
    ) == [
        {"type": "thinking", "thinking": "a", "signature": ""},
        {"type": "text", "text": "b"},
        {"type": "tool_use", "id": "GET", "name": "get", "input": {}},
    ]


def test_message_joins_a_block_that_is_begun_again() -> None:
    """llama-server begins it again for what it finds at the end."""
    assert content(
        begin(0, "text", text=""),
        delta(0, "text_delta", text="a"),
        tool(1, "get"),
        arguments(1, '{"x":'),
        begin(0, "text", text=""),
        delta(0, "text_delta", text="b"),
        tool(1, "get"),
        arguments(1, "1}"),
    ) == [
        {"type": "text", "text": "ab"},
        {"type": "tool_use", "id": "GET", "name": "get", "input": {"x": 1}},
    ]


def test_message_gives_arguments_of_an_unknown_index_to_the_last_tool() -> None:
    """A text that turns up late moves the indices of the tools."""
    assert content(tool(0, "get"), tool(1, "put"), arguments(2, '{"x":1}')) == [
        {"type": "tool_use", "id": "GET", "name": "get", "input": {}},
        {"type": "tool_use", "id": "PUT", "name": "put", "input": {"x": 1}},
    ]


@pytest.mark.parametrize("text", ['{"x":', "", '{"x":NaN}', '{"x":1e999}', "[" * 100_000])
def test_message_has_no_input_for_arguments_that_are_no_json(text: str) -> None:
    """As llama-server has it; a call may be cut off."""
    (block,) = content(tool(0, "get"), arguments(0, text))
    assert block["input"] == {}


@pytest.mark.parametrize(
    ("models", "model"),
    [([{"id": "real"}], "real"), ([{"id": "a"}, {"id": "b"}], "asked")],
)
def test_message_without_a_start_asks_for_what_it_would_have_told(
    models: list[dict[str, str]], model: str
) -> None:
    """llama-server leaves the start out when the first token is half a character."""
    assembler = fed(begin(0, "text", text=""), delta(0, "text_delta", text="👋"), model="asked")
    count, names = assembler.questions()
    assert (count.path, count.fields) == ("/v1/messages/count_tokens", {"model": "asked"})
    assert (names.path, names.fields) == ("/v1/models", None)
    count.learn({"input_tokens": 9})
    names.learn({"data": models})
    answer = json.loads(assembler.finish().body)
    assert (answer["id"], answer["model"]) == ("chatcmpl-r1", model)
    assert answer["usage"] == {
        "cache_read_input_tokens": 0,
        "input_tokens": 9,
        "output_tokens": 2,
    }
