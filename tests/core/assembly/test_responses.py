"""A response out of the last event of its stream."""

from __future__ import annotations

import json
from typing import Any

from proxy.core.assembly.responses import ResponsesAssembler

REASONING = {"id": "rs", "summary": [], "type": "reasoning", "content": [], "encrypted_content": ""}
PART = {"type": "output_text", "annotations": [], "logprobs": [], "text": "a"}
MESSAGE = {
    "type": "message",
    "status": "completed",
    "id": "msg",
    "content": [PART],
    "role": "assistant",
}
CALL = {"id": "fc", "type": "function_call", "status": "completed", "arguments": "{}"}
COMPLETED = {
    "type": "response.completed",
    "response": {
        "id": "resp",
        "object": "response",
        "created_at": 5,
        "status": "completed",
        "model": "m",
        "output": [REASONING, MESSAGE, CALL],
        "usage": {"input_tokens": 1},
    },
    "timings": {"cache_n": 0},
}


def event(kind: str, data: object) -> bytes:
    """Return one event as llama-server writes it."""
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def assembled() -> Any:
    """Return the answer that the stream becomes."""
    assembler = ResponsesAssembler()
    assembler.feed(event("response.output_text.delta", {"delta": "a"}))
    assembler.feed(event("response.completed", COMPLETED))
    return json.loads(assembler.finish().body)


def test_response_has_the_members_of_an_answer_in_one_piece_in_their_order() -> None:
    """Without timings, which such an answer has not."""
    answer = assembled()
    del answer["output"]
    assert list(answer.items()) == [
        ("completed_at", 5),
        ("created_at", 5),
        ("id", "resp"),
        ("model", "m"),
        ("object", "response"),
        ("status", "completed"),
        ("usage", {"input_tokens": 1}),
    ]


def test_response_has_reasoning_with_a_status() -> None:
    """The stream tells it without."""
    assert list(assembled()["output"][0].items()) == [*REASONING.items(), ("status", "completed")]


def test_response_has_a_message_in_the_order_of_an_answer_in_one_piece() -> None:
    """It is another in the stream."""
    message = assembled()["output"][1]
    assert message == MESSAGE
    assert list(message) == ["content", "id", "role", "status", "type"]


def test_response_has_a_function_call_as_the_stream_tells_it() -> None:
    """Nothing of it differs."""
    assert list(assembled()["output"][2].items()) == list(CALL.items())
