"""A chat completion out of its chunks."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.assembly.chat import ChatAssembler

HEAD = {"created": 5, "id": "c", "model": "m", "system_fingerprint": "b", "object": "chunk"}
USAGE = {"completion_tokens": 2, "prompt_tokens": 3, "total_tokens": 5}
DONE = b"data: [DONE]\n\n"


def event(chunk: dict[str, Any]) -> bytes:
    """Return one chunk as llama-server writes it."""
    return f"data: {json.dumps(chunk, separators=(',', ':'), ensure_ascii=False)}\n\n".encode()


def delta(index: int = 0, finish_reason: str | None = None, **found: object) -> bytes:
    """Return a chunk with one choice."""
    choice = {"finish_reason": finish_reason, "index": index, "delta": found}
    return event({"choices": [choice], **HEAD})


def usage(completion_tokens: int = 2) -> bytes:
    """Return the chunk that follows the last of a choice."""
    counted = {**USAGE, "completion_tokens": completion_tokens}
    return event({"choices": [], **HEAD, "usage": counted, "timings": {"predicted_n": 2}})


def call(index: int, arguments: str, **found: str) -> bytes:
    """Return a chunk with a piece of a tool call; `found` is told with the first."""
    function: dict[str, str] = {"arguments": arguments}
    if "name" in found:
        function = {"name": found.pop("name"), **function}
    return delta(tool_calls=[{"index": index, **found, "function": function}])


def assembled(*pieces: bytes) -> Any:
    """Return the answer that a stream in `pieces` becomes."""
    assembler = ChatAssembler()
    for piece in pieces:
        assembler.feed(piece)
    return json.loads(assembler.finish().body)


ROLE = delta(role="assistant", content=None)
TEXT = (ROLE, delta(content="é"), delta(content="👋"), delta(finish_reason="stop"), usage(), DONE)


def test_chat_has_the_members_of_an_answer_in_one_piece_in_their_order() -> None:
    """As llama-server writes them."""
    answer = assembled(*TEXT)
    assert list(answer.items()) == [
        (
            "choices",
            [
                {
                    "finish_reason": "stop",
                    "index": 0,
                    "message": {"role": "assistant", "content": "é👋"},
                }
            ],
        ),
        ("created", 5),
        ("model", "m"),
        ("system_fingerprint", "b"),
        ("object", "chat.completion"),
        ("usage", USAGE),
        ("id", "c"),
        ("timings", {"predicted_n": 2}),
    ]


@given(st.lists(st.integers(0, len(b"".join(TEXT)))))
def test_chat_is_the_same_however_its_stream_is_cut(cuts: list[int]) -> None:
    """Also within a character."""
    stream = b"".join(TEXT)
    edges = [0, *sorted(cuts), len(stream)]
    pieces = [stream[edges[i] : edges[i + 1]] for i in range(len(edges) - 1)]
    assert assembled(*pieces) == assembled(*TEXT)


def test_chat_takes_progress_and_pings_for_nothing() -> None:
    """They come before the first token, and in silence."""
    progress = event(
        {
            "choices": [
                {"finish_reason": None, "index": 0, "delta": {"role": "assistant", "content": None}}
            ],
            **HEAD,
            "prompt_progress": {"total": 4, "cache": 0, "processed": 2, "time_ms": 1},
        }
    )
    assert assembled(progress, b":\n\n", *TEXT) == assembled(*TEXT)


def test_chat_puts_reasoning_after_the_content() -> None:
    """It comes before it in the stream."""
    (choice,) = assembled(
        ROLE,
        delta(reasoning_content="a"),
        delta(reasoning_content="b"),
        delta(content="c"),
        delta(finish_reason="length"),
        usage(),
        DONE,
    )["choices"]
    message = {"role": "assistant", "content": "c", "reasoning_content": "ab"}
    assert list(choice["message"].items()) == list(message.items())


def test_chat_joins_the_arguments_of_each_tool_call() -> None:
    """The name and the id are told once, or whole again when they have grown."""
    (choice,) = assembled(
        ROLE,
        call(0, "", id="x", name="get"),
        call(0, '{"a"', id="x", name="get_weather"),
        call(0, ":1}"),
        call(1, "{", id="y", name="other"),
        call(1, "}"),
        delta(finish_reason="tool_calls"),
        usage(),
        DONE,
    )["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"a":1}'},
                "id": "x",
            },
            {"type": "function", "function": {"name": "other", "arguments": "{}"}, "id": "y"},
        ],
    }


def test_chat_leaves_out_the_id_of_a_tool_call_that_has_none() -> None:
    """As llama-server does."""
    (choice,) = assembled(
        call(0, "{}", name="a"), delta(finish_reason="tool_calls"), usage(), DONE
    )["choices"]
    assert "id" not in choice["message"]["tool_calls"][0]


def test_chat_of_several_choices_has_them_in_order_and_the_usage_of_the_first() -> None:
    """Their chunks are mixed, and a usage names no choice: it follows the last chunk of its own."""
    answer = assembled(
        delta(1, content="b"),
        delta(0, content="a"),
        delta(1, "length"),
        usage(7),
        delta(0, content="A"),
        delta(0, "stop"),
        usage(2),
        DONE,
    )
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert [choice["message"]["content"] for choice in answer["choices"]] == ["aA", "b"]
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["stop", "length"]
    assert answer["usage"] == USAGE


def test_chat_of_nothing_has_an_empty_message() -> None:
    """A limit of no tokens."""
    (choice,) = assembled(delta(finish_reason="length"), usage(0), DONE)["choices"]
    assert choice["message"] == {"role": "assistant", "content": ""}


def test_chat_without_timings_has_none() -> None:
    """As llama-server leaves them out."""
    last = event({"choices": [], **HEAD, "usage": USAGE})
    assert "timings" not in assembled(delta(content="a"), delta(finish_reason="stop"), last, DONE)


def test_chat_passes_over_a_usage_of_no_choice() -> None:
    """There is nothing it could belong to."""
    assert assembled(usage(9), *TEXT) == assembled(*TEXT)


def test_chat_asks_nothing() -> None:
    """Its chunks tell all that can be told."""
    assert ChatAssembler().questions() == []
